//! Programs and counts that outlive the daemon.

use std::env;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use linger_daemon::exercise::tcp::{Loopback, Pair};
use linger_ebpf::{Note, Outcome, Plan};
use linger_testkit::exposition::Scrape;
use nix::sys::prctl;

use crate::born::{self, Cgroup};
use crate::closes::{self, Closes, lost, sum};
use crate::daemon::{Daemon, expect_gone};
use crate::netns;
use crate::pinned::Pinned;
use crate::scenario::{Scenario, Settings};
use crate::truth::Counters;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::bulk_daemon("persist_killed", killed),
    Scenario::daemon("persist_restarted", restarted).by_plan_only(),
    Scenario::daemon("persist_anew", anew).once(),
    Scenario::daemon("persist_retired_half", retired_half).once(),
    Scenario::daemon("persist_handed_on_half", handed_on_half).once(),
    Scenario::daemon("persist_created_twice", created_twice).once(),
    Scenario::daemon("killed_without_persist", killed_without).once(),
];

/// Unit of the process that closes.
const UNIT: &str = "kept.service";

/// Returns the name of the process that closes.
fn comm() -> String {
    format!("{:x}-kept", process::id())
}

/// Has a process make this many connections and abort them. It is a separate program, without the sockets of others: a
/// process that shares those, if only while it starts, closes some of them.
fn abort(connections: u64) -> Result<()> {
    let cgroup = Cgroup::new(UNIT)?;
    let status = Command::new(env::current_exe()?)
        .args(["aborter", &connections.to_string(), &comm()])
        .arg(cgroup.processes())
        .status()?;
    cgroup.remove()?;
    ensure!(status.success(), "the process that closes: {status}");
    Ok(())
}

/// Runs in that process. The kernel's counters of its network namespace must agree.
pub(crate) fn run_aborter(order: &[&str]) -> Result<()> {
    let &[connections, name, processes] = order else {
        bail!("usage: aborter CONNECTIONS NAME PROCESSES");
    };
    let connections = connections.parse()?;
    prctl::set_name(&CString::new(name)?)?;
    fs::write(processes, "0")?;
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        for _ in 0..connections {
            let Pair { client, server } = loopback.pair()?;
            born::abort(client, server)?;
        }
        let counters = Counters::read()?;
        ensure!(
            counters.abort_on_data == connections,
            "the kernel counted {counters:?}"
        );
        Ok(())
    })
}

/// Outcomes of each connection: a close of either end.
const OUTCOMES: [Outcome; 2] = [Outcome::LingerAborted, Outcome::AlreadyClosed];

/// Returns the closes of [`abort`], except that of its listener.
fn of_aborts(scrape: &Scrape) -> Closes {
    of(&comm(), scrape)
}

/// Returns those closes of retired groups.
fn of_retired(scrape: &Scrape) -> Closes {
    of("retired", scrape)
}

/// Returns the closes with those outcomes by processes of this name.
fn of(comm: &str, scrape: &Scrape) -> Closes {
    closes::closes(scrape, &["unit", "outcome"], |sample| {
        let outcome = sample.label("outcome");
        sample.label("comm") == comm && OUTCOMES.iter().any(|known| known.name() == outcome)
    })
}

