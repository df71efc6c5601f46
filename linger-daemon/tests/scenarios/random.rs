//! Random closes by several threads of several processes, whose outcome is predicted from the state of the socket by
//! the rules of `__tcp_close`.

use std::io::{self, BufReader, Write as _};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{End, Tally};
use linger_ebpf::{Cause, Fate, Outcome};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};
use socket2::Socket;

use crate::scenario::{Scenario, Settings};
use crate::toolkit::{self, Family};
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::bulk("random", run)];

const PROCESSES: u64 = 2;
const THREADS: u64 = 3;
/// Connections of a thread.
const CONNECTIONS: u64 = 400;

fn run(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let forked: Vec<_> = (0..PROCESSES)
        .map(|number| start(settings.seed.wrapping_add(number * THREADS)))
        .collect::<io::Result<_>>()?;
    for (pid, reports) in forked {
        let part: Result<Truth, String> = serde_json::from_reader(BufReader::new(reports))?;
        waitpid(pid, None)?;
        truth.add(&part.map_err(io::Error::other)?);
    }
    Ok(())
}

/// Forks a process that makes closes and reports its truth.
fn start(seed: u64) -> io::Result<(nix::unistd::Pid, io::PipeReader)> {
    let (reader, mut writer) = io::pipe()?;
    // SAFETY: a scenario's process has one thread when it forks.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child, reader)),
        ForkResult::Child => {
            let truth = threads(seed).map_err(|error| format!("seed {seed}: {error}"));
            let written = serde_json::to_vec(&truth).map(|report| writer.write_all(&report));
            std::process::exit(i32::from(written.is_err()))
        }
    }
}

fn threads(seed: u64) -> io::Result<Truth> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || connections(Random(seed.wrapping_add(number)))))
            .collect();
        let mut sum = Truth::default();
        for thread in threads {
            let part = thread.join();
            sum.add(&part.map_err(|_| io::Error::other("a thread panicked"))??);
        }
        Ok(sum)
    })
}

fn connections(mut random: Random) -> io::Result<Truth> {
    let mut truth = Truth::default();
    let families: Vec<Loopback> = Family::ALL
        .iter()
        .filter_map(|&family| family.listen().ok())
        .collect();
    for _ in 0..CONNECTIONS {
        let loopback = &families[random.below(families.len())];
        match random.below(20) {
            0 => unconnected(&mut random, loopback.socket()?, &mut truth.tally)?,
            1 => connecting(&mut random, &mut truth.tally)?,
            2..8 => stuck(&mut random, loopback.pair()?, &mut truth)?,
            _ => flowing(&mut random, loopback.pair()?, &mut truth)?,
        }
    }
    for loopback in families {
        truth
            .tally
            .close(loopback.into_listener(), Outcome::Listener)?;
    }
    Ok(truth)
}

/// Closes a socket without a connection.
fn unconnected(random: &mut Random, socket: Socket, tally: &mut Tally) -> io::Result<()> {
    random.set_linger(&socket, 2)?;
    tally.close(socket, Outcome::NotConnected)?;
    Ok(())
}

/// Closes a socket that is connecting.
fn connecting(random: &mut Random, tally: &mut Tally) -> io::Result<()> {
    let deaf = Loopback::new()?;
    let client = deaf.connecting()?;
    random.set_linger(&client, 2)?;
    let end = predict(&client, Peer::Deaf)?;
    tally.close(client, end)?;
    tally.close(deaf.into_listener(), Outcome::Listener)?;
    Ok(())
}

/// Closes a connection in which all data arrives.
fn flowing(
    random: &mut Random,
    Pair { client, server }: Pair,
    truth: &mut Truth,
) -> io::Result<()> {
    for (from, to) in [(&client, &server), (&server, &client)] {
        if random.one_in(2) {
            let sent = random.below(3000) + 1;
            tcp::send(from, sent)?;
            state::wait_for_unread(to, sent as u64)?;
            let read = match random.below(4) {
                0 => 0,
                1 => random.below(sent),
                _ => sent,
            };
            toolkit::receive(to, read)?;
        }
        random.set_linger(from, 30)?;
    }
    for socket in [&client, &server] {
        if random.one_in(4) {
            socket.shutdown(Shutdown::Write)?;
            settle(&client, &server)?;
        }
    }
    settle(&client, &server)?;
    let (first, second) = if random.one_in(2) {
        (client, server)
    } else {
        (server, client)
    };
    let end = close_heard(first, truth)?;
    wait_for_effect(&second, end)?;
    close_heard(second, truth)?;
    Ok(())
}

/// Closes a socket whose peer acknowledges what that sends. Returns its end, as predicted.
fn close_heard(socket: Socket, truth: &mut Truth) -> io::Result<End> {
    let end = predict(&socket, Peer::Hears)?;
    if end.outcome == Outcome::Lingered && state::state(&socket)? == TcpState::FinWait2 {
        truth.waited_for_nothing += 1;
    }
    truth.tally.close(socket, end)?;
    Ok(end)
}

