//! `lingerd watch` whose output is not read: it still ends when asked to, and by itself once its reader is gone.

use std::io::Read as _;
use std::path::Path;
use std::process::ChildStdout;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;
use nix::sys::signal::Signal;

use crate::daemon::wait_until;
use crate::netns;
use crate::scenario::Scenario;
use crate::watching::Watching;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("watch_cut_off", cut_off).once(),
    Scenario::daemon("watch_unread", unread).once(),
];

/// Closes, whose lines do not fit in a pipe.
const CLOSES: usize = 1000;
/// Value of `--duration` where it is set.
const DURATION: &str = "5s";

fn unread(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let options = ["--plan", plan.name(), "--outcome", "not_connected"];
        let loopback = Loopback::new()?;
        let close = || (0..CLOSES).try_for_each(|_| tcp::close(loopback.socket()?).map(drop));

        let (mut watching, stdout) = Watching::start_unread(lingerd, &options)?;
        close()?;
        // Far longer than the pipe takes to fill.
        thread::sleep(Duration::from_secs(1));
        watching.expect_capabilities(&[])?;
        watching.signal(Signal::SIGINT)?;
        expect_end(&mut watching, stdout)?;

        let options = [&options[..], &["--duration", DURATION]].concat();
        let (mut watching, stdout) = Watching::start_unread(lingerd, &options)?;
        close()?;
        expect_end(&mut watching, stdout)
    })
}

/// A reader of its lines and its messages that has read enough, as in `lingerd watch 2>&1 | head`, is no reason to fail.
fn cut_off(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let options = ["--plan", plan.name(), "--outcome", "not_connected"];
        let loopback = Loopback::new()?;
        let (mut watching, reader) = Watching::start_joined(lingerd, &options)?;
        drop(reader);
        // It notices that when it writes the line of a close.
        wait_until("the end of lingerd watch", || {
            tcp::close(loopback.socket()?)?;
            watching.has_ended()
        })?;
        let (status, ..) = watching.end()?;
        ensure!(status.success(), "{status}");
        Ok(())
    })
}

/// Expects its end, and that the pipe has held only a part of the lines.
fn expect_end(watching: &mut Watching, mut stdout: ChildStdout) -> Result<()> {
    watching.expect_end()?;
    let mut text = String::new();
    stdout.read_to_string(&mut text)?;
    let lines = text.matches('\n').count();
    ensure!((1..CLOSES).contains(&lines), "{lines} lines of {CLOSES}");
    Ok(())
}