/// Returns the closes that this many connections make, shown under this unit.
fn aborts(unit: &str, connections: u64) -> Closes {
    let closes = OUTCOMES.map(|outcome| {
        let labels = vec![unit.to_owned(), outcome.name().to_owned()];
        (labels, connections)
    });
    closes.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// Every close is counted once while one daemon after another is killed.
fn killed(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    /// One in this many daemons is terminated rather than killed.
    const TERMINATED: u64 = 5;
    let pinned = Pinned::new()?;
    // Other names on the host are not needed.
    let comm = comm();
    let options = ["--allow-comm", &comm, "--retire-after", "1h"];
    let start = || pinned.start(lingerd, plan, &options);
    let connections = settings.load / 2;
    let mut daemon = start()?;
    let programs = pinned.programs()?;
    let daemons = AtomicU64::new(1);
    thread::scope(|scope| {
        let closing = scope.spawn(|| abort(connections));
        let mut seed = settings.seed;
        let mut last = 0;
        while !closing.is_finished() {
            let all = sum(&daemon.scrape()?, "linger_closes_total", |sample| {
                sample.label("comm") == comm
            });
            ensure!(all >= last, "{last} closes became {all}");
            last = all;
            // A linear congruential generator: the moments only have to differ.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_millis(seed >> 59));
            if daemons
                .fetch_add(1, Ordering::Relaxed)
                .is_multiple_of(TERMINATED)
            {
                daemon.terminate()?;
            } else {
                daemon.kill()?;
            }
            daemon = start()?;
        }
        closing.join().expect("it does not panic")
    })?;
    println!(
        "{} closes under {} daemons, one after another",
        2 * connections,
        daemons.into_inner()
    );
    closes::expect(&daemon, &aborts(UNIT, connections), of_aborts)
        .with_context(|| whereabouts(&daemon))?;
    let scrape = daemon.scrape()?;
    // Returns from close inside a killed daemon are not seen.
    for what in ["close", "group", "orphan"] {
        ensure!(lost(&scrape, what) == 0, "lost: {what}");
    }
    ensure!(pinned.programs()? == programs, "programs were loaded anew");
    daemon.terminate()?;
    unload(lingerd, &pinned)?;
    expect_gone(&programs)
}

/// Describes where closes were counted, for an error.
fn whereabouts(daemon: &Daemon) -> String {
    let Ok(scrape) = daemon.scrape() else {
        return "there is no scrape".to_owned();
    };
    let labels = ["unit", "comm", "outcome"];
    let closes = closes::closes(&scrape, &labels, |_| true);
    let lost = ["close", "group", "orphan", "return"].map(|what| (what, lost(&scrape, what)));
    format!("lost: {lost:?}; all closes: {closes:?}")
}

/// Has everything pinned removed, and expects nothing to be left of it.
fn unload(lingerd: &Path, pinned: &Pinned) -> Result<()> {
    let output = pinned.command(lingerd, &["unload"])?;
    ensure!(output.status.success(), "unload: {output:?}");
    ensure!(!pinned.path().exists(), "the folder is still there");
    // A mount point cannot be removed, and stays.
    let path = pinned.path();
    let mount = path.parent().context("the file system is in a folder")?;
    let output = Command::new(lingerd)
        .args(["unload", "--pins"])
        .arg(mount)
        .output()?;
    ensure!(
        output.status.success(),
        "unload of a mount point: {output:?}"
    );
    // The pins of others stay.
    for folder in ["maps", "links"].map(|name| path.join(name)) {
        fs::create_dir_all(&folder)?;
        let foreign = folder.join("of_another");
        symlink("nowhere", &foreign)?;
        expect_refusal(lingerd, pinned, "has pins of another program", || {
            ensure!(foreign.is_symlink(), "the pins of others are gone");
            Ok(())
        })?;
        fs::remove_dir_all(folder)?;
    }
    Ok(fs::remove_dir(path)?)
}

/// Closes while no daemon runs are counted; two daemons cannot share the pins.
fn restarted(lingerd: &Path, plan: Plan) -> Result<()> {
    let pinned = Pinned::new()?;
    let options = ["--retire-after", "1h"];
    let mut daemon = pinned.start(lingerd, plan, &options)?;
    let first = daemon.id();
    let programs = pinned.programs()?;
    abort(10)?;
    closes::expect(&daemon, &aborts(UNIT, 10), of_aborts)?;

    for command in [
        &["run", "--persist", "--listen", "127.0.0.1:0"][..],
        &["unload"],
    ] {
        let output = pinned.command(lingerd, command)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && errors.contains("in use by another lingerd"),
            "{command:?} beside a daemon: {output:?}"
        );
    }

    daemon.terminate()?;
    abort(20)?;
    daemon = pinned.start(lingerd, plan, &options)?;
    // The cgroups of the same name are two groups, with the same labels.
    closes::expect(&daemon, &aborts(UNIT, 30), of_aborts)?;
    ensure!(pinned.programs()? == programs, "programs were loaded anew");
    daemon.terminate()?;
    unload(lingerd, &pinned)?;
    expect_gone(&programs)?;
    let probes = probes()?;
    let left = probes.contains(&format!("_{first}/"));
    ensure!(!left, "probes were left: {probes}");
    // A second time is no error.
    unload(lingerd, &pinned)
}

