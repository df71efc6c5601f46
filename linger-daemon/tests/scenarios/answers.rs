//! RSTs that answer packets: each has its cause, and late data counts for the process that closed.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::{fs, process};

use anyhow::{Result, ensure};
use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::{Cause, Outcome, Plan};
use linger_testkit::exposition::Scrape;

use crate::closes::sum;
use crate::daemon::Daemon;
use crate::netns;
use crate::peer::{Connection, Peer, Segment};
use crate::scenario::Scenario;
use crate::truth::{Counters, Truth};
use crate::watch::sight;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::own("late_data_before_ack", before_ack),
    Scenario::own("late_data_in_fin_wait2", in_fin_wait2),
    Scenario::own("late_data_in_time_wait", in_time_wait),
    Scenario::daemon("every_rst_has_a_cause", every_rst),
];

const LATE: Segment = Segment {
    syn: false,
    fin: false,
    rst: false,
    at: 0,
    acked: Some(0),
    payload: b"late",
};

/// Opens a connection and closes it on the host, with nothing left to deliver, and waits for the FIN at the peer.
fn closed<'a>(peer: &'a Peer, truth: &mut Truth) -> io::Result<Connection<'a>> {
    let (client, connection) = peer.connected()?;
    truth.tally.close(client, Outcome::Graceful)?;
    connection.next("the FIN", |seen| seen.fin)?;
    Ok(connection)
}

/// The peer acknowledges the FIN, and sends data.
fn acknowledge_and_send(connection: &Connection) -> io::Result<()> {
    // A FIN counts as one byte.
    let acked = Some(1);
    let payload = b"";
    connection.send(Segment {
        acked,
        payload,
        ..LATE
    })?;
    connection.send(Segment { acked, ..LATE })?;
    connection.next("the RST", |seen| seen.rst)?;
    Ok(())
}

/// Data comes before the FIN is acknowledged.
fn before_ack(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let connection = closed(&peer, truth)?;
    connection.send(LATE)?;
    connection.next("the RST", |seen| seen.rst)?;
    truth.tally.reset(Cause::LateData, 1);
    truth.late_aborts += 1;
    Ok(())
}

/// Data arrives for a full socket in `FIN_WAIT2`.
fn in_fin_wait2(truth: &mut Truth) -> io::Result<()> {
    // Beyond `TCP_TIMEWAIT_LEN`, the kernel keeps the full socket instead of a timewait socket.
    fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "120")?;
    let peer = Peer::new()?;
    let connection = closed(&peer, truth)?;
    acknowledge_and_send(&connection)?;
    truth.tally.reset(Cause::LateData, 1);
    truth.late_aborts += 1;
    Ok(())
}

/// Data arrives for the timewait socket, and once more when that is gone.
fn in_time_wait(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let connection = closed(&peer, truth)?;
    acknowledge_and_send(&connection)?;
    Truth::late_data_to_remnants(&mut truth.tally, 1);
    connection.send(LATE)?;
    connection.next("the RST of no socket", |seen| seen.rst)?;
    Ok(())
}

/// RSTs of each kind: so many that the few sent elsewhere meanwhile cannot mask a kind that is missing.
const EACH: u64 = 20;

