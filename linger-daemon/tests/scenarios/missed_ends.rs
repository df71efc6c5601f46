//! The kernel skips the program at the end of every socket: here, it is detached.

use std::env;
use std::ffi::CString;
use std::io;
use std::net::Shutdown;
use std::path::Path;
use std::process::{self, Command};
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

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("ends_of_sockets_missed", ends_missed)];

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

fn ends_missed(lingerd: &Path, plan: Plan) -> Result<()> {
    let comm = format!("{:x}-ends", process::id());
    let pinned = Pinned::new()?;
    let mut daemon = pinned.start(lingerd, plan, &["--allow-comm", &comm])?;
    let end = match plan {
        Plan::Fentry | Plan::Kprobe => "destroy_sock",
        Plan::Tracepoint => "tracepoint_destroy_sock",
    };
    pinned.detach(end)?;
    // The kernel does that a little later.
    thread::sleep(MAINTENANCE);
    // Where the kernel may skip that program, others make up for it.
    let is_early = pinned.attaches("fentry_orderly_end");
    let are_made_up_for = is_early || pinned.attaches(&format!("{end}_2"));
    let expected = make_all(&comm, plan)?;
    wait_until(&daemon, |scrape| {
        let counted = Counted::of(scrape, |sample| sample.label("comm") == comm);
        let counted = without_times(counted.tally);
        if are_made_up_for {
            ensure!(
                counted == expected,
                "counted {counted:?}, expected {expected:?}"
            );
            expect_lost(scrape, if is_early { ENDED_WAITS } else { 0 })
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
fn make_all(comm: &str, plan: Plan) -> Result<Tally> {
    let output = Command::new(env::current_exe()?)
        .args(["ender", comm, plan.name()])
        .output()?;
    ensure!(
        output.status.success(),
        "the process that closes: {output:?}"
    );
    let expected = serde_json::from_slice(&output.stdout)?;
    Ok(without_times(expected))
}

/// Runs in that process.
pub(crate) fn run_ender(order: &[&str]) -> Result<()> {
    let &[name, plan] = order else {
        bail!("usage: ender NAME PLAN");
    };
    prctl::set_name(&CString::new(name)?)?;
    let is_waiting_seen = plan != Plan::Tracepoint.name();
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
    netns::in_own(|| {
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
        Ok(serde_json::to_writer(io::stdout(), &expected)?)
    })
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

/// Returns counts that two readings of the same closes share.
fn without_times(mut tally: Tally) -> Tally {
    for closes in tally.closes.values_mut() {
        (closes.blocked_ns, closes.quick) = (0, 0);
    }
    tally
}

/// Returns the number of closes that were lost or are in flight.
fn not_counted(scrape: &Scrape) -> u64 {
    let in_flight = sum(scrape, "linger_map_entries", |sample| {
        sample.label("map") == "closes"
    });
    lost(scrape, Lost::Close.name()) + in_flight
}
