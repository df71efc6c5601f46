//! The type of a scenario, and the list of all scenarios.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use linger_daemon::exercise::Kind;
use linger_daemon::exercise::tcp::Loopback;
use linger_ebpf::{Outcome, Plan};
use serde::{Deserialize, Serialize};

use crate::needs::{Need, Unmet};
use crate::truth::Truth;
use crate::{
    abort, answers, asleep, attribution, bpf_stats, churn, container, cookbook, cut, dimensions,
    ends, exes, graceful, groups_full, hidden, hostile, kernel_threads, left_out, linger, listener,
    load, maintained, missed_ends, orphan_ends, orphan_netns, orphan_table, orphans, page, persist,
    pod, process_names, random, reached, reload, restart, retired, returns, segments, special,
    starting, under_way, unread, watch, watch_corrected, watch_places, watch_stack, watch_unread,
};

type LoopbackFn = fn(&Loopback, &mut Truth) -> io::Result<()>;
type TruthFn = fn(&mut Truth) -> io::Result<()>;
type SettingsFn = fn(Settings, &mut Truth) -> io::Result<()>;
type DaemonFn = fn(&Path, Plan) -> anyhow::Result<()>;
type DaemonSettingsFn = fn(&Path, Plan, Settings) -> anyhow::Result<()>;

/// The actions of a scenario, which records all its closes in [`Truth`].
#[derive(Clone, Copy)]
pub(crate) enum Script {
    Kind(Kind),
    Connections(LoopbackFn),
    Narrow(LoopbackFn),
    Own(TruthFn),
    HostWide(TruthFn),
    Bulk(SettingsFn),
    Under(&'static [&'static str], SettingsFn),
    Daemon(DaemonFn),
    BulkDaemon(DaemonSettingsFn),
}

/// Settings that the run passes to scenarios.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Settings {
    /// Closes of all load scenarios together.
    pub(crate) load: u64,
    /// Seed of the random scenarios.
    pub(crate) seed: u64,
    /// Cgroups of the churn.
    pub(crate) churn: u64,
    /// Pause between the connections of the cookbook's cases, milliseconds.
    pub(crate) pace: u64,
    /// Number of the attempt at the scenario, from 0: each attempt has its own name in the counts.
    pub(crate) attempt: u32,
}

impl Settings {
    /// Waits before the next connection of a cookbook case.
    pub(crate) fn pause(self) {
        thread::sleep(Duration::from_millis(self.pace));
    }
}

/// Conditions that the result of a scenario depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depends {
    /// The kernel, and the hooks of the plan there.
    KernelAndPlan,
    /// The plan: on another kernel with the same plan, the result is the same.
    Plan,
    /// Neither: it is about the daemon, or about something that is the same in every plan.
    Neither,
}

/// A scenario.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// Its actions.
    pub(crate) script: Script,
    /// What it needs of the machine.
    pub(crate) needs: &'static [Need],
    /// The conditions that it depends on.
    pub(crate) depends: Depends,
}

impl Scenario {
    /// Makes a scenario without needs, which depends on the kernel and the plan.
    const fn new(name: &'static str, script: Script) -> Self {
        Self {
            name,
            script,
            needs: &[],
            depends: Depends::KernelAndPlan,
        }
    }

    /// Makes one kind of the exercise.
    pub(crate) const fn kind(name: &'static str, kind: Kind) -> Self {
        Self::new(name, Script::Kind(kind))
    }

    /// Runs over an IPv4 listener, which is closed at the end.
    pub(crate) const fn connections(name: &'static str, script: LoopbackFn) -> Self {
        Self::new(name, Script::Connections(script))
    }

    /// As [`Self::connections`], with the smallest buffers.
    pub(crate) const fn narrow(name: &'static str, script: LoopbackFn) -> Self {
        Self::new(name, Script::Narrow(script))
    }

    /// Makes its own sockets.
    pub(crate) const fn own(name: &'static str, script: TruthFn) -> Self {
        Self::new(name, Script::Own(script))
    }

    /// Affects the whole host, so runs alone; enters its network namespace itself.
    pub(crate) const fn host_wide(name: &'static str, script: TruthFn) -> Self {
        Self::new(name, Script::HostWide(script))
    }

    /// Makes closes by the settings of the run.
    pub(crate) const fn bulk(name: &'static str, script: SettingsFn) -> Self {
        Self::new(name, Script::Bulk(script))
    }

