//! RSTs that answer a packet: each has a cause, and late data counts for who closed.

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
use crate::scenario::{Scenario, Script};
use crate::truth::{Counters, Truth};
use crate::watch::sight;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("late_data_before_ack", Script::Own(before_ack)),
    Scenario::new("late_data_in_fin_wait2", Script::Own(in_fin_wait2)),
    Scenario::new("late_data_in_time_wait", Script::Own(in_time_wait)),
    Scenario::new("every_rst_has_a_cause", Script::Daemon(every_rst)),
];

const LATE: Segment = Segment {
    syn: false,
    fin: false,
    rst: false,
    at: 0,
    acked: Some(0),
    payload: b"late",
};

/// A connection that the host closed with nothing left to deliver, and whose peer knows.
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

/// Data comes for a whole socket that waits for the peer's FIN.
fn in_fin_wait2(truth: &mut Truth) -> io::Result<()> {
    // Longer than TIME_WAIT would do it for it (TCP_TIMEWAIT_LEN).
    fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "120")?;
    let peer = Peer::new()?;
    let connection = closed(&peer, truth)?;
    acknowledge_and_send(&connection)?;
    truth.tally.reset(Cause::LateData, 1);
    truth.late_aborts += 1;
    Ok(())
}

/// Data comes for what `TIME_WAIT` keeps of it, and once more when that is gone.
fn in_time_wait(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let connection = closed(&peer, truth)?;
    acknowledge_and_send(&connection)?;
    Truth::late_data_to_remnants(&mut truth.tally, 1);
    connection.send(LATE)?;
    connection.next("the RST of no socket", |seen| seen.rst)?;
    Ok(())
}

/// How often each of them is made: by many, one that comes from elsewhere cannot hide.
const EACH: u64 = 20;

/// RSTs of every cause that answer a packet, with nothing behind them, against what the kernel says it sent.
fn every_rst(lingerd: &Path, plan: Plan) -> Result<()> {
    let sight = sight(plan)?;
    netns::in_own(|| {
        let daemon = Daemon::start(lingerd, plan, &[])?;
        let peer = Peer::new()?;
        let before = Seen::now(&daemon)?;
        for _ in 0..EACH {
            closed_port(Ipv4Addr::LOCALHOST.into())?;
            closed_port(Ipv6Addr::LOCALHOST.into())?;
            bad_acknowledgement(&peer)?;
            bad_request(&peer)?;
            late_data(&peer)?;
        }
        let after = Seen::now(&daemon)?;
        let [no_socket, refused, late] = [Cause::NoSocket, Cause::Refused, Cause::LateData]
            .map(|cause| after.of(cause) - before.of(cause));
        // Of the bad acknowledgements, the second half meets a request.
        let expected = if sight.sees_answers() {
            [2, 2, 1].map(|times| times * EACH)
        } else {
            [0, 2 * EACH, 0]
        };
        let elsewhere = after.elsewhere - before.elsewhere;
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
        let (all, sent) = (after.all - before.all, after.here - before.here);
        ensure!(
            !sight.sees_answers() || (sent..=sent + elsewhere).contains(&all),
            "{all} RSTs counted, {sent} sent, and {elsewhere} elsewhere"
        );
        daemon.stop()
    })
}

/// What was sent by now, as lingerd has it and as the kernel has it.
struct Seen {
    scrape: Scrape,
    all: u64,
    here: u64,
    elsewhere: u64,
}

impl Seen {
    fn now(daemon: &Daemon) -> Result<Self> {
        let scrape = daemon.scrape()?;
        let all = resets(&scrape, |_| true);
        Ok(Self {
            scrape,
            all,
            here: Counters::read()?.out_resets,
            elsewhere: Counters::read_of(process::id())?.out_resets,
        })
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

/// A connection to a port at which no one listens.
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

/// Data and an acknowledgement of nothing, for a listener.
fn bad_acknowledgement(peer: &Peer) -> Result<()> {
    refused_by_listener(peer, |stray| stray.send(LATE))
}

/// An acknowledgement of nothing, for a connection that is asked for.
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

/// Sends something for a listener that an RST answers.
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

/// Data for a connection that is closed, and what `TIME_WAIT` keeps of it.
fn late_data(peer: &Peer) -> Result<()> {
    let (client, connection) = peer.connected()?;
    state::wait_for_state(&client, TcpState::Established)?;
    drop(client);
    connection.next("the FIN", |seen| seen.fin)?;
    acknowledge_and_send(&connection)?;
    Ok(())
}
