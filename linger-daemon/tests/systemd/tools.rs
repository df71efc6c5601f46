//! Runs systemd's tools, and waits for their effects.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Longest time for anything, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Runs a command to its end. Returns its standard output.
pub(crate) fn run<S: AsRef<str>>(words: &[S]) -> Result<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let line = words.join(" ");
    let (program, arguments) = words.split_first().context("an empty command")?;
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("run `{line}`"))?;
    let errors = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "`{line}`: {status}: {}", errors.trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Returns the version that systemd reports, for instance `systemd 252 (252.39-1~deb12u1)`.
pub(crate) fn systemd_version() -> Result<String> {
    let version = run(&["systemctl", "--version"])?;
    Ok(version.lines().next().unwrap_or_default().to_owned())
}

/// Calls `look` until it returns an answer; fails with `what` after a while.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = look() {
            return Ok(answer);
        }
        let waited = start.elapsed();
        ensure!(
            waited < PATIENCE,
            "waited {} s for {what}",
            waited.as_secs()
        );
        thread::sleep(PAUSE);
    }
}
