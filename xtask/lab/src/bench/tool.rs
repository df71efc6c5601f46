//! The peers: existing tools that show how connections end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use linger_xtask::shell::{self, command, root};
use nix::sys::signal::Signal;

use super::process::Process;
use super::report::Report;
use super::ways::Watcher;

/// Time limit of a start. Tools are expected to need a fraction of it; bpftrace compiles its script first.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Time without a file opened or closed after which a process counts as ready.
const SETTLED: Duration = Duration::from_millis(150);

/// Script that counts closes by probing kernel functions.
const BY_FUNCTION: &str = include_str!("closes.bt");
/// Script that counts closes as far as tracepoints show them.
const BY_TRACEPOINT: &str = include_str!("closes-tracepoint.bt");

/// An installed tool, and how to run it.
#[derive(Clone, Debug)]
pub(super) struct Installed {
    pub(super) name: &'static str,
    program: PathBuf,
    args: Vec<String>,
    /// Whether it prints a line for each connection, rather than a summary at its end.
    prints_lines: bool,
}

/// Finds the installed tools, with a script that uses hooks like those of this plan. Reports missing tools as not run.
pub(super) fn installed(plan: &str, report: &mut Report) -> Result<Vec<Installed>> {
    let script = root().join("target/bench-closes.bt");
    fs::write(&script, closes_script(plan))?;
    let script = script.to_str().context("a path of text")?.to_owned();
    let tools = [
        ("tcplife", vec![], true),
        ("tcpstates", vec![], true),
        ("bpftrace", vec![script], false),
    ];
    let mut found = Vec::new();
    for (name, args, prints_lines) in tools {
        match shell::find(name) {
            Some(program) => found.push(Installed {
                name,
                program,
                args,
                prints_lines,
            }),
            None => report.not_run(
                name,
                "is not installed; `cargo xtask setup --for test` does",
            ),
        }
    }
    Ok(found)
}

/// Returns the script for bpftrace, by the best hooks that this kernel has.
fn closes_script(plan: &str) -> String {
    match plan {
        "fentry" => BY_FUNCTION
            .replace("kprobe:__tcp_close", "kfunc:__tcp_close")
            .replace("(struct sock *)arg0", "args->sk"),
        "kprobe" => BY_FUNCTION.to_owned(),
        _ => BY_TRACEPOINT.to_owned(),
    }
}

/// A running tool.
pub(super) struct Tool {
    process: Process,
    prints_lines: bool,
}

impl Tool {
    /// Starts the tool, and waits until it is attached. Discards the lines for each connection.
    pub(super) fn start(tool: &Installed) -> Result<Self> {
        let stdout = if tool.prints_lines {
            Stdio::null()
        } else {
            File::create(summary())?.into()
        };
        let process = Process::start(
            command(&tool.program)
                .args(&tool.args)
                .stdout(stdout)
                .stderr(File::create(complaints())?),
        )?;
        let mut tool = Self {
            process,
            prints_lines: tool.prints_lines,
        };
        let settled = settle(&mut tool.process);
        settled.with_context(|| fs::read_to_string(complaints()).unwrap_or_default())?;
        Ok(tool)
    }
}

impl Watcher for Tool {
    fn cpu_time(&mut self) -> Result<Duration> {
        self.process.cpu_time()
    }

    fn check(&mut self, connections: u64, _orphans: u64) -> Result<()> {
        if self.prints_lines {
            expect_lines(&self.process, connections)
        } else {
            Ok(())
        }
    }

    fn stop(mut self: Box<Self>) -> Result<()> {
        self.process.end(Signal::SIGINT)?;
        fs::remove_file(complaints())?;
        if self.prints_lines {
            return Ok(());
        }
        let counts = fs::read_to_string(summary())?;
        fs::remove_file(summary())?;
        let own = fs::read_to_string("/proc/self/comm")?;
        if !counts.contains(&format!("@closes[{}", own.trim())) {
            bail!("has counted none of the closes: {counts}");
        }
        Ok(())
    }
}

/// Checks that a process has printed something, if there were enough connections to fill its buffer.
fn expect_lines(process: &Process, connections: u64) -> Result<()> {
    if connections < 1000 {
        return Ok(());
    }
    let io = fs::read_to_string(process.file("io"))?;
    if super::process::field(&io, "wchar:").is_none_or(|written| written == 0) {
        bail!("has printed nothing");
    }
    Ok(())
}

/// Waits until a process has attached its programs, judging by its open files, since these tools do not report it.
pub(super) fn settle(process: &mut Process) -> Result<()> {
    let start = Instant::now();
    let (mut files, mut since) = (BTreeSet::<String>::new(), start);
    while since.elapsed() < SETTLED || !files.iter().any(|file| is_bpf(file)) {
        if let Some(status) = process.ended()? {
            bail!("ended ({status}) before it was attached");
        }
        if start.elapsed() > READY_LIMIT {
            bail!("is not attached after {READY_LIMIT:?}");
        }
        let open = open_files(process)?;
        if open != files {
            (files, since) = (open, Instant::now());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn open_files(process: &Process) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(process.file("fd"))? {
        let entry = entry?;
        // It may have been closed in the meantime.
        if let Ok(target) = fs::read_link(entry.path()) {
            let number = entry.file_name();
            files.insert(format!("{}: {}", number.display(), target.display()));
        }
    }
    Ok(files)
}

/// Returns whether an open file is a perf event or link that attaches a BPF program, or a map.
fn is_bpf(file: &str) -> bool {
    let kinds = ["perf_event", "bpf_link", "bpf-map"];
    kinds.iter().any(|kind| file.contains(kind))
}

/// Returns the file of a tool's summary.
fn summary() -> PathBuf {
    root().join("target/bench-tool.out")
}

/// Returns the file of its error output.
fn complaints() -> PathBuf {
    root().join("target/bench-tool.err")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_takes_the_best_hooks() {
        let fentry = closes_script("fentry");
        assert!(fentry.contains("kfunc:__tcp_close") && fentry.contains("args->sk"));
        assert!(!fentry.contains("kprobe") && !fentry.contains("arg0"));
        assert!(closes_script("kprobe").contains("kprobe:__tcp_close"));
        assert!(!closes_script("tracepoint").contains("kprobe"));
    }
}
