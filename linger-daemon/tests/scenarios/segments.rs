//! Segments that no kernel would send in this order, and their effect on what a close left behind.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use linger_daemon::exercise::MESSAGE;
use linger_daemon::exercise::state::{self, Queues, TcpState};
use linger_daemon::exercise::tcp;
use linger_ebpf::{Cause, Fate, Outcome, Plan};
use linger_testkit::exposition::Scrape;
use socket2::Socket;

use crate::closes::{sum, wait_until};
use crate::daemon::Daemon;
use crate::netns;
use crate::orphans::leave;
use crate::peer::{Connection, Peer, Segment};
use crate::scenario::{Scenario, Settings};
use crate::truth::{Counters, Truth};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::own("late_data_overtaken", late_data_overtaken),
    Scenario::bulk("late_data_in_backlog", late_data_in_backlog),
    Scenario::own("late_data_after_all", late_data_after_all),
    Scenario::own("reset_with_text", reset_with_text),
    Scenario::own("syn_recv_closed", syn_recv_closed),
    Scenario::own("syn_recv_linger0", syn_recv_linger0),
    Scenario::daemon("delivered_before_its_end", delivered_before_its_end),
];

/// Length of a message in sequence numbers.
#[expect(clippy::cast_possible_truncation, reason = "a small message")]
const ALL: u32 = MESSAGE as u32;

/// Part of it that the peer acknowledges.
const SOME: u32 = ALL / 2;

/// Sends a message that the peer has not acknowledged.
fn with_unacked(peer: &Peer) -> io::Result<(Socket, Connection<'_>)> {
    let (client, connection) = peer.connected()?;
    tcp::send(&client, MESSAGE)?;
    state::wait_for("the message to be sent", || {
        Ok(state::queues(&client)?.unsent == 0)
    })?;
    Ok((client, connection))
}

/// Closes a connection with a message of which the peer then acknowledges some. Returns the connection and the queues
/// at the close.
fn with_some_acknowledged<'a>(
    peer: &'a Peer,
    truth: &mut Truth,
) -> io::Result<(Connection<'a>, Queues)> {
    let (client, connection) = with_unacked(peer)?;
    let left = leave(truth, client)?;
    connection.send(Segment {
        acked: Some(SOME),
        ..Segment::default()
    })?;
    Ok((connection, left))
}

/// Acknowledges the message of a closed connection, but not the FIN that follows it.
fn acknowledge_message(connection: &Connection) -> io::Result<()> {
    // On a machine so slow that the message was retransmitted, the FIN is sent when the message is acknowledged.
    connection.send(Segment {
        acked: Some(ALL),
        ..Segment::default()
    })?;
    connection.next("the FIN", |seen| seen.fin)?;
    Ok(())
}

/// Returns the queues without what the peer acknowledged.
fn rest(left: Queues) -> Queues {
    Queues {
        unacked: left.unacked - u64::from(SOME),
        ..left
    }
}

/// Data of the peer arrives long after an acknowledgement that was sent after it.
fn late_data_overtaken(truth: &mut Truth) -> io::Result<()> {
    /// Several ticks of the kernel.
    const LATER: Duration = Duration::from_millis(50);
    /// Longest time to answer data that the kernel accepts. It accepts old acknowledgements since v6.9, and since some
    /// earlier stable versions.
    const ANSWER: Duration = Duration::from_secs(1);
    let peer = Peer::new()?;
    let (connection, left) = with_some_acknowledged(&peer, truth)?;
    thread::sleep(LATER);
    let late = Segment {
        payload: b"late",
        ..Segment::default()
    };
    connection.send(Segment {
        acked: Some(0),
        ..late
    })?;
    if !connection.is_answered_by_rst(ANSWER)? {
        connection.send(Segment {
            acked: Some(SOME),
            ..late
        })?;
        connection.next("the RST that answers late data", |seen| seen.rst)?;
    }
    truth.tally.orphans.count(left, Fate::LateData, rest(left));
    truth.tally.reset(Cause::LateData, 1);
    Ok(())
}

