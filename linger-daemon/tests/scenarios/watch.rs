//! `lingerd watch`: every close that the filter selects is reported as it was, and no other; closes that cannot be
//! reported are counted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::Shutdown;
use std::path::Path;
use std::process::{self, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::event::MAX_RECENT;
use linger_daemon::event::WatchEvent;
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_daemon::exercise::{self, OrphanLimit, Tally, state};
use linger_ebpf::{Outcome, Plan, WATCHERS};
use linger_testkit::http;
use nix::sys::signal::Signal;
use nix::sys::utsname::uname;
use serde::Deserialize;
use serde_json::Value;

use crate::born::{self, Cgroup};
use crate::daemon::{Daemon, find_programs};
use crate::netns;
use crate::pinned::Pinned;
use crate::scenario::{Scenario, Settings};
use crate::sight::{Sight, forgive, hides_threads};
use crate::toolkit::Family;
use crate::watching::{Watching, closes, ends};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("watch_kinds", kinds).by_plan_only(),
    Scenario::daemon("watch_filters", filters).by_plan_only(),
    Scenario::daemon("watch_lost", lost).by_plan_only(),
    Scenario::daemon("watch_lost_for_memory", lost_for_memory).by_plan_only(),
    Scenario::daemon("watch_beside", beside).by_plan_only(),
    Scenario::bulk_daemon("watch_flood", flood).by_plan_only(),
    Scenario::daemon("recent_after_flood", recent_after_flood).by_plan_only(),
];

/// The exercise's report of a kind.
#[derive(Deserialize)]
struct Done {
    tally: Tally,
}

/// Reported closes: their number, and bytes unsent and unacknowledged, by outcome.
type Totals = BTreeMap<String, [u64; 3]>;

/// Every kind of close is reported with its outcome and its bytes, every orphan with its fate.
fn kinds(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let options = ["--plan", plan.name(), "--comm", "lingerd"];
        let mut watching = Watching::start(lingerd, &options)?;
        let exercise = Command::new(lingerd)
            .args(["exercise", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = exercise.id();
        let output = exercise.wait_with_output()?;
        let done: Vec<Done> = serde_json::from_slice(&output.stdout)?;
        let mut all = Tally::default();
        for done in &done {
            all.add(&done.tally);
        }
        let mut expected: Totals = all
            .closes
            .iter()
            .map(|(outcome, closes)| {
                let numbers = [closes.count, closes.unsent, closes.unacked];
                (outcome.clone(), numbers)
            })
            .collect();
        let sight = sight(plan)?;
        let sees_returns = sight.sees_interruptions();
        if !sees_returns && let Some([interrupted, ..]) = expected.remove("linger_interrupted") {
            // In the exercise the data of such closes arrives in time.
            expected.entry("lingered".to_owned()).or_default()[0] += interrupted;
        }
        let hidden = Cell::new(0);
        watching.expect(|told| {
            let mut found = Totals::new();
            let mut unread = 0;
            for close in closes(told).filter(|close| close.connection.pid == pid) {
                let numbers = found.entry(close.outcome.clone()).or_default();
                let more = [1, close.unsent.into(), close.unacked.into()];
                for (number, more) in numbers.iter_mut().zip(more) {
                    *number += more;
                }
                unread += u64::from(close.unread);
            }
            for outcome in corrections(told, pid) {
                found.entry("graceful".to_owned()).or_default()[0] -= 1;
                found.entry(outcome.to_owned()).or_default()[0] += 1;
            }
            ensure!(found == expected, "told {found:?}, expected {expected:?}");
            ensure!(unread == all.unread, "{unread} bytes unread");
            hidden.set(same_ends(told, pid, &all, sees_returns)?);
            Ok(())
        })?;
        forgive(hidden.get());
        for close in closes(watching.told()).filter(|close| close.connection.pid == pid) {
            let connected = !matches!(close.outcome.as_str(), "listener" | "not_connected");
            let who = &close.connection;
            ensure!(
                who.comm == "lingerd" && (who.remote.is_some() || !connected),
                "{close:?}"
            );
        }
        watching.signal(Signal::SIGINT)?;
        let (status, _, errors) = watching.end()?;
        ensure!(status.success(), "{status}: {errors}");
        ensure!(errors.contains(" 0 lines missed"), "{errors}");
        Ok(())
    })
}

