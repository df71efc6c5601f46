//! More groups than the table or the memory can hold.

use std::fs::{self, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::attribution;
use linger_daemon::exercise::tcp::{self, Loopback, Pair};
use linger_ebpf::{Cause, Counters, GROUP_SLOTS, Plan};
use linger_testkit::exposition::{Sample, Scrape};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::born::{self, Cgroup};
use crate::closes::{self, Closes, is_other, lost, sum};
use crate::daemon::Daemon;
use crate::needs::Need;
use crate::netns;
use crate::retired;
use crate::scenario::Scenario;
use crate::watch::sight;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("groups_full", full).once(),
    Scenario::daemon("groups_share_slots", share_slots),
    Scenario::daemon("groups_share_slots_by_port", share_slots_by_port).once(),
    Scenario::daemon("group_gets_a_place_late", late),
    Scenario::daemon("groups_take_what_is_said", memory).once(),
    Scenario::daemon("groups_without_memory", without_memory).needs(&[Need::OwnMachine]),
];

const PLACES: u64 = 8;
const NAMES: u64 = 40;
/// Rounds over all names: those that found no place find none later either.
const ROUNDS: u64 = 2;

fn full(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let names: Vec<_> = (0..NAMES)
            .map(|number| format!("{:x}-{number}", process::id()))
            .collect();
        let (places, allowed) = (PLACES.to_string(), names.join(","));
        let options = ["--max-groups", &places, "--allow-comm", &allowed];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("full.service")?;
        let loopback = Loopback::new()?;
        let mut expected = Closes::new();
        for _ in 0..ROUNDS {
            for (number, name) in (1..).zip(&names) {
                // SAFETY: it only makes system calls.
                unsafe {
                    cgroup.bear(name.as_str(), || {
                        (0..number).try_for_each(|_| {
                            let Pair { client, server } = loopback.pair()?;
                            born::abort(client, server)
                        })
                    })
                }?;
                let comm = if number <= PLACES { name } else { "other" };
                *expected.entry(vec![comm.to_owned()]).or_default() += number;
            }
        }
        // Closes of scrapes, whose names are not allowed, also count under `other`, but none of them aborts.
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["comm"], |sample| {
                sample.label("outcome") == "linger_aborted"
            })
        })?;
        let scrape = daemon.scrape()?;
        // Each abort makes a close of either end.
        let without_place: u64 = (PLACES + 1..=NAMES).map(|number| 2 * ROUNDS * number).sum();
        let lost = lost(&scrape, "group");
        ensure!(
            lost == without_place,
            "{lost} changes found no place, and not {without_place}"
        );
        let resets = sum(&scrape, "linger_resets_sent_total", is_other);
        ensure!(
            resets == without_place / 2,
            "{resets} resets without a place"
        );
        cgroup.remove()?;
        daemon.stop()
    })
}

/// More groups than there are slots.
const SHARERS: u16 = 384;
const _: () = assert!(SHARERS as u32 > GROUP_SLOTS);

/// Names whose words have the same exclusive or.
const SAME_HASH: [&str; 2] = ["a-sharedb-hash", "b-shareda-hash"];

/// Groups in slots and in the hash map.
fn share_slots(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let names = (0..SHARERS).map(|number| format!("{number}-shares"));
        let names: Vec<_> = names.chain(SAME_HASH.map(str::to_owned)).collect();
        let daemon = Daemon::start(lingerd, plan, &["--allow-comm", &names.join(",")])?;
        let cgroup = Cgroup::new("shares.service")?;
        for _ in 0..ROUNDS {
            abort_by_each(&cgroup, &names)?;
        }
        let expected: Closes = names.into_iter().map(|name| (vec![name], ROUNDS)).collect();
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["comm"], |sample| {
                sample.label("outcome") == "linger_aborted" && !is_other(sample)
            })
        })?;
        cgroup.remove()?;
        daemon.stop()
    })
}

