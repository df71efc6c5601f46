//! Many closes, as fast as possible, by four processes of two threads each at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_daemon::exercise::{self, state};
use linger_ebpf::Outcome;

use crate::child;
use crate::needs::Need;
use crate::scenario::{self, Scenario, Settings};
use crate::truth::Truth;

/// The processes; the harness runs them at the same time, and scrapes meanwhile.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::bulk("load_first", run),
    Scenario::bulk("load_second", run),
    Scenario::bulk("load_third", run),
    Scenario::bulk("load_fourth", run),
];

/// Closes while CPUs go offline and online; not part of the load.
pub(crate) const OFFLINE: &[Scenario] =
    &[Scenario::host_wide("cpu_taken_offline", offline).needs(&[Need::OwnMachine])];

/// Returns whether the scenario is part of the load.
pub(crate) fn is_load(name: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name == name)
}

/// Threads of a process.
const THREADS: u64 = 2;

/// Closes of a connection.
const CLOSES: u64 = 2;

fn run(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let connections = settings.load / SCENARIOS.len() as u64 / THREADS / CLOSES;
    by_threads(truth, |number| number < connections, || Ok(()))
}

/// Ends connections in several threads while `goes_on` is true of their number, and runs `meanwhile` at the same time.
fn by_threads(
    truth: &mut Truth,
    goes_on: impl Fn(u64) -> bool + Sync,
    meanwhile: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let work = || {
        let mut truth = Truth::default();
        scenario::over(Loopback::new()?, &mut truth, |loopback, truth| {
            let mut numbers = (0..).take_while(|number| goes_on(*number));
            numbers.try_for_each(|number| connection(number, loopback, truth))
        })?;
        Ok::<_, io::Error>(truth)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let done = meanwhile();
        for thread in threads {
            let known = thread.join().map_err(|_| io::Error::other("panicked"))??;
            truth.add(&known);
        }
        done
    })
}

/// How often CPU 1 goes offline and online again.
const ROUNDS: u32 = 5;

fn offline(truth: &mut Truth) -> io::Result<()> {
    child::enter_network()?;
    let is_over = AtomicBool::new(false);
    let switch = || {
        for _ in 0..ROUNDS {
            for state in ["0", "1"] {
                fs::write("/sys/devices/system/cpu/cpu1/online", state)?;
                thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    };
    by_threads(
        truth,
        |_| !is_over.load(Ordering::Relaxed),
        || {
            let switched = switch();
            is_over.store(true, Ordering::Relaxed);
            switched
        },
    )
}

/// Ends a connection without leaving a `TIME_WAIT`, which would keep its port.
fn connection(number: u64, loopback: &Loopback, truth: &mut Truth) -> io::Result<()> {
    let Pair { client, server } = loopback.pair()?;
    let tally = &mut truth.tally;
    match number % 4 {
        0 => exercise::abort(tally, Pair { client, server }),
        1 => exercise::abort(
            tally,
            Pair {
                client: server,
                server: client,
            },
        ),
        2 => {
            let bytes = usize::try_from(number % 4096).map_err(io::Error::other)? + 1;
            tcp::send(&server, bytes)?;
            state::wait_for_unread(&client, bytes as u64)?;
            tally.close(client, Outcome::UnreadAborted)?;
            exercise::close_reset(tally, server)
        }
        _ => {
            tally.close(client, Outcome::Graceful)?;
            state::wait_for_state(&server, state::TcpState::CloseWait)?;
            server.set_linger(Some(Duration::ZERO))?;
            tally.close(server, Outcome::LingerAborted)?;
            Ok(())
        }
    }
}