/// Makes RSTs that answer packets, of every cause, and compares their counts with what was made and with `OutRsts`.
fn every_rst(lingerd: &Path, plan: Plan) -> Result<()> {
    let sight = sight(plan)?;
    netns::in_own(|| {
        let daemon = Daemon::start(lingerd, plan, &[])?;
        let peer = Peer::new()?;
        // The kernel's counts span lingerd's: an RST sent elsewhere between the two is allowed for.
        let sent = Sent::now()?;
        let before = Seen::new(daemon.scrape()?, sent);
        for _ in 0..EACH {
            closed_port(Ipv4Addr::LOCALHOST.into())?;
            closed_port(Ipv6Addr::LOCALHOST.into())?;
            bad_acknowledgement(&peer)?;
            bad_request(&peer)?;
            late_data(&peer)?;
        }
        let scrape = daemon.scrape()?;
        let after = Seen::new(scrape, Sent::now()?);
        let [no_socket, refused, late] = [Cause::NoSocket, Cause::Refused, Cause::LateData]
            .map(|cause| after.of(cause) - before.of(cause));
        // Both bad acknowledgements are refused: one by the listener, the other by a request socket.
        let expected = if sight.sees_answers() {
            [2, 2, 1].map(|times| times * EACH)
        } else {
            [0, 2 * EACH, 0]
        };
        let elsewhere = after.sent.elsewhere - before.sent.elsewhere;
        for (what, counted, expected) in [
            ("no_socket", no_socket, expected[0]),
            ("refused", refused, expected[1]),
            ("late_data", late, expected[2]),
        ] {
            ensure!(
                (expected..=expected + elsewhere).contains(&counted),
                "{what}: {counted} counted, {expected} made, and {elsewhere} elsewhere"
            );
        }
        let (all, sent) = (after.all - before.all, after.sent.here - before.sent.here);
        ensure!(
            !sight.sees_answers() || (sent..=sent + elsewhere).contains(&all),
            "{all} RSTs counted, {sent} sent, and {elsewhere} elsewhere"
        );
        daemon.stop()
    })
}

/// RSTs sent so far, as counted by the kernel: in this network namespace, and in that of the harness.
struct Sent {
    here: u64,
    elsewhere: u64,
}

impl Sent {
    fn now() -> io::Result<Self> {
        Ok(Self {
            here: Counters::read()?.out_resets,
            elsewhere: Counters::read_of(process::id())?.out_resets,
        })
    }
}

/// RSTs sent so far, as counted by lingerd (`scrape`, `all`) and by the kernel.
struct Seen {
    scrape: Scrape,
    all: u64,
    sent: Sent,
}

impl Seen {
    fn new(scrape: Scrape, sent: Sent) -> Self {
        let all = resets(&scrape, |_| true);
        Self { scrape, all, sent }
    }

    fn of(&self, cause: Cause) -> u64 {
        resets(&self.scrape, |counted| counted == cause.name())
    }
}

fn resets(scrape: &Scrape, wanted: impl Fn(&str) -> bool) -> u64 {
    sum(scrape, "linger_resets_sent_total", |sample| {
        wanted(sample.label("cause"))
    })
}

/// Connects to a port without a listener.
fn closed_port(address: std::net::IpAddr) -> Result<()> {
    let free = Loopback::at(SocketAddr::from((address, 0)))?;
    let port = tcp::port(free.listener())?;
    drop(free);
    ensure!(
        TcpStream::connect((address, port)).is_err(),
        "someone listens at a port that is closed"
    );
    Ok(())
}

/// Sends a listener data that acknowledges what was never sent.
fn bad_acknowledgement(peer: &Peer) -> Result<()> {
    refused_by_listener(peer, |stray| stray.send(LATE))
}

/// Completes a handshake with an acknowledgement of what was never sent.
fn bad_request(peer: &Peer) -> Result<()> {
    refused_by_listener(peer, |stray| {
        stray.send(Segment {
            syn: true,
            ..Segment::default()
        })?;
        stray.next("the answer to a SYN", |seen| seen.syn && seen.ack)?;
        stray.send(Segment {
            payload: b"",
            ..LATE
        })
    })
}

/// Sends a listener something that it answers with an RST.
fn refused_by_listener(
    peer: &Peer,
    send: impl FnOnce(&Connection) -> io::Result<()>,
) -> Result<()> {
    let listener = Loopback::at(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    let stray = peer.stray(tcp::port(listener.listener())?);
    send(&stray)?;
    stray.next("the RST", |seen| seen.rst)?;
    Ok(())
}

/// Sends data for a connection that the host has closed, of which a timewait socket is left.
fn late_data(peer: &Peer) -> Result<()> {
    let (client, connection) = peer.connected()?;
    state::wait_for_state(&client, TcpState::Established)?;
    drop(client);
    connection.next("the FIN", |seen| seen.fin)?;
    acknowledge_and_send(&connection)?;
    Ok(())
}