/// The same for groups that differ in the last field of their key.
fn share_slots_by_port(lingerd: &Path, plan: Plan) -> Result<()> {
    const FIRST: u16 = 20_000;
    const LAST: u16 = FIRST + SHARERS - 1;
    netns::in_own(|| {
        let ports = format!("{FIRST}-{LAST}");
        let daemon = Daemon::start(lingerd, plan, &["--labels", "port", "--ports", &ports])?;
        for port in FIRST..=LAST {
            let loopback = Loopback::at((Ipv4Addr::LOCALHOST, port).into())?;
            for _ in 0..ROUNDS {
                let Pair { client, server } = loopback.pair()?;
                born::abort(server, client)?;
            }
        }
        let ports = (FIRST..=LAST).map(|port| vec![port.to_string()]);
        let expected: Closes = ports.map(|port| (port, ROUNDS)).collect();
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["port"], |sample| {
                sample.label("outcome") == "linger_aborted" && !sample.label("port").is_empty()
            })
        })?;
        daemon.stop()
    })
}

/// A group that counts under `other` for lack of room gets a place later: its orphan ends where it began, and late data
/// for others without a place does not count for it.
fn late(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let names: Vec<_> = (0..=PLACES)
            .map(|number| format!("{:x}-late{number}", process::id()))
            .collect();
        let (late, early) = names.split_last().context("a name")?;
        let (places, allowed) = (PLACES.to_string(), names.join(","));
        let options = ["--max-groups", &places, "--allow-comm", &allowed];
        // On another CPU, nothing is counted under `other` before.
        run_on(0)?;
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("early.service")?;
        abort_by_each(&cgroup, early)?;
        cgroup.remove()?;
        let loopback = Loopback::new()?;
        // Accepted sockets inherit the filter.
        tcp::drop_data(loopback.listener())?;
        let last = possible_cpus()? - 1;
        let cgroup = Cgroup::new("late.service")?;
        let leave = || {
            run_on(last)?;
            retired::leave(&loopback)
        };
        // SAFETY: it only makes system calls.
        unsafe { cgroup.bear(late.as_str(), leave) }?;
        let server = loopback.accept()?;
        let bytes = retired::MESSAGE.len() as u64;
        closes::expect(&daemon, &[(1, 0), (0, 0), (bytes, 0), (0, 0)], orphans)?;

        // The groups of the removed cgroup are retired soon, but only until the map is no longer crowded.
        closes::wait_until(&daemon, |scrape| {
            let groups = sum(scrape, "linger_map_entries", |sample| {
                sample.label("map") == "groups"
            });
            ensure!(groups < PLACES, "{groups} groups: no room");
            Ok(())
        })?;
        tcp::accept_data(&server)?;
        tcp::receive_all(&server)?;
        drop(server);
        let ended = [(0, 0), (1, 0), (bytes, 0), (bytes, 0)];
        closes::expect(&daemon, &ended, orphans)?;

        // SAFETY: as above.
        unsafe { cgroup.bear(late.as_str(), || tcp::close(loopback.socket()?).map(drop)) }?;
        let loopback = Loopback::new()?;
        let close = || {
            run_on(last)?;
            tcp::close(loopback.connect()?).map(drop)
        };
        // SAFETY: as above.
        unsafe { cgroup.bear("nameless", close) }?;
        let server = loopback.accept()?;
        tcp::send(&server, 1)?;
        // Where answers are not seen, the socket may have become a remnant in FIN_WAIT2, or not yet.
        let is_seen = sight(plan)?.sees_answers();
        closes::wait_until(&daemon, |scrape| {
            let late_data = split(scrape, "linger_resets_sent_total", |sample| {
                sample.label("cause") == Cause::LateData.name()
            });
            ensure!(
                late_data == (1, 0) || !is_seen && late_data == (0, 0),
                "late data under other and elsewhere: {late_data:?}"
            );
            Ok(())
        })?;
        cgroup.remove()?;
        daemon.stop()
    })
}

