//! The table of orphans: full, and with an orphan that outlives its record.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use linger_daemon::exercise;
use linger_daemon::exercise::tcp::{self, Family, Loopback, Pair};
use linger_ebpf::{Cause, Fate, Outcome};

use crate::left::UNACKED_MESSAGE;
use crate::orphans::leave;
use crate::scenario::{self, Scenario, Script, Settings};
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "orphan_table_full",
        Script::Under(&["--max-orphans", "64"], table_full),
    )
    .once(),
    Scenario::new(
        "orphan_outlives_its_record",
        Script::Under(&["--orphan-ttl", "2"], outlives),
    )
    .once(),
];

/// `--max-orphans` of the daemon that [`table_full`] runs under.
const PLACES: u64 = 64;

/// Many more orphans at a time than fit in the table: those that do not are counted as such.
fn table_full(settings: Settings, truth: &mut Truth) -> io::Result<()> {
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
    truth.places = Some(PLACES);
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
    scenario::over(Loopback::new(Family::V4)?, truth, |loopback, truth| {
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