/// Returns the sight of a plan on this kernel.
pub(crate) fn sight(plan: Plan) -> Result<Sight> {
    let release = uname()?.release().to_string_lossy().into_owned();
    Ok(Sight::new(plan, &release))
}

/// Returns the final outcomes of closes that had been reported as graceful.
fn corrections(told: &[WatchEvent], pid: u32) -> impl Iterator<Item = &str> {
    told.iter().filter_map(move |told| match told {
        WatchEvent::Correction(close) if close.connection.pid == pid => {
            Some(close.outcome.as_str())
        }
        _ => None,
    })
}

/// Expects the ends of this process's orphans, except those that the host hides. Returns how many it hides.
fn same_ends(told: &[WatchEvent], pid: u32, all: &Tally, sees_returns: bool) -> Result<u64> {
    let mut found = Totals::new();
    for end in ends(told).filter(|end| end.connection.pid == pid) {
        let numbers = found.entry(end.fate.clone()).or_default();
        let more = [1, end.unsent.into(), end.unacked.into()];
        for (number, more) in numbers.iter_mut().zip(more) {
            *number += more;
        }
    }
    let expected = all.orphans.ended.iter().map(|(fate, ended)| {
        let numbers = [ended.count, ended.unsent, ended.unacked];
        (fate.clone(), numbers)
    });
    let expected: Totals = expected.collect();
    let count = |ends: &Totals| ends.values().map(|numbers| numbers[0]).sum::<u64>();
    let missing = count(&expected).checked_sub(count(&found));
    let are_part = found.iter().all(|(fate, numbers)| {
        let all = expected.get(fate);
        all.is_some_and(|all| numbers.iter().zip(all).all(|(some, all)| some <= all))
    });
    // Closes that wait, and whose return is not seen, are reported when their orphans have ended.
    let late = if sees_returns { 0 } else { 2 };
    match missing {
        Some(missing @ 1..) if are_part && missing <= late => Ok(0),
        // One end may go unseen.
        Some(missing @ 1..) if are_part && hides_threads() && missing <= late + 1 => {
            Ok(missing - late)
        }
        _ => {
            ensure!(found == expected, "told {found:?}, expected {expected:?}");
            Ok(0)
        }
    }
}

/// Outcome, port, unit and name are filters, which apply together.
fn filters(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let cgroup = Cgroup::new(&format!("watch-{}.service", plan.name()))?;
        let loopback = Family::V6.listen()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let start = |options: &[&str]| {
            let plan = ["--plan", plan.name()];
            Watching::start(lingerd, &[&plan[..], options].concat())
        };
        let mut aborts = start(&["--port", &port, "--outcome", "linger_aborted,listener"])?;
        let mut of_unit = start(&["--unit", cgroup.unit(), "--port", &port])?;
        let mut of_comm = start(&["--comm", "watched by nam", "--port", &port])?;

        let pair = loopback.pair()?;
        born::abort(pair.client, pair.server)?;
        let pair = loopback.pair()?;
        tcp::close(pair.client)?;
        tcp::close(pair.server)?;
        // SAFETY: it only makes system calls.
        unsafe {
            cgroup.bear("watched by nam", || {
                let pair = loopback.pair()?;
                born::abort(pair.client, pair.server)
            })
        }?;

        let outcomes = |expected: &'static [&'static str]| {
            move |told: &[WatchEvent]| {
                let found: Vec<_> = closes(told).map(|close| close.outcome.as_str()).collect();
                ensure!(found == expected, "told {found:?}, expected {expected:?}");
                Ok(())
            }
        };
        aborts.expect(outcomes(&["linger_aborted", "linger_aborted"]))?;
        for watching in [&mut of_unit, &mut of_comm] {
            watching.expect(outcomes(&["linger_aborted", "already_closed"]))?;
            for close in closes(watching.told()) {
                let who = &close.connection;
                ensure!(who.unit == cgroup.unit(), "{who:?}");
                ensure!(who.comm == "watched by nam", "{who:?}");
                let ends = [who.local, who.remote].map(|end| end.map(|end| end.port()));
                ensure!(ends.contains(&port.parse().ok()), "{who:?}");
            }
        }
        cgroup.remove()?;
        Ok(())
    })
}