/// Has this thread, and what it starts, run on this CPU alone.
fn run_on(cpu: u64) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(usize::try_from(cpu).map_err(io::Error::other)?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// Returns the orphans under way, the ended ones, and their bytes left and delivered, each under `other` and elsewhere.
fn orphans(scrape: &Scrape) -> [(u64, u64); 4] {
    [
        "linger_orphans_active",
        "linger_orphans_total",
        "linger_orphaned_bytes_total",
        "linger_orphan_delivered_bytes_total",
    ]
    .map(|metric| split(scrape, metric, |_| true))
}

/// Returns the sums of a metric under `other`, and elsewhere.
fn split(scrape: &Scrape, metric: &str, select: impl Fn(&Sample) -> bool) -> (u64, u64) {
    let others = sum(scrape, metric, |sample| is_other(sample) && select(sample));
    (others, sum(scrape, metric, select) - others)
}

/// So few that none has a slot, whose memory is allocated before.
const NO_SLOTS: &str = "--max-groups=2048";

const GROUPS: u64 = 64;
/// Most memory of a group besides its counters, bytes: a hash map element, with the kernel's own fields.
const ELEMENT: u64 = 128;

/// A group takes the memory that docs/limits.md says, as the kernel reports it.
fn memory(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let names: Vec<_> = (0..GROUPS).map(|number| format!("{number}-said")).collect();
        let allowed = names.join(",");
        let options = ["--labels", "comm", "--allow-comm", &allowed, NO_SLOTS];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("said.service")?;
        let before = daemon.map_memory()?;
        abort_by_each(&cgroup, &names)?;
        let grown = daemon.map_memory()? - before;
        let groups = closes::closes(&daemon.scrape()?, &["comm"], |sample| {
            sample.label("outcome") == "linger_aborted"
        });
        ensure!(groups.len() as u64 == GROUPS, "{groups:?}");
        // Before Linux 6.4 the kernel reports the most that the maps may take.
        if grown > 0 || sight(plan)?.release_in_close {
            let counters = possible_cpus()? * size_of::<Counters>() as u64;
            let each = grown / GROUPS;
            ensure!(
                (counters..=counters + ELEMENT).contains(&each),
                "a group takes {each} bytes, of which {counters} should be counters"
            );
        }
        cgroup.remove()?;
        daemon.stop()
    })
}

/// Has a process of each name abort a connection, in this cgroup.
fn abort_by_each(cgroup: &Cgroup, names: &[String]) -> Result<()> {
    let loopback = Loopback::new()?;
    for name in names {
        // SAFETY: it only makes system calls.
        unsafe {
            cgroup.bear(name.as_str(), || {
                let Pair { client, server } = loopback.pair()?;
                born::abort(client, server)
            })
        }?;
    }
    Ok(())
}

/// Returns the number of CPUs with their own copy of the counters.
fn possible_cpus() -> Result<u64> {
    let all = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = all.trim().rsplit(['-', ',']).next().unwrap_or_default();
    Ok(last.parse::<u64>()? + 1)
}

/// More new elements than the kernel has preallocated on every CPU.
const MANY: u64 = 600;

/// Map memory is charged to the cgroup where the maps were made, which has none left.
fn without_memory(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let root = attribution::cgroup_root()?;
        fs::write(root.join("cgroup.subtree_control"), "+memory")?;
        let tight = root.join("linger-tight");
        fs::create_dir(&tight)?;
        let folder = tempfile::tempdir()?;
        let starter = folder.path().join("lingerd");
        let script = format!(
            "#!/bin/sh\necho $$ >{}/cgroup.procs\nexec {} \"$@\"\n",
            tight.display(),
            lingerd.display()
        );
        fs::write(&starter, script)?;
        fs::set_permissions(&starter, Permissions::from_mode(0o755))?;
        let names: Vec<_> = (0..MANY).map(|number| format!("{number}-tight")).collect();
        let options = ["--allow-comm", &names.join(","), NO_SLOTS];
        let daemon = Daemon::start(&starter, plan, &options)?;
        // The daemon's own needs are not the subject.
        fs::write(root.join("cgroup.procs"), daemon.id().to_string())?;
        fs::write(tight.join("memory.max"), "0")?;
        let cgroup = Cgroup::new("tight.service")?;
        abort_by_each(&cgroup, &names)?;
        let scrape = daemon.scrape()?;
        let aborted = |sample: &Sample| sample.label("outcome") == "linger_aborted";
        let closes = sum(&scrape, "linger_closes_total", aborted);
        ensure!(closes == MANY, "{closes} of {MANY} closes");
        let lost = [lost(&scrape, "close"), lost(&scrape, "group")];
        ensure!(
            lost[0] == 0 && lost[1] > 0,
            "lost closes and groups: {lost:?}"
        );
        cgroup.remove()?;
        daemon.stop()?;
        Ok(fs::remove_dir(&tight)?)
    })
}
