//! Unit and integration tests: built together, then run several executables at a time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::step::Findings;
use crate::artifacts;
use crate::tally::Tally;

/// Number of executables run concurrently: most wait more than they work.
const LANES: usize = 3;

/// The test executable that runs alone: it generates load, and measures its effects.
const ALONE: &str = "siege";

/// A test executable.
struct Program {
    name: String,
    executable: PathBuf,
    /// The folder of its package, in which cargo runs it.
    folder: PathBuf,
}

/// Builds all tests, and runs those that need neither a machine nor a core of their own.
pub(super) fn run() -> Result<Findings> {
    let mut programs = programs(&artifacts::tests()?)?;
    programs.retain(|program| program.name != ALONE);
    let queue = Mutex::new(programs.iter());
    let next = || queue.lock().expect("no thread panics here").next();
    let lane = || {
        let mut tally = Tally::default();
        while let Some(program) = next() {
            tally += program.run()?;
        }
        anyhow::Ok(tally)
    };
    thread::scope(|scope| {
        let lanes = [(); LANES].map(|()| scope.spawn(lane));
        let mut tally = Tally::default();
        for lane in lanes {
            tally += lane.join().expect("no thread panics here")?;
        }
        Ok(Findings::Counted(tally))
    })
}

/// Runs the executable [`ALONE`].
pub(super) fn run_siege() -> Result<Findings> {
    let programs = programs(&artifacts::tests()?)?;
    let siege = programs.iter().find(|program| program.name == ALONE);
    let siege = siege.with_context(|| format!("cargo built no test {ALONE}"))?;
    siege.run().map(Findings::Counted)
}

/// Reads the test executables from cargo's messages, in their order.
fn programs(messages: &[Value]) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for message in messages {
        let is_test = message["profile"]["test"] == true;
        let Some(executable) = message["executable"].as_str().filter(|_| is_test) else {
            continue;
        };
        let manifest = message["manifest_path"].as_str();
        let folder = manifest.and_then(|path| Path::new(path).parent());
        programs.push(Program {
            name: message["target"]["name"]
                .as_str()
                .context("a target has a name")?
                .to_owned(),
            executable: executable.into(),
            folder: folder.context("a package is in a folder")?.to_owned(),
        });
    }
    ensure!(!programs.is_empty(), "cargo built no tests");
    Ok(programs)
}

impl Program {
    /// Runs the executable, then prints its output in one piece.
    fn run(&self) -> Result<Tally> {
        counted(
            &self.name,
            Command::new(&self.executable)
                .current_dir(&self.folder)
                .env("CARGO_MANIFEST_DIR", &self.folder),
        )
    }
}

/// Runs tests of cargo's harness, prints their output, and adds up their counts.
///
/// An ignored test counts as failed, since it should have run, and so does a program that reports no result.
fn counted(name: &str, tests: &mut Command) -> Result<Tally> {
    let output = tests
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run the tests {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    print!("== {name}\n{text}{errors}");
    let sums: Vec<_> = text.lines().filter_map(Tally::of_libtest).collect();
    let mut tally = Tally::default();
    for sum in &sums {
        tally += sum.with_skipped_as_failed();
    }
    Ok(tally.with_exit(output.status.success() && !sums.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_executables_are_distinguished_from_others() {
        let message = |name: &str, test: bool, executable: Option<&str>| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": "/w/package/Cargo.toml",
                "target": { "name": name },
                "profile": { "test": test },
                "executable": executable,
            })
        };
        let messages = [
            message("lingerd", false, Some("/t/lingerd")),
            message("linger_daemon", true, None),
            message("web", true, Some("/t/deps/web-1")),
        ];
        let programs = programs(&messages).unwrap();
        let [web] = &programs[..] else {
            panic!("{} programs", programs.len());
        };
        assert_eq!(
            (web.name.as_str(), web.folder.as_path()),
            ("web", Path::new("/w/package"))
        );
        assert!(super::programs(&messages[..2]).is_err());
    }

    #[test]
    fn a_program_that_fails_or_ignores_a_test_is_not_counted_as_success() {
        let sh = |script: &str| counted("x", Command::new("sh").args(["-c", script])).unwrap();
        let line = |ignored: u32| {
            format!(
                "echo 'test result: ok. 2 passed; 0 failed; {ignored} ignored; 0 measured; 0 filtered out'"
            )
        };
        assert_eq!(sh(&line(0)).to_string(), "2 passed, 0 failed");
        assert_eq!(sh(&line(1)).to_string(), "2 passed, 1 failed");
        assert_eq!(sh(&format!("{}; exit 101", line(0))).failed, 1);
        assert_eq!(sh("true").failed, 1);
    }
}
