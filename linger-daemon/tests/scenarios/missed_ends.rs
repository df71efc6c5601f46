//! The kernel skips the program that decides every close, or the one at the end of every socket: here, it is detached.

use std::env;
use std::ffi::CString;
use std::hint;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::process::{self, Command};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum as _;
use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, Kind, Request, Tally};
use linger_ebpf::{Lost, Outcome, Plan};
use linger_testkit::exposition::Scrape;
use nix::sys::prctl;
use socket2::Socket;

use crate::closes::{lost, sum, wait_until};
use crate::daemon::MAINTENANCE;
use crate::exposition::Counted;
use crate::netns;
use crate::pinned::Pinned;
use crate::scenario::Scenario;
use crate::segments;
use crate::truth::Truth;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("ends_of_sockets_missed", ends_missed),
    Scenario::daemon("decisions_missed", decisions_missed),
    Scenario::daemon("decisions_missed_of_crossing_fins", crossing_fins_missed),
];

/// Kinds of which only the end of a socket shows what became of an orphan; one of which the closing thread ends before
/// its next close would count it; and one that affects the whole host.
const LEFT_OUT: [Kind; 4] = [
    Kind::OrphanTimedOut,
    Kind::OrphanDestroyed,
    Kind::LingerFailed,
    Kind::MemoryAborted,
];
/// Kinds of which `tracepoint` does not see the return before it hooks all system calls.
const WAITING: [Kind; 3] = [Kind::Lingered, Kind::LingerTimeout, Kind::LingerInterrupted];

/// The closes that a process makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Every kind.
    Kinds,
    /// [`crossing_fins`].
    CrossingFins,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Kinds => "kinds",
            Self::CrossingFins => "crossing-fins",
        }
    }

    /// Returns the counts of closes that do not depend on chance: without times and, where the peer's FIN may come before
    /// a close or within, as if it always came within.
    fn comparable(self, mut tally: Tally) -> Tally {
        if self == Self::CrossingFins
            && let Some(closed) = tally.closes.remove(Outcome::AlreadyClosed.name())
        {
            let graceful = Outcome::Graceful.name().to_owned();
            tally.closes.entry(graceful).or_default().add(&closed);
        }
        for closes in tally.closes.values_mut() {
            (closes.blocked_ns, closes.quick) = (0, 0);
        }
        tally
    }
}

fn ends_missed(lingerd: &Path, plan: Plan) -> Result<()> {
    let end = match plan {
        Plan::Fentry | Plan::Kprobe => "destroy_sock",
        Plan::Tracepoint => "tracepoint_destroy_sock",
    };
    make_without(end, Work::Kinds, lingerd, plan, |pinned| {
        if pinned.attaches("fentry_orderly_end") {
            Some(ENDED_WAITS)
        } else {
            pinned.attaches(&format!("{end}_2")).then_some(0)
        }
    })
}

fn decisions_missed(lingerd: &Path, plan: Plan) -> Result<()> {
    make_without_decisions(Work::Kinds, lingerd, plan)
}

fn crossing_fins_missed(lingerd: &Path, plan: Plan) -> Result<()> {
    make_without_decisions(Work::CrossingFins, lingerd, plan)
}

fn make_without_decisions(work: Work, lingerd: &Path, plan: Plan) -> Result<()> {
    let (decision, other) = match plan {
        Plan::Fentry => ("fentry_inner_close", "sock_release"),
        Plan::Kprobe => ("kprobe_inner_close", "sock_release"),
        Plan::Tracepoint => ("tracepoint_set_state", "tracepoint_set_state_2"),
    };
    make_without(decision, work, lingerd, plan, |pinned| {
        pinned.attaches(other).then_some(0)
    })
}

/// Has a process close while a program is detached, and compares. `times_lost` is the number of times that are missing
/// if others make up for that program.
fn make_without(
    program: &str,
    work: Work,
    lingerd: &Path,
    plan: Plan,
    times_lost: impl Fn(&Pinned) -> Option<u64>,
) -> Result<()> {
    let comm = format!("{:x}-missed", process::id());
    let pinned = Pinned::new()?;
    let mut daemon = pinned.start(lingerd, plan, &["--allow-comm", &comm])?;
    pinned.detach(program)?;
    // The kernel does that a little later.
    thread::sleep(MAINTENANCE);
    let times_lost = times_lost(&pinned);
    let expected = make_all(&comm, work, plan)?;
    wait_until(&daemon, |scrape| {
        let counted = Counted::of(scrape, |sample| sample.label("comm") == comm);
        let counted = work.comparable(counted.tally);
        if let Some(times) = times_lost {
            ensure!(
                counted == expected,
                "counted {counted:?}, expected {expected:?}"
            );
            expect_lost(scrape, times)
        } else {
            let shown = counted.total().count + not_counted(scrape);
            let all = expected.total().count;
            ensure!(shown >= all, "{shown} of {all} closes are shown");
            Ok(())
        }
    })?;
    daemon.terminate()
}

/// Expects that nothing is lost except the times of so many closes.
fn expect_lost(scrape: &Scrape, times: u64) -> Result<()> {
    for what in Lost::ALL {
        let expected = if *what == Lost::Return { times } else { 0 };
        let lost = lost(scrape, what.name());
        ensure!(lost == expected, "{lost} lost: {}", what.name());
    }
    Ok(())
}

