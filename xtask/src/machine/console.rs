//! Watches the console of a machine for faults that its kernel reports.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Silence of the console after which a line says that the machine is still running.
const SILENCE: Duration = Duration::from_secs(30);

/// Longest time in which a machine comes up, even a slow one beside others. Few kernels hang before that, and rarely.
const BOOT: Duration = Duration::from_secs(5 * 60);

/// Runs the machine until it ends, prints its console, and returns the kernel's lines that report a fault; `None` if it
/// has not come up in time.
pub(super) fn watch(
    qemu: &mut Command,
    label: &str,
    limit: Duration,
    is_up: impl Fn() -> bool,
) -> Result<Option<Vec<String>>> {
    let mut child = qemu.stdout(Stdio::piped()).spawn().context("start QEMU")?;
    let console = lines(child.stdout.take().context("the console is a pipe")?);
    let result = follow(&console, label, (BOOT, limit), is_up);
    if !matches!(result, Ok(Some(_))) {
        child.kill()?;
    }
    child.wait().context("wait for QEMU")?;
    result
}

fn follow(
    console: &Receiver<String>,
    label: &str,
    (boot, limit): (Duration, Duration),
    is_up: impl Fn() -> bool,
) -> Result<Option<Vec<String>>> {
    let start = Instant::now();
    let mut troubles = Vec::new();
    let mut was_up = false;
    while start.elapsed() < limit {
        was_up = was_up || is_up();
        if !was_up && start.elapsed() >= boot {
            return Ok(None);
        }
        match console.recv_timeout(SILENCE) {
            Ok(line) => {
                println!("{label} | {line}");
                if is_trouble(&line) {
                    troubles.push(line);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                println!("{label} | (running for {} s)", start.elapsed().as_secs());
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Some(troubles)),
        }
    }
    bail!(
        "kernel {label} was not done after {} minutes",
        limit.as_secs() / 60
    )
}

/// Reads the lines of a stream in another thread.
fn lines(stream: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for bytes in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&bytes);
            if sender.send(line.trim_end_matches('\r').to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Returns whether the line is from the kernel and reports a fault.
fn is_trouble(line: &str) -> bool {
    // The kernel's lines begin with the time; a test may print the same words without it.
    let Some((time, text)) = line
        .strip_prefix('[')
        .and_then(|line| line.split_once("] "))
    else {
        return false;
    };
    // Since 6.19 a warning names its source line first, then the CPU.
    let is_warning = text.starts_with("WARNING: ");
    time.trim().parse::<f64>().is_ok()
        && (is_warning || TROUBLES.iter().any(|words| text.contains(words)))
}

/// Words by which Linux 6.1 to 7.3 reports a fault, anywhere in a line.
const TROUBLES: [&str; 8] = [
    "Kernel panic",
    "BUG:",
    "Oops:",
    "UBSAN:",
    "soft lockup",
    "general protection fault",
    // From RCU, and of hung tasks.
    "detected stall",
    "blocked for more than",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_does_not_come_up_in_time_is_given_up() {
        const LONG: Duration = Duration::from_secs(60);
        let (sender, console) = mpsc::channel();
        let hangs = follow(&console, "a kernel", (Duration::ZERO, LONG), || false);
        assert_eq!(hangs.unwrap(), None);
        drop(sender);
        let ends = follow(&console, "a kernel", (Duration::ZERO, LONG), || true);
        assert_eq!(ends.unwrap(), Some(Vec::new()));
    }

    #[test]
    fn faults_reported_by_the_kernel_are_seen_and_words_of_tests_are_not() {
        for line in [
            "[    1.798159] Kernel panic - not syncing: VFS: Unable to mount root fs",
            "[   40.000001] watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [scenarios:90]",
            "[    2.5] WARNING: CPU: 0 PID: 70 at kernel/bpf/verifier.c:1 x+0x1/0x2",
            "[    2.5] WARNING: kernel/bpf/verifier.c:1 at x+0x1/0x2, CPU#0: scenarios/70",
            "[   60.0] rcu: INFO: rcu_preempt self-detected stall on CPU",
            "[  242.0] INFO: task scenarios:90 blocked for more than 120 seconds.",
        ] {
            assert!(is_trouble(line), "{line}");
        }
        for line in [
            "BUG: an assertion of a test",
            "[   12.000000] TCP: request_sock_TCP: Possible SYN flooding on port 1",
            "[kprobe] WARNING: CPU time is not measured",
            "[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on",
        ] {
            assert!(!is_trouble(line), "{line}");
        }
    }
}
