//! A daemon answers from the start: that it is not ready, until its programs count.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use linger_ebpf::Plan;
use linger_testkit::http;
use nix::sys::signal::Signal;

use crate::common::summary::WaitedInVain;
use crate::daemon::{Daemon, wait_until};
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("starting_is_not_ready", not_ready),
    Scenario::daemon("starting_asks_for_passwords", passwords).once(),
];

fn not_ready(lingerd: &Path, plan: Plan) -> Result<()> {
    let mut daemon = Daemon::spawn(lingerd, plan, &[])?;
    halt(&daemon)?;
    expect(&daemon, "/healthz", 200, "ok\n")?;
    for path in ["/readyz", "/metrics", "/live.json"] {
        expect(
            &daemon,
            path,
            503,
            "starting: the programs are not attached yet\n",
        )?;
    }
    // Once it answers, it has dropped the privileges that it does not need.
    let [answering] = &children(daemon.id())?[..] else {
        bail!("not one process answers");
    };
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        ensure!(answering.contains(line), "no {line:?} in {answering}");
    }
    daemon.signal(Signal::SIGCONT)?;
    daemon.wait_until_ready()?;
    ensure!(children(daemon.id())?.is_empty(), "it still runs");
    daemon.scrape()?;
    daemon.stop()
}

fn passwords(lingerd: &Path, plan: Plan) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("web.yml");
    let hash = bcrypt::hash("secret", 4)?;
    fs::write(&file, format!("basic_auth_users:\n  prometheus: {hash}\n"))?;
    let file = file.to_str().context("a path of text")?;
    let daemon = Daemon::spawn(lingerd, plan, &["--web.config.file", file])?;
    halt(&daemon)?;
    for path in ["/healthz", "/readyz", "/metrics"] {
        expect(&daemon, path, 401, "Unauthorized\n")?;
    }
    daemon.signal(Signal::SIGCONT)?;
    daemon.wait_for_log("serving http", 1)?;
    expect(&daemon, "/readyz", 401, "Unauthorized\n")?;
    daemon.stop()
}

/// Stops the daemon before it attaches its programs, once it has a process to answer meanwhile.
fn halt(daemon: &Daemon) -> Result<()> {
    wait_until("a process that answers", || {
        Ok(!children(daemon.id())?.is_empty())
    })?;
    daemon.signal(Signal::SIGSTOP)?;
    if daemon.errors().contains("attached") {
        bail!(WaitedInVain("halted too late".to_owned()));
    }
    Ok(())
}

/// Expects this to be the first answer, once it listens.
fn expect(daemon: &Daemon, path: &str, status: u16, body: &str) -> Result<()> {
    let mut answer = None;
    wait_until("an answer", || {
        answer = http::get(daemon.address(), path).ok();
        Ok(answer.is_some())
    })
    .with_context(|| daemon.errors())?;
    let answer = answer.context("an answer")?;
    ensure!(
        answer == (status, body.to_owned()),
        "{path} answers {answer:?}\n{}",
        daemon.errors()
    );
    Ok(())
}

/// Returns the status of each child of this process.
fn children(parent: u32) -> Result<Vec<String>> {
    let parent = format!("\nPPid:\t{parent}\n");
    let entries = fs::read_dir("/proc")?.flatten();
    // A process may end meanwhile.
    let statuses = entries.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    Ok(statuses.filter(|status| status.contains(&parent)).collect())
}