/// Has a process with this name make closes, and returns what should be counted.
fn make_all(comm: &str, work: Work, plan: Plan) -> Result<Tally> {
    let output = Command::new(env::current_exe()?)
        .args(["ender", comm, work.name(), plan.name()])
        .output()?;
    ensure!(
        output.status.success(),
        "the process that closes: {output:?}"
    );
    let expected = serde_json::from_slice(&output.stdout)?;
    Ok(work.comparable(expected))
}

/// Runs in that process.
pub(crate) fn run_ender(order: &[&str]) -> Result<()> {
    let &[name, work, plan] = order else {
        bail!("usage: ender NAME WORK PLAN");
    };
    prctl::set_name(&CString::new(name)?)?;
    let expected = netns::in_own(|| {
        if work == Work::CrossingFins.name() {
            crossing_fins()
        } else {
            kinds(plan != Plan::Tracepoint.name())
        }
    })?;
    Ok(serde_json::to_writer(io::stdout(), &expected)?)
}

/// Makes every kind of close, of those that wait only if waits are seen.
fn kinds(is_waiting_seen: bool) -> Result<Tally> {
    let is_made =
        |kind: &Kind| !LEFT_OUT.contains(kind) && (is_waiting_seen || !WAITING.contains(kind));
    let request = Request {
        kinds: Kind::value_variants()
            .iter()
            .copied()
            .filter(is_made)
            .collect(),
        count: 2,
        time: u64::MAX,
    };
    let mut truth = Truth::default();
    segments::late_data_after_all(&mut truth)?;
    let mut expected = truth.tally;
    if is_waiting_seen {
        ended_waits(&mut expected)?;
    }
    for done in exercise::run(&request, |_| ()) {
        ensure!(done.left_out.is_none(), "{done:?}");
        expected.add(&done.tally);
    }
    Ok(expected)
}

/// Closes sockets that have sent their FIN while the peer's comes: before the close, at the same time, or within.
fn crossing_fins() -> Result<Tally> {
    const CONNECTIONS: u32 = 2000;
    let loopback = Loopback::new()?;
    let mut expected = Tally::default();
    for number in 0..CONNECTIONS {
        let Pair { client, server } = loopback.pair()?;
        client.shutdown(Shutdown::Write)?;
        state::wait_for_state(&server, TcpState::CloseWait)?;
        let start = Barrier::new(2);
        let other = thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut other = Tally::default();
                start.wait();
                other.close(server, Outcome::Graceful).map(|_| other)
            });
            start.wait();
            // At another moment each time.
            for _ in 0..number % 1000 {
                hint::spin_loop();
            }
            expected.close(client, Outcome::Graceful)?;
            other.join().expect("it does not panic")
        })?;
        expected.add(&other);
    }
    expected.close(loopback.into_listener(), Outcome::Listener)?;
    Ok(expected)
}

/// Number of closes whose connection ends while this thread waits: its next close counts them.
const ENDED_WAITS: u64 = 3;

fn ended_waits(expected: &mut Tally) -> Result<()> {
    const GIVE_UP: Duration = Duration::from_millis(500);
    let loopback = Loopback::new()?;

    let Pair { client, server } = exercise::pair_with_unsent(&loopback)?;
    let mut peer = Tally::default();
    wait(
        expected,
        client,
        Outcome::LingerFailed,
        TcpState::FinWait1,
        || exercise::close_and_end_orphan(&mut peer, server),
    )?;
    expected.add(&peer);

    let Pair { client, server } = exercise::pair_with_unacked(&loopback)?;
    client.set_tcp_user_timeout(Some(GIVE_UP))?;
    wait(
        expected,
        client,
        Outcome::LingerFailed,
        TcpState::FinWait1,
        || Ok(()),
    )?;
    // The server gets no notice.
    tcp::accept_data(&server)?;
    expected.close(server, Outcome::Graceful)?;

    let Pair { client, server } = exercise::pair_with_unacked(&loopback)?;
    server.shutdown(Shutdown::Write)?;
    state::wait_for_state(&client, TcpState::CloseWait)?;
    wait(
        expected,
        client,
        Outcome::Lingered,
        TcpState::LastAck,
        || tcp::accept_data(&server),
    )?;
    tcp::receive_all(&server)?;
    expected.close(server, Outcome::AlreadyClosed)?;

    expected.close(loopback.into_listener(), Outcome::Listener)?;
    Ok(())
}

/// Waits in a close until it has this outcome, and does something once the socket is in this state.
fn wait(
    expected: &mut Tally,
    socket: Socket,
    outcome: Outcome,
    waiting: TcpState,
    meanwhile: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()> {
    const LINGER: Duration = Duration::from_secs(30);
    socket.set_linger(Some(LINGER))?;
    let port = tcp::port(&socket)?;
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            state::wait_for_port_state(port, waiting)?;
            meanwhile()
        });
        expected.close(socket, outcome)?;
        other.join().expect("it does not panic")
    })
}

/// Returns the number of closes that were lost or are in flight.
fn not_counted(scrape: &Scrape) -> u64 {
    let in_flight = sum(scrape, "linger_map_entries", |sample| {
        sample.label("map") == "closes"
    });
    lost(scrape, Lost::Close.name()) + in_flight
}
