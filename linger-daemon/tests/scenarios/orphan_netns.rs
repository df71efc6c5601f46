//! Orphans between two network namespaces.

use std::io;
use std::thread;

use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, MESSAGE, state};
use linger_ebpf::{Fate, Outcome};
use socket2::Socket;

use crate::child::wait_for_orphans;
use crate::graceful::expect_bytes;
use crate::left::UNACKED_MESSAGE;
use crate::netns::{self, Netns};
use crate::orphan_ends::few_retries;
use crate::orphans::leave;
use crate::random::Random;
use crate::scenario::{self, Scenario, Settings};
use crate::toolkit;
use crate::truth::Truth;
use linger_daemon::exercise::diag::Endpoints;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::own("orphan_netns_left_delivered", left_delivered),
    Scenario::own("orphan_netns_left_lost", left_lost),
    Scenario::bulk("orphan_random", run),
];

/// Leaves an orphan as the last user of a network namespace, after `prepare` in it. Returns its peer.
fn leave_alone(
    truth: &mut Truth,
    loopback: &Loopback,
    other: Netns,
    prepare: fn() -> io::Result<()>,
) -> io::Result<Socket> {
    let client = other.within(|| {
        prepare()?;
        loopback.connect()
    })?;
    let server = loopback.accept()?;
    tcp::drop_data(&server)?;
    tcp::send(&client, MESSAGE)?;
    leave(truth, client)?;
    drop(other);
    Ok(server)
}

/// The orphan keeps its network namespace until it has delivered everything.
fn left_delivered(truth: &mut Truth) -> io::Result<()> {
    let other = Netns::new()?;
    scenario::over(other.listener()?, truth, |loopback, truth| {
        let server = leave_alone(truth, loopback, other, || Ok(()))?;
        truth.delivered(UNACKED_MESSAGE);
        tcp::accept_data(&server)?;
        let received = tcp::receive_all(&server)?;
        netns::wait_for_removal()?;
        // Nothing is left to acknowledge a FIN.
        exercise::close_and_end_orphan(&mut truth.tally, server)?;
        expect_bytes(received, MESSAGE as u64)
    })
}

/// The orphan keeps its network namespace until it gives up.
fn left_lost(truth: &mut Truth) -> io::Result<()> {
    let other = Netns::new()?;
    scenario::over(other.listener()?, truth, |loopback, truth| {
        let server = leave_alone(truth, loopback, other, few_retries)?;
        truth.lost(UNACKED_MESSAGE, Fate::TimedOut);
        netns::wait_for_removal()?;
        truth.timed_out_elsewhere += 1;
        exercise::close_and_end_orphan(&mut truth.tally, server)
    })
}

const THREADS: u64 = 4;

/// Several threads leave orphans over a slow and lossy path.
fn run(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let connections = (settings.load / 5000).clamp(10, 100);
    let other = Netns::new()?;
    other.impair()?;
    let listeners: Vec<_> = (0..THREADS)
        .map(|_| other.listener())
        .collect::<io::Result<_>>()?;
    let parts = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .zip(&listeners)
            .map(|(number, loopback)| {
                let random = Random(settings.seed.wrapping_add(number));
                let other = &other;
                scope.spawn(move || other.within(|| some(random, connections, loopback)))
            })
            .collect();
        let parts = threads.into_iter().map(|thread| {
            let part = thread.join();
            part.map_err(|_| io::Error::other("a thread panicked"))?
        });
        parts.collect::<io::Result<Vec<_>>>()
    })?;
    for part in &parts {
        truth.add(part);
    }
    for loopback in listeners {
        truth
            .tally
            .close(loopback.into_listener(), Outcome::Listener)?;
    }
    // Either end's orphans need the other's namespace.
    wait_for_orphans()?;
    other.within(wait_for_orphans)
}

fn some(mut random: Random, connections: u64, loopback: &Loopback) -> io::Result<Truth> {
    let mut truth = Truth::default();
    for _ in 0..connections {
        let pair = loopback.pair()?;
        if random.one_in(5) {
            reset(pair, &mut truth)?;
        } else {
            deliver(&mut random, pair, &mut truth)?;
        }
    }
    Ok(truth)
}

/// The peer reads everything written before the close.
fn deliver(
    random: &mut Random,
    Pair { client, server }: Pair,
    truth: &mut Truth,
) -> io::Result<()> {
    let bytes = random.below(60_000) + 1;
    tcp::send(&client, bytes)?;
    let orphan = Endpoints::of(&client)?;
    let before = leave(truth, client)?;
    let after = toolkit::send_queue(orphan)?;
    // The bytes outstanding when the close returned lie between the two.
    truth.chance.most.count(before.outstanding());
    truth.chance.least.count(after.outstanding());
    let received = tcp::receive_all(&server)?;
    truth.tally.close(server, Outcome::Graceful)?;
    expect_bytes(received, bytes as u64)
}

/// The peer takes nothing, and resets the connection.
fn reset(Pair { client, server }: Pair, truth: &mut Truth) -> io::Result<()> {
    tcp::drop_data(&server)?;
    tcp::send(&client, MESSAGE)?;
    // A queue on the way that is full refuses it at first.
    state::wait_for("the message to be sent", || {
        Ok(state::queues(&client)?.unsent == 0)
    })?;
    let left = leave(truth, client)?;
    truth.lost(left, Fate::PeerReset);
    exercise::close_and_end_orphan(&mut truth.tally, server)
}