/// Data arrives around the time of a close: before it, while it holds the socket lock, or after it.
fn late_data_in_backlog(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    const ROUNDS: u64 = 200;
    let peer = Peer::new()?;
    let mut seen = Counters::read()?;
    for round in 0..ROUNDS {
        let (client, connection) = with_unacked(&peer)?;
        let queues = state::queues(&client)?;
        let pause = Duration::from_micros((settings.seed.wrapping_add(round) * 7) % 200);
        let start = Barrier::new(2);
        let blocked = thread::scope(|scope| {
            let sending = scope.spawn(|| {
                start.wait();
                spin(pause);
                connection.send(Segment {
                    acked: Some(0),
                    payload: b"x",
                    ..Segment::default()
                })
            });
            start.wait();
            spin(Duration::from_micros(100));
            let start = Instant::now();
            drop(client);
            let blocked = start.elapsed();
            sending.join().expect("it does not panic")?;
            Ok::<_, io::Error>(blocked)
        })?;
        connection.next("the RST of either", |seen| seen.rst)?;
        let now = Counters::read()?;
        if now.abort_on_close > seen.abort_on_close {
            let unread = Queues {
                unread: 1,
                ..queues
            };
            truth.tally.count(Outcome::UnreadAborted, unread, blocked);
        } else {
            truth.tally.count(Outcome::Graceful, queues, blocked);
            truth.tally.orphans.lost(queues, Fate::LateData);
            truth.tally.reset(Cause::LateData, 1);
        }
        seen = now;
    }
    Ok(())
}

/// Data of the peer acknowledges the FIN, and so all data that the close left behind.
pub(crate) fn late_data_after_all(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let (client, connection) = with_unacked(&peer)?;
    let left = leave(truth, client)?;
    acknowledge_message(&connection)?;
    connection.send(Segment {
        acked: Some(ALL + 1),
        payload: b"late",
        ..Segment::default()
    })?;
    connection.next("the RST that answers late data", |seen| seen.rst)?;
    truth.tally.orphans.delivered(left);
    truth.tally.reset(Cause::LateData, 1);
    truth.late_aborts += 1;
    Ok(())
}

/// Waits without yielding the CPU.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// An RST of the peer carries text, and arrives just after an acknowledgement.
fn reset_with_text(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let (connection, left) = with_some_acknowledged(&peer, truth)?;
    connection.send(Segment {
        rst: true,
        payload: b"gone",
        acked: Some(SOME),
        ..Segment::default()
    })?;
    crate::child::wait_for_orphans()?;
    truth.tally.orphans.count(left, Fate::PeerReset, rest(left));
    Ok(())
}

/// Returns a connection that both sides open, in which the host's SYN is not acknowledged.
fn in_syn_recv(peer: &Peer) -> io::Result<(Socket, Connection<'_>)> {
    let (client, connection) = peer.called()?;
    connection.send(Segment {
        syn: true,
        ..Segment::default()
    })?;
    connection.next("the host to answer a SYN by a SYN", |seen| {
        seen.syn && seen.ack
    })?;
    state::wait_for_state(&client, TcpState::SynRecv)?;
    Ok((client, connection))
}

fn syn_recv_closed(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let (client, connection) = in_syn_recv(&peer)?;
    let left = leave(truth, client)?;
    connection.send(Segment {
        rst: true,
        acked: Some(0),
        ..Segment::default()
    })?;
    crate::child::wait_for_orphans()?;
    if left.outstanding() == 0 {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "nothing was sent, and the kernel says {left:?}"
        )))
    }
}

fn syn_recv_linger0(truth: &mut Truth) -> io::Result<()> {
    let peer = Peer::new()?;
    let (client, connection) = in_syn_recv(&peer)?;
    client.set_linger(Some(Duration::ZERO))?;
    truth.tally.close(client, Outcome::LingerAborted)?;
    connection.next("the RST", |seen| seen.rst)?;
    Ok(())
}

/// An orphan is delivered once its last byte is acknowledged, however long its socket waits for the peer's FIN.
fn delivered_before_its_end(lingerd: &Path, plan: Plan) -> anyhow::Result<()> {
    let comm = fs::read_to_string("/proc/self/comm")?;
    netns::in_own(|| {
        let mut daemon = Daemon::start(lingerd, plan, &[])?;
        // Beyond `TCP_TIMEWAIT_LEN`, the kernel keeps the full socket instead of a timewait socket.
        fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "120")?;
        let peer = Peer::new()?;
        let (client, connection) = with_unacked(&peer)?;
        let port = tcp::port(&client)?;
        let delivered = |scrape: &Scrape| {
            sum(scrape, "linger_orphans_total", |sample| {
                let is_own = sample.label("comm") == comm.trim_end();
                is_own && sample.label("fate") == Fate::Delivered.name()
            })
        };
        let before = delivered(&daemon.scrape()?);
        drop(client);
        acknowledge_message(&connection)?;
        connection.send(Segment {
            acked: Some(ALL + 1),
            ..Segment::default()
        })?;
        state::wait_for_port_state(port, TcpState::FinWait2)?;
        wait_until(&daemon, |scrape| {
            ensure!(delivered(scrape) > before, "the orphan is not delivered");
            Ok(())
        })?;
        ensure!(
            state::wait_for_port_state(port, TcpState::FinWait2).is_ok(),
            "its socket has ended"
        );
        connection.send(Segment {
            rst: true,
            acked: Some(ALL + 1),
            ..Segment::default()
        })?;
        daemon.terminate()
    })
}
