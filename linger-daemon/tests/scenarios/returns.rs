//! The plan `tracepoint` hooks the return of close(2), and so that of every system call, only once a close waits.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::Loopback;
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;

use crate::closes::{lost, sum};
use crate::daemon::{Daemon, MAINTENANCE, is_return_hooked, wait_in_close, wait_until};
use crate::scenario::Scenario;
use crate::watch::sight;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon(
    "returns_seen_once_closes_wait",
    seen_once_closes_wait,
)];

/// Closes that waited, those of them with a time, and those whose return was missed.
type Waits = [u64; 3];

fn waits(scrape: &Scrape) -> Waits {
    let of =
        |metric, label, value: &str| sum(scrape, metric, |sample| sample.label(label) == value);
    [
        of("linger_closes_total", "outcome", "lingered"),
        of("linger_close_blocked_seconds_count", "waited", "true"),
        lost(scrape, "return"),
    ]
}

fn seen_once_closes_wait(lingerd: &Path, plan: Plan) -> Result<()> {
    let sight = sight(plan)?;
    let can_be = !sight.sees_everything() && sight.release_in_close;
    let daemon = Daemon::start_keeping(lingerd, plan, &[])?;
    let loopback = Loopback::new()?;
    let before = daemon.scrape()?;
    ensure!(
        !is_return_hooked(&before),
        "sys_exit is hooked, and no close waits"
    );
    ensure!(waits(&before) == [0; 3], "{:?}", waits(&before));
    let logged = format!(" hooks={} ", before.of("linger_probe_attached").count());
    let errors = daemon.errors();
    ensure!(errors.contains(&logged), "no{logged}in {errors}");

    let first = if sight.sees_everything() {
        [1, 1, 0]
    } else {
        [1, 0, 1]
    };
    // The thread closes nothing else meanwhile, which would show that its last close is over.
    thread::scope(|scope| {
        let (counted, until_counted) = mpsc::channel::<()>();
        let loopback = &loopback;
        let closer = scope.spawn(move || {
            let server = wait_in_close(loopback);
            let _ = until_counted.recv();
            server
        });
        let expected = expect(&daemon, first);
        drop(counted);
        closer.join().expect("it does not panic")?;
        expected
    })?;
    if can_be {
        daemon.wait_for_return_hook()?;
    } else {
        thread::sleep(MAINTENANCE);
        let hooked = is_return_hooked(&daemon.scrape()?);
        ensure!(!hooked, "sys_exit is hooked where nothing needs it");
    }

    wait_in_close(&loopback)?;
    expect(
        &daemon,
        match first {
            [_, 1, _] => [2, 2, 0],
            _ if can_be => [2, 1, 1],
            _ => [2, 0, 2],
        },
    )?;
    daemon.stop()
}

/// Waits until the closes are counted, which may take until a socket ends.
fn expect(daemon: &Daemon, expected: Waits) -> Result<()> {
    // A wrong count is not retried.
    let reached = wait_until("the count of closes that waited", || {
        Ok(waits(&daemon.scrape()?)[0] >= expected[0])
    });
    let counted = waits(&daemon.scrape()?);
    ensure!(
        reached.is_ok() && counted == expected,
        "counted, of which have a time, of which were missed: {counted:?}, expected {expected:?}"
    );
    Ok(())
}
