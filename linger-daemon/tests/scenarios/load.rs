//! Many closes, as fast as they go, by two processes at once.

use std::io;
use std::time::Duration;

use linger_daemon::exercise::tcp::{self, Family, Loopback, Pair};
use linger_daemon::exercise::{self, state};
use linger_ebpf::Outcome;

use crate::scenario::{self, Scenario, Script, Settings};
use crate::truth::Truth;

/// The two processes; the harness runs them at the same time, and scrapes meanwhile.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::new("load_first", Script::Bulk(run)),
    Scenario::new("load_second", Script::Bulk(run)),
];

/// Whether the scenario is a part of the load.
pub(crate) fn is_load(name: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name == name)
}

/// Closes of a connection.
const CLOSES: u64 = 2;

fn run(settings: Settings, truth: &mut Truth) -> io::Result<()> {
    let connections = settings.load / SCENARIOS.len() as u64 / CLOSES;
    scenario::over(Loopback::new(Family::V4)?, truth, |loopback, truth| {
        (0..connections).try_for_each(|number| connection(number, loopback, truth))
    })
}

/// Ends a connection so that nothing of it stays behind: no `TIME_WAIT` keeps its port.
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
            state::wait_for_state(&server, state::State::CloseWait)?;
            server.set_linger(Some(Duration::ZERO))?;
            tally.close(server, Outcome::LingerAborted)?;
            Ok(())
        }
    }
}