/// Closes that lose data are reported, at once or at the end of their orphan; so are those that block for long.
fn lost(lingerd: &Path, plan: Plan) -> Result<()> {
    const BYTES: usize = 5000;
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let start = |option: &[&str]| {
            let options = [&["--plan", plan.name(), "--port", &port], option].concat();
            Watching::start(lingerd, &options)
        };
        let mut lost = start(&["--lost"])?;
        let counted = start(&["--lost", "--count", "3"])?;
        let mut blocked = start(&["--blocked", "0.3"])?;

        // All data arrives, and is read.
        let pair = loopback.pair()?;
        tcp::send(&pair.client, BYTES)?;
        tcp::close(pair.client)?;
        tcp::receive_all(&pair.server)?;
        tcp::close(pair.server)?;
        // Received, and not read.
        let pair = loopback.pair()?;
        tcp::send(&pair.client, BYTES)?;
        state::wait_for("the data", || {
            Ok(state::queues(&pair.server)?.unread == BYTES as u64)
        })?;
        tcp::close(pair.server)?;
        tcp::close(pair.client)?;
        // Left behind, and lost when the peer resets.
        let pair = loopback.pair()?;
        let filled = tcp::fill(&pair.client)?;
        state::wait_for("acknowledgement of all that came", || {
            let came = state::queues(&pair.server)?.unread;
            Ok(state::queues(&pair.client)?.outstanding() + came == filled)
        })?;
        let left = state::queues(&pair.client)?.outstanding();
        ensure!(left > 0, "all {filled} bytes arrived");
        tcp::close(pair.client)?;
        pair.server.set_linger(Some(Duration::ZERO))?;
        tcp::close(pair.server)?;
        // Waits for an acknowledgement that does not come.
        let pair = loopback.pair()?;
        tcp::drop_all(&pair.server)?;
        tcp::send(&pair.client, 1)?;
        pair.client.set_linger(Some(Duration::from_secs(1)))?;
        tcp::close(pair.client)?;

        let wrong = |told: &[WatchEvent]| {
            let unread: Vec<_> = closes(told).map(|close| close.unread).collect();
            // The server that resets the orphan has not read what it received.
            ensure!(unread.first() == Some(&5000), "{told:?}");
            let mut left_behind = closes(told).filter(|close| close.left > 0);
            let close = left_behind.next().context("no close left anything")?;
            let at = told
                .iter()
                .position(|told| *told == WatchEvent::Close(close.clone()));
            let next = at.and_then(|at| told.get(at + 1));
            let Some(WatchEvent::Orphan(end)) = next else {
                anyhow::bail!("the end of {close:?} is {next:?}")
            };
            ensure!(end.connection == close.connection, "{close:?} and {end:?}");
            ensure!(u64::from(end.orphaned) == left, "{end:?}, left {left}");
            ensure!(end.fate == "peer_reset" && end.delivered == 0, "{end:?}");
            ensure!(left_behind.next().is_none(), "{told:?}");
            Ok(())
        };
        lost.expect(wrong)?;
        // The third is the server that resets, or the close whose data it resets.
        let (_, told, _) = counted.end()?;
        ensure!(closes(&told).count() == 3, "{told:?}");
        wrong(&told)?;
        // A close that blocks waits.
        if !sight(plan)?.sees_interruptions() {
            return blocked.expect(|told| {
                ensure!(told.is_empty(), "{told:?}, whose time is not known");
                Ok(())
            });
        }
        blocked.expect(|told| {
            let found: Vec<_> = closes(told).collect();
            ensure!(found.len() == 1, "{found:?}");
            ensure!(
                found[0].outcome == Outcome::LingerTimeout.name(),
                "{found:?}"
            );
            ensure!(found[0].linger_seconds == Some(1), "{found:?}");
            ensure!(found[0].blocked_seconds > Some(0.9), "{found:?}");
            Ok(())
        })
    })
}