    /// As [`Self::bulk`], alone with its own daemon, started with these options.
    pub(crate) const fn under(
        name: &'static str,
        options: &'static [&'static str],
        script: SettingsFn,
    ) -> Self {
        Self::new(name, Script::Under(options, script))
    }

    /// Tests the daemon itself: starts the binary with this plan, and stops it.
    pub(crate) const fn daemon(name: &'static str, script: DaemonFn) -> Self {
        Self::new(name, Script::Daemon(script))
    }

    /// As [`Self::daemon`], by the settings of the run.
    pub(crate) const fn bulk_daemon(name: &'static str, script: DaemonSettingsFn) -> Self {
        Self::new(name, Script::BulkDaemon(script))
    }

    /// Sets its needs.
    pub(crate) const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// Makes it depend on the plan alone.
    pub(crate) const fn by_plan_only(self) -> Self {
        Self {
            depends: Depends::Plan,
            ..self
        }
    }

    /// Makes it depend on neither kernel nor plan: one plan is as good as another.
    pub(crate) const fn once(self) -> Self {
        Self {
            depends: Depends::Neither,
            ..self
        }
    }

    /// Returns its first need that this machine does not meet.
    pub(crate) fn unmet(&self) -> Option<Unmet> {
        self.needs.iter().find_map(|need| need.unmet())
    }

    /// Returns the name of its process, at most 15 bytes: unique by the run (the process ID of the harness), the number
    /// and the attempt.
    pub(crate) fn comm(&self, run: u32, number: usize, attempt: u32) -> String {
        let again = "+".repeat(attempt as usize);
        let mut comm = format!("{run:x}.{number}{again}-{}", self.name);
        comm.truncate(15);
        comm
    }

    /// Returns whether it must run alone.
    pub(crate) fn is_host_wide(&self) -> bool {
        matches!(self.script, Script::HostWide(_))
    }

    /// Returns whether it shares a daemon with other scenarios.
    pub(crate) fn shares_daemon(&self) -> bool {
        !matches!(
            self.script,
            Script::Under(..) | Script::Daemon(_) | Script::BulkDaemon(_)
        )
    }

    /// Runs its script.
    pub(crate) fn perform(&self, settings: Settings, truth: &mut Truth) -> io::Result<()> {
        match self.script {
            Script::Kind(kind) => over(Loopback::new()?, truth, |loopback, truth| {
                kind.perform(loopback, &mut truth.tally)
            }),
            Script::Connections(script) => over(Loopback::new()?, truth, script),
            Script::Narrow(script) => over(Loopback::new()?.narrow()?, truth, script),
            Script::Own(script) | Script::HostWide(script) => script(truth),
            Script::Bulk(script) | Script::Under(_, script) => script(settings, truth),
            Script::Daemon(_) | Script::BulkDaemon(_) => {
                Err(io::Error::other("it has no process of its own"))
            }
        }
    }
}

/// Runs a script over a listener, then closes the listener.
pub(crate) fn over(
    loopback: Loopback,
    truth: &mut Truth,
    script: impl FnOnce(&Loopback, &mut Truth) -> io::Result<()>,
) -> io::Result<()> {
    script(&loopback, truth)?;
    truth
        .tally
        .close(loopback.into_listener(), Outcome::Listener)?;
    Ok(())
}

/// Returns every scenario, in the order of reports.
pub(crate) fn all() -> Vec<Scenario> {
    let modules = [
        graceful::SCENARIOS,
        linger::SCENARIOS,
        abort::SCENARIOS,
        bpf_stats::SCENARIOS,
        unread::SCENARIOS,
        ends::SCENARIOS,
        listener::SCENARIOS,
        special::SCENARIOS,
        starting::SCENARIOS,
        container::SCENARIOS,
        restart::SCENARIOS,
        orphans::SCENARIOS,
        orphan_ends::SCENARIOS,
        orphan_netns::SCENARIOS,
        orphan_table::SCENARIOS,
        under_way::SCENARIOS,
        reached::SCENARIOS,
        reload::SCENARIOS,
        returns::SCENARIOS,
        cut::SCENARIOS,
        left_out::SCENARIOS,
        attribution::SCENARIOS,
        cookbook::SCENARIOS,
        dimensions::SCENARIOS,
        exes::SCENARIOS,
        process_names::SCENARIOS,
        page::SCENARIOS,
        asleep::SCENARIOS,
        kernel_threads::SCENARIOS,
        groups_full::SCENARIOS,
        retired::SCENARIOS,
        maintained::SCENARIOS,
        missed_ends::SCENARIOS,
        persist::SCENARIOS,
        churn::SCENARIOS,
        hidden::SCENARIOS,
        hostile::SCENARIOS,
        pod::SCENARIOS,
        watch::SCENARIOS,
        watch_corrected::SCENARIOS,
        watch_places::SCENARIOS,
        watch_stack::SCENARIOS,
        watch_unread::SCENARIOS,
        random::SCENARIOS,
        segments::SCENARIOS,
        answers::SCENARIOS,
        load::OFFLINE,
        load::SCENARIOS,
    ];
    modules.concat()
}