/// File of tracefs that defines probes.
const PROBES: &str = "/sys/kernel/tracing/kprobe_events";

/// Returns the probes that are defined in tracefs.
pub(crate) fn probes() -> Result<String> {
    Ok(if Path::new(PROBES).exists() {
        fs::read_to_string(PROBES)?
    } else {
        String::new()
    })
}

/// A mismatch: its part of the log message, the options that cause it, and a function that causes it.
type Misfit<'a> = (&'a str, &'a [&'a str], &'a dyn Fn() -> Result<()>);

/// Pins that do not match, or of which some are missing, are removed as a whole, and counting starts from zero.
fn anew(lingerd: &Path, plan: Plan) -> Result<()> {
    let pinned = Pinned::new()?;
    let mut daemon = pinned.start(lingerd, plan, &["--retire-after", "1h"])?;
    let misfits: [Misfit<'_>; 9] = [
        ("labels", &["--labels", "comm,unit,family"], &|| Ok(())),
        ("max-groups", &["--max-groups", "100"], &|| Ok(())),
        ("layout", &[], &|| {
            pinned.change_origin(|origin| origin.layout += 1)
        }),
        ("no longer attached", &[], &|| {
            let link = fs::read_dir(pinned.path().join("links"))?.next();
            let Some(link) = link else { return Ok(()) };
            Ok(fs::remove_file(link?.path())?)
        }),
        ("no longer attached", &[], &|| {
            Ok(fs::remove_dir_all(pinned.path().join("links"))?)
        }),
        ("no longer attached", &[], &|| {
            let link = fs::read_dir(pinned.path().join("links"))?.next();
            let name = link.context("no links are pinned")??.file_name();
            Ok(fs::remove_file(pinned.path().join("programs").join(name))?)
        }),
        ("incomplete", &[], &|| {
            let folders = ["links", "programs"].map(|name| pinned.path().join(name));
            for pin in folders.iter().flat_map(fs::read_dir).flatten() {
                fs::remove_file(pin?.path())?;
            }
            Ok(fs::remove_dir_all(pinned.path().join("maps"))?)
        }),
        ("the map NOTES is no longer pinned", &[], &|| {
            Ok(fs::remove_file(pinned.path().join("maps/NOTES"))?)
        }),
        ("incomplete", &[], &|| {
            Ok(fs::remove_file(pinned.path().join("maps/ORIGIN"))?)
        }),
    ];
    for (why, options, break_it) in misfits {
        abort(3)?;
        closes::expect(&daemon, &aborts(UNIT, 3), of_aborts)?;
        let programs = pinned.programs()?;
        daemon.terminate()?;
        break_it()?;
        let mut all = vec!["--retire-after", "1h"];
        all.extend(options);
        daemon = pinned.start(lingerd, plan, &all)?;
        let errors = daemon.errors();
        ensure!(
            errors.contains("counting starts from zero") && errors.contains(why),
            "nothing is said of {why}:\n{errors}"
        );
        expect_gone(&programs)?;
        closes::expect(&daemon, &Closes::new(), of_aborts)?;
        if !options.is_empty() {
            // Back to the options of the other mismatches.
            daemon.terminate()?;
            daemon = pinned.start(lingerd, plan, &["--retire-after", "1h"])?;
        }
    }
    daemon.terminate()?;
    without_maps(lingerd, plan, &pinned)?;
    unload(lingerd, &pinned)
}

