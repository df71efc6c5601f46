//! The table of orphans: full, with an orphan that outlives its record, and with a record that outlives its orphan.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use linger_daemon::exercise;
use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::{Cause, Fate, Orphan, Outcome, Plan};
use linger_testkit::exposition::{Sample, Scrape};

use crate::closes::{self, sum};
use crate::left::UNACKED_MESSAGE;
use crate::netns;
use crate::orphans::leave;
use crate::pinned::Pinned;
use crate::retired;
use crate::scenario::{self, Scenario, Settings};
use crate::toolkit;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::under("orphan_thousands", &[], thousands).once(),
    Scenario::under("orphan_table_full", &["--max-orphans", "64"], table_full).once(),
    Scenario::under(
        "orphan_outlives_its_record",
        &["--orphan-ttl", "2"],
        outlives,
    )
    .once(),
    Scenario::daemon("orphan_end_is_missed", end_missed).once(),
    Scenario::daemon("orphan_end_is_missed_without_slot", end_missed_without_slot).once(),
];

/// `--max-orphans` of the daemon that [`table_full`] runs under.
const PLACES: u64 = 64;

/// Many more orphans at a time than fit in the table: those that do not are counted as such.
fn table_full(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    truth.places = Some(PLACES);
    thousands(settings, truth)
}

/// So many orphans at a time that some find their slot taken.
fn thousands(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const BYTES: usize = 100;
    // Enough for that many connections, given the ports of each.
    const ADDRESSES: u64 = 8;
    let orphans = settings.load / 10;
    fs::write("/proc/sys/net/core/somaxconn", orphans.to_string())?;
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
    let loopback = Loopback::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    tcp::drop_data(loopback.listener())?;
    // They are not accepted: that would take too many descriptors.
    let backlog = i32::try_from(orphans).map_err(io::Error::other)?;
    loopback.listener().listen(backlog)?;
    let port = tcp::port(loopback.listener())?;
    for number in 0..orphans {
        let last = u8::try_from(number % ADDRESSES).map_err(io::Error::other)? + 1;
        let client = loopback.socket()?;
        client.connect(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)).into())?;
        tcp::send(&client, BYTES)?;
        let left = leave(truth, client)?;
        truth.lost(left, Fate::PeerReset);
    }
    truth
        .tally
        .close(loopback.into_listener(), Outcome::Listener)?;
    truth.tally.reset(Cause::ListenerClosed, orphans);
    Ok(())
}

/// An orphan outlives its record: its fate is unknown from then on.
fn outlives(_: Settings, truth: &mut Truth) -> io::Result<()> {
    /// A multiple of the TTL: the daemon checks orphans only now and then.
    const LIFE: Duration = Duration::from_secs(6);
    scenario::over(Loopback::new()?, truth, |loopback, truth| {
        let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
        let left = leave(truth, client)?;
        thread::sleep(LIFE);
        truth.lost(left, Fate::Unknown);
        exercise::close_and_end_orphan(&mut truth.tally, server)?;
        // An orphan that ends in time is counted as usual.
        let Pair { client, server } = exercise::pair_with_unacked(loopback)?;
        leave(truth, client)?;
        truth.delivered(UNACKED_MESSAGE);
        tcp::accept_data(&server)?;
        exercise::close_after_fin(&mut truth.tally, server)
    })
}

/// An orphan whose end was missed does not stay until its time to live is over; one that lives does.
fn end_missed(lingerd: &Path, plan: Plan) -> Result<()> {
    miss_end(lingerd, plan, &[])
}

/// [`end_missed`] with so few orphans at most that none has a slot.
fn end_missed_without_slot(lingerd: &Path, plan: Plan) -> Result<()> {
    miss_end(lingerd, plan, &["--max-orphans", "64"])
}

fn miss_end(lingerd: &Path, plan: Plan, bounds: &[&str]) -> Result<()> {
    /// Long enough for two sweeps.
    const TTL: &str = "24";
    const MOMENT: Duration = Duration::from_millis(10);
    let bytes = retired::MESSAGE.len() as u64;
    let comm = fs::read_to_string("/proc/self/comm")?;
    let fates = |scrape: &Scrape| fates(scrape, comm.trim_end());
    netns::in_own(|| {
        let pinned = Pinned::new()?;
        let daemon = pinned.start(lingerd, plan, &[&["--orphan-ttl", TTL], bounds].concat())?;
        let loopback = Loopback::new()?;
        // Accepted sockets inherit the filter.
        tcp::drop_data(loopback.listener())?;
        retired::leave(&loopback)?;
        let lives = loopback.accept()?;
        closes::expect(&daemon, &(1, 0, 0), fates)?;
        let mut records = pinned.orphans()?;
        let first: HashSet<_> = records.all()?.iter().map(|orphan| orphan.sk).collect();
        retired::leave(&loopback)?;
        let server = loopback.accept()?;
        closes::expect(&daemon, &(2, 0, 0), fates)?;

        // The programs do not find it when it ends.
        let of_second = |orphan: &Orphan| !first.contains(&orphan.sk);
        let second = records.all()?.into_iter().find(of_second);
        let second = second.context("a second orphan")?;
        records.remove(&second)?;
        let connection = toolkit::peer_of(&server)?;
        server.set_linger(Some(Duration::ZERO))?;
        drop(server);
        state::wait_for("the end of an orphan", || {
            Ok(toolkit::send_queue(connection)?.outstanding() == 0)
        })?;
        // It is no longer found a moment before the hook of its end.
        thread::sleep(MOMENT);
        records.insert(&second)?;

        closes::expect(&daemon, &(1, 1, bytes), fates)?;
        tcp::accept_data(&lives)?;
        tcp::receive_all(&lives)?;
        drop(lives);
        closes::expect(&daemon, &(0, 1, bytes), fates)?;
        daemon.stop()
    })
}

/// Returns a process's orphans under way, those whose fate is unknown, and their bytes.
fn fates(scrape: &Scrape, comm: &str) -> (u64, u64, u64) {
    let unknown = Fate::Unknown.name();
    let is_own = |sample: &Sample| sample.label("comm") == comm;
    (
        sum(scrape, "linger_orphans_active", is_own),
        sum(scrape, "linger_orphans_total", |sample| {
            is_own(sample) && sample.label("fate") == unknown
        }),
        sum(scrape, "linger_discarded_bytes_total", |sample| {
            is_own(sample) && sample.label("cause") == unknown
        }),
    )
}