/// A close that loses data for lack of orphan quota is reported as such, though `tracepoint` sees a graceful one first.
fn lost_for_memory(lingerd: &Path, plan: Plan) -> Result<()> {
    let limit = OrphanLimit::open()?;
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let options = ["--plan", plan.name(), "--port", &port, "--lost"];
        let mut watching = Watching::start(lingerd, &options)?;
        let mut tally = Tally::default();
        exercise::memory_aborted_under(&limit, &loopback, &mut tally, tcp::close)?;
        let aborted = tally.closes[Outcome::MemoryAborted.name()];
        watching.expect(|told| {
            let found: Vec<_> = closes(told).collect();
            let [close] = found[..] else {
                anyhow::bail!("one close lost data: {told:?}")
            };
            ensure!(close.outcome == Outcome::MemoryAborted.name(), "{close:?}");
            let lost = [close.unsent, close.unacked].map(u64::from);
            ensure!(lost == [aborted.unsent, aborted.unacked], "{close:?}");
            ensure!(told.len() == 1, "{told:?}");
            Ok(())
        })
    })
}

/// Beside a lingerd that keeps its programs, watching loads none of its own; places that are released become free
/// again; and all watchers see the same closes.
fn beside(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let pinned = Pinned::new()?;
        let mut daemon = pinned.start(lingerd, plan, &[])?;
        let path = pinned.path();
        let path = path.to_str().context("a path of text")?;
        let loopback = Loopback::new()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let options = ["--pins", path, "--port", &port];
        let start = || Watching::start(lingerd, &options);
        let mut all = (1..WATCHERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
        for watching in &all {
            ensure!(
                find_programs(watching.id())?.is_subset(&find_programs(daemon.id())?),
                "watching has programs of its own"
            );
        }
        let full = start().err().map(|error| error.to_string());
        let full = full.context("there was one place more")?;
        ensure!(full.contains("no more are possible"), "{full}");

        let close = || -> Result<()> {
            let pair = loopback.pair()?;
            tcp::close(pair.client)?;
            tcp::close(pair.server)?;
            Ok(())
        };
        let told = |times: usize| {
            move |told: &[WatchEvent]| {
                let found = closes(told).count();
                ensure!(found == 2 * times, "{found} closes told of {times} pairs");
                Ok(())
            }
        };
        close()?;
        for watching in &mut all {
            watching.expect(told(1))?;
        }
        let killed = all.pop().context("some watch")?;
        killed.signal(Signal::SIGKILL)?;
        drop(killed.end()?);
        // Waits for the place of the killed one.
        let mut new = start()?;
        // The programs go on without the daemon.
        daemon.terminate()?;
        close()?;
        new.expect(told(1))?;
        for watching in &mut all {
            watching.expect(told(2))?;
        }
        drop(all);
        // A stack is reported only to those that ask for it.
        let options = [&options[..], &["--stack"]].concat();
        let mut stacks = Watching::start(lingerd, &options)?;
        close()?;
        let shown = |is_wanted: bool| {
            move |told: &[WatchEvent]| {
                let found = closes(told).filter(|close| !close.stack.is_empty()).count();
                ensure!((found > 0) == is_wanted, "{found} stacks");
                Ok(())
            }
        };
        stacks.expect(shown(true))?;
        new.expect(told(2))?;
        new.expect(shown(false))?;
        drop(stacks);
        let unloaded = pinned.command(lingerd, &["unload"])?;
        ensure!(unloaded.status.success(), "{unloaded:?}");
        new.expect_end()?;
        let (status, _, errors) = new.end()?;
        ensure!(
            !status.success() && errors.contains("were detached"),
            "{status}: {errors}"
        );
        Ok(())
    })
}