/// Expects the commands that work on pins to fail for this reason, and `after` to hold after each.
fn expect_refusal(
    lingerd: &Path,
    pinned: &Pinned,
    reason: &str,
    after: impl Fn() -> Result<()>,
) -> Result<()> {
    for command in [&["unload"][..], &["run", "--persist"]] {
        let output = pinned.command(lingerd, command)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            !output.status.success() && errors.contains(reason),
            "{command:?} does not say {reason:?}: {output:?}"
        );
        after()?;
    }
    Ok(())
}

/// Without the folder of maps, nothing proves whose the other pins are: each command says what to do.
fn without_maps(lingerd: &Path, plan: Plan, pinned: &Pinned) -> Result<()> {
    let programs = pinned.programs()?;
    fs::remove_dir_all(pinned.path().join("maps"))?;
    let path = pinned.path();
    let path = path.to_str().context("a path of text")?;
    let beside = Daemon::start(lingerd, plan, &["--pins", path])?;
    let errors = beside.errors();
    ensure!(
        errors.contains("another lingerd has pinned programs"),
        "nothing is said of the programs:\n{errors}"
    );
    beside.stop()?;
    expect_refusal(lingerd, pinned, "remove it and all in it", || Ok(()))?;
    fs::remove_dir_all(pinned.path())?;
    expect_gone(&programs)?;
    pinned.start(lingerd, plan, &[])?.terminate()
}

/// A daemon that ended while it retired a group: what has been added to the retired totals is not counted twice.
fn retired_half(lingerd: &Path, plan: Plan) -> Result<()> {
    const RETIRED: usize = 1;
    let pinned = Pinned::new()?;
    let options = ["--retire-after", "1h"];
    let mut daemon = pinned.start(lingerd, plan, &options)?;
    abort(7)?;
    closes::expect(&daemon, &aborts(UNIT, 7), of_aborts)?;
    daemon.terminate()?;

    let groups = pinned.counters(&comm())?;
    let [(group, copies)] = &groups[..] else {
        bail!("groups: {groups:?}");
    };
    pinned.change_past(|past| {
        add_closes(&mut past.counters[RETIRED], copies);
        past.last = *group;
    })?;
    ensure!(pinned.has_counters(group)?, "the group had no place");

    daemon = pinned.start(lingerd, plan, &options)?;
    ensure!(
        !pinned.has_counters(group)?,
        "the group still has its place"
    );
    ensure!(of_aborts(&daemon.scrape()?).is_empty(), "it is shown twice");
    closes::expect(&daemon, &aborts("retired", 7), of_retired)?;
    daemon.terminate()?;

    // It closes again, as with the end of a socket whose close waited.
    pinned.set_counters(group, copies)?;
    daemon = pinned.start(lingerd, plan, &options)?;
    closes::expect(&daemon, &aborts(UNIT, 7), of_aborts)?;
    daemon.terminate()?;
    unload(lingerd, &pinned)
}

/// Adds the closes of the copies on all CPUs.
fn add_closes(counters: &mut linger_ebpf::Counters, copies: &[linger_ebpf::Counters]) {
    for outcome in Outcome::ALL {
        let closes = copies.iter().map(|one| one.closes[outcome.index()]);
        let sum = &mut counters.closes[outcome.index()];
        *sum = closes.fold(*sum, u64::wrapping_add);
    }
}

