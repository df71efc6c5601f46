//! Orphans that have not ended: the bytes that they left show at once, whether or not the return of their close was
//! seen.

use std::fs;
use std::path::Path;

use anyhow::Result;
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, MESSAGE};
use linger_ebpf::Plan;
use linger_testkit::exposition::Scrape;

use crate::closes::{expect, sum};
use crate::daemon::Daemon;
use crate::ends::close_by_dup2;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("orphan_under_way", orphan_under_way)];

/// Returns the active orphans of this process, and the bytes that all its closes left.
fn left(scrape: &Scrape, comm: &str) -> [u64; 2] {
    ["linger_orphans_active", "linger_orphaned_bytes_total"]
        .map(|metric| sum(scrape, metric, |sample| sample.label("comm") == comm))
}

fn orphan_under_way(lingerd: &Path, plan: Plan) -> Result<()> {
    let comm = fs::read_to_string("/proc/self/comm")?;
    let daemon = Daemon::start(lingerd, plan, &[])?;
    let left = |scrape: &Scrape| left(scrape, comm.trim_end());
    let loopback = Loopback::new()?;
    let one = exercise::pair_with_unacked(&loopback)?;
    let Pair { client, server } = exercise::pair_with_unacked(&loopback)?;
    tcp::close(one.client)?;
    // Under `tracepoint`, the return of this close is not seen.
    close_by_dup2(client)?;
    let bytes = 2 * MESSAGE as u64;
    expect(&daemon, &[2, bytes], left)?;
    for server in [one.server, server] {
        tcp::accept_data(&server)?;
        tcp::receive_all(&server)?;
    }
    expect(&daemon, &[0, bytes], left)?;
    daemon.stop()
}