/// Closes a connection whose client's data does not arrive.
fn stuck(random: &mut Random, Pair { client, server }: Pair, truth: &mut Truth) -> io::Result<()> {
    tcp::drop_data(&server)?;
    if random.one_in(3) {
        client.set_send_buffer_size(1 << 17)?;
        tcp::fill(&client)?;
    } else {
        tcp::send(&client, random.below(3000) + 1)?;
    }
    if random.one_in(3) {
        server.shutdown(Shutdown::Write)?;
        state::wait_for_state(&client, TcpState::CloseWait)?;
        settle_direction(&server)?;
    }
    if random.one_in(4) {
        client.shutdown(Shutdown::Write)?;
    }
    // Positive times are rare, as the close waits for them in vain.
    let linger = match random.below(200) {
        0 => Some(Duration::from_secs(1)),
        1..100 => Some(Duration::ZERO),
        _ => None,
    };
    client.set_linger(linger)?;
    let end = predict(&client, Peer::Deaf)?;
    let left = state::queues(&client)?;
    // After a timeout one segment may be under way, and that is the first of the lost ones.
    let fin_follows_data_sent = left.unsent == 0 && state::info(&client)?.tcpi_retransmits == 0;
    let shut_down = state::sent_fin(&state::state(&client)?);
    truth.tally.close(client, end)?;
    let leaves = matches!(end.outcome, Outcome::Graceful | Outcome::LingerTimeout);
    if leaves {
        // However the server closes, retransmitted data is answered with an RST.
        truth.lost(left, Fate::PeerReset);
    }
    if end.reset.is_some() {
        state::wait_for_state(&server, TcpState::Close)?;
    } else if fin_follows_data_sent && (shut_down || end.outcome != Outcome::LingerAborted) {
        toolkit::wait_for_gap(&server)?;
    }
    random.set_linger(&server, 2)?;
    let end = close_heard(server, truth)?;
    if leaves && matches!(end.outcome, Outcome::Graceful | Outcome::Lingered) {
        // Only after its FIN is acknowledged: until then the full socket drops the data.
        Truth::late_data_to_remnants(&mut truth.tally, 1);
    }
    Ok(())
}

/// Waits until everything that one end sent is acknowledged.
fn settle_direction(from: &Socket) -> io::Result<()> {
    state::wait_for("all to be acknowledged", || {
        let queues = state::queues(from)?;
        let state = state::state(from)?;
        Ok(state == TcpState::Close
            || queues.unsent + queues.unacked == 0 && !state::sent_fin(&state))
    })
}

/// Waits until nothing is in flight in either direction.
fn settle(one: &Socket, other: &Socket) -> io::Result<()> {
    settle_direction(one)?;
    settle_direction(other)?;
    let both_closed = || -> io::Result<bool> {
        let states = [state::state(one)?, state::state(other)?];
        Ok(matches!(
            states,
            [TcpState::Established, TcpState::Established]
                | [TcpState::FinWait2, TcpState::CloseWait]
                | [TcpState::CloseWait, TcpState::FinWait2]
                | [TcpState::Close, TcpState::Close]
        ))
    };
    state::wait_for("both ends to agree", both_closed)
}

/// Waits until the peer of a close has noticed it.
fn wait_for_effect(peer: &Socket, end: End) -> io::Result<()> {
    if end.reset.is_some() {
        return state::wait_for_state(peer, TcpState::Close);
    }
    state::wait_for("the FIN", || {
        Ok(matches!(
            state::state(peer)?,
            TcpState::CloseWait | TcpState::Close
        ))
    })
}

/// Whether the peer acknowledges what a close sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    Hears,
    Deaf,
}

/// Predicts the end of closing this socket, which has had a peer.
fn predict(socket: &Socket, peer: Peer) -> io::Result<End> {
    let state = state::state(socket)?;
    let unread = state::queues(socket)?.unread;
    let linger = socket.linger()?;
    Ok(match (&state, linger) {
        (TcpState::Close, _) => Outcome::AlreadyClosed.into(),
        _ if unread > 0 => Outcome::UnreadAborted.into(),
        (_, Some(Duration::ZERO)) => End {
            outcome: Outcome::LingerAborted,
            reset: abort_resets(socket, &state)?.then_some(Cause::LingerAborted),
        },
        (TcpState::SynSent, _) => Outcome::ConnectAborted.into(),
        (_, None) => Outcome::Graceful.into(),
        (_, Some(_)) if peer == Peer::Deaf => Outcome::LingerTimeout.into(),
        (_, Some(_)) => Outcome::Lingered.into(),
    })
}

/// Returns whether `tcp_disconnect` sends an RST in this state.
fn abort_resets(socket: &Socket, state: &TcpState) -> io::Result<bool> {
    Ok(match state {
        TcpState::SynSent => false,
        TcpState::Closing | TcpState::LastAck => state::info(socket)?.tcpi_notsent_bytes > 0,
        _ => true,
    })
}

/// A small generator (splitmix64): the same seed makes the same closes.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "below the bound, which fits"
    )]
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Sets no linger time, zero, or this many seconds.
    fn set_linger(&mut self, socket: &Socket, seconds: u64) -> io::Result<()> {
        let linger = match self.below(4) {
            0 => Some(Duration::ZERO),
            1 => Some(Duration::from_secs(seconds)),
            _ => None,
        };
        socket.set_linger(linger)
    }
}