/// A daemon that ended while it handed a group's counts over to the group that continues its series: they are neither
/// counted twice nor lost.
fn handed_on_half(lingerd: &Path, plan: Plan) -> Result<()> {
    let pinned = Pinned::new()?;
    let options = ["--retire-after", "1h"];
    let mut daemon = pinned.start(lingerd, plan, &options)?;
    abort(7)?;
    abort(20)?;
    closes::expect(&daemon, &aborts(UNIT, 27), of_aborts)?;
    daemon.terminate()?;

    let mut groups = pinned.counters(&comm())?;
    // Later cgroups have larger IDs.
    groups.sort_by_key(|(group, _)| group.cgroup_id);
    let [(first, copies), (second, _)] = &groups[..] else {
        bail!("groups: {groups:?}");
    };
    let mut note = Note {
        last: *first,
        ..Note::ZERO
    };
    add_closes(&mut note.counters, copies);
    pinned.set_note(second, &note)?;

    daemon = pinned.start(lingerd, plan, &options)?;
    ensure!(
        !pinned.has_counters(first)?,
        "the first still has its place"
    );
    ensure!(pinned.has_counters(second)?, "the second has no place");
    closes::expect(&daemon, &aborts(UNIT, 27), of_aborts)?;
    daemon.terminate()?;

    pinned.set_counters(first, copies)?;
    daemon = pinned.start(lingerd, plan, &options)?;
    closes::expect(&daemon, &aborts(UNIT, 34), of_aborts)?;
    daemon.terminate()?;
    unload(lingerd, &pinned)
}

/// A group that two CPUs created at the same time, in its slot and in the hash map: both counters are one group's, until it
/// is retired.
fn created_twice(lingerd: &Path, plan: Plan) -> Result<()> {
    let pinned = Pinned::new()?;
    let mut daemon = pinned.start(lingerd, plan, &["--retire-after", "1h"])?;
    // Two groups of one series, should the slot of one be another's.
    abort(7)?;
    abort(7)?;
    closes::expect(&daemon, &aborts(UNIT, 14), of_aborts)?;
    daemon.terminate()?;

    let in_slots = pinned.in_slots(&comm())?;
    let (group, copies) = in_slots.first().context("no group has a slot")?;
    pinned.set_counters(group, copies)?;
    daemon = pinned.start(lingerd, plan, &["--retire-after", "1h"])?;
    closes::expect(&daemon, &aborts(UNIT, 21), of_aborts)?;
    daemon.terminate()?;

    daemon = pinned.start(lingerd, plan, &["--retire-after", "1s"])?;
    closes::expect(&daemon, &aborts("retired", 21), of_retired)?;
    ensure!(pinned.counters(&comm())?.is_empty(), "it has counters yet");
    ensure!(pinned.free_rows_are_zero()?, "a free slot has counts");
    daemon.terminate()?;
    unload(lingerd, &pinned)
}

/// Without `--persist` nothing stays, however the daemon ends, except for a definition in tracefs that does nothing,
/// until the next daemon starts.
fn killed_without(lingerd: &Path, plan: Plan) -> Result<()> {
    Daemon::start(lingerd, plan, &[])?.kill()?;
    // A probe left by the lingerd of a pod that is gone with its PID namespace. Here its number is that of the first
    // process.
    let of_pod = "lingerd_1_1";
    if plan == Plan::Kprobe {
        let mut file = File::options().append(true).open(PROBES)?;
        file.write_all(format!("p:{of_pod}/left tcp_close\n").as_bytes())?;
    }
    let daemon = Daemon::start(lingerd, plan, &[])?;
    let own = format!("_{}_", daemon.id());
    let probes = probes()?;
    ensure!(!probes.contains(of_pod), "left of a pod: {probes}");
    let others = probes
        .lines()
        .filter(|line| line.contains("lingerd_") && !line.contains(&own));
    // Probes of the daemon that other scenarios share are allowed.
    for line in others {
        let owner = line.split('_').nth(2);
        ensure!(
            owner.is_some_and(|pid| Path::new("/proc").join(pid).exists()),
            "left: {line}"
        );
    }
    daemon.stop()
}