/// Events that come too fast are counted as missed, and the number is reported.
fn flood(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    // More than fit in a ring.
    let pairs = (settings.load / 20).clamp(5000, 20_000);
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let options = ["--plan", plan.name(), "--port", &port];
        let watching = Watching::start(lingerd, &options)?;
        watching.signal(Signal::SIGSTOP)?;
        for _ in 0..pairs {
            let pair = loopback.pair()?;
            pair.client.set_linger(Some(Duration::ZERO))?;
            pair.server.shutdown(Shutdown::Both)?;
            tcp::close(pair.client)?;
            tcp::close(pair.server)?;
        }
        watching.signal(Signal::SIGINT)?;
        watching.signal(Signal::SIGCONT)?;
        let (status, told, errors) = watching.end()?;
        ensure!(status.success(), "{status}: {errors}");
        let told = closes(&told).count() as u64;
        let missed = missed(&errors).context("it does not say what it missed")?;
        println!("flood: {pairs} pairs, {told} closes told, {missed} missed");
        ensure!(told > 0, "nothing was told");
        let all = told + missed == 2 * pairs && missed > 0;
        // Stopped for too long, it no longer watched, and says so.
        let lapsed = errors.contains("suspended for") && told + missed < 2 * pairs;
        ensure!(all || lapsed, "{told} told, {missed} missed: {errors}");
        Ok(())
    })
}

/// A flood of costly closes leaves room for the next one once the daemon has read it.
fn recent_after_flood(lingerd: &Path, plan: Plan) -> Result<()> {
    const FLOOD: usize = 2000;
    let daemon = Daemon::start(lingerd, plan, &[])?;
    close_unread(FLOOD, 1)?;
    let (all, seen) = recent(&daemon)?;
    // A few costly closes of the rest of the host may be among them.
    let is_flood = seen.len() > MAX_RECENT / 2 && seen.iter().all(|unread| *unread == 1);
    ensure!(
        all == MAX_RECENT && is_flood,
        "{all} closes, and of the flood {seen:?}"
    );
    close_unread(1, 7)?;
    let (_, seen) = recent(&daemon)?;
    ensure!(seen.first() == Some(&7), "not the latest first: {seen:?}");
    daemon.stop()
}

/// Closes this many connections with this many unread bytes each.
fn close_unread(closes: usize, unread: u8) -> Result<()> {
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        for _ in 0..closes {
            let pair = loopback.pair()?;
            (&pair.client).write_all(&vec![0; unread.into()])?;
            state::wait_for_unread(&pair.server, unread.into())?;
            tcp::close(pair.server)?;
            tcp::close(pair.client)?;
        }
        Ok(())
    })
}

/// Returns how many costly closes a daemon lists as recent, and the unread bytes of this process's, the latest first.
fn recent(daemon: &Daemon) -> Result<(usize, Vec<u64>)> {
    let live: Value = serde_json::from_str(&http::body(daemon.address(), "/live.json")?)?;
    let recent = live["recent"].as_array().context("nothing recent")?;
    let of_ours = recent.iter().filter(|close| close["pid"] == process::id());
    let unread = of_ours.map(|close| close["unread"].as_u64().context("no bytes unread"));
    Ok((recent.len(), unread.collect::<Result<_>>()?))
}

/// Returns the number in the last line.
pub(crate) fn missed(errors: &str) -> Option<u64> {
    let words: Vec<_> = errors.lines().last()?.split(' ').collect();
    let at = words.iter().position(|word| *word == "lines")?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}
