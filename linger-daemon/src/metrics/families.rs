//! Every metric that this daemon defines: its texts, and how its series follow from the counts.
//!
//! A series of a group begins with the first event that it counts, with two exceptions. The bytes discarded by an
//! outcome that can discard are shown from its first close on, even if they are zero. The series of all fates begin
//! with the first orphan of a group, because a loss is seen as the increase of a series that was there before.

use std::sync::LazyLock;

use linger_ebpf::{
    BLOCKED_BOUNDS_NS, Cause, Counters, Fate, LIVED_BOUNDS_NS, Lost, Orphans, Outcome, QueueBytes,
    TimeHistogram, WAITED,
};

use super::Exposition;
use super::family::{Family, Kind, Label, Rule, Series, Value};
use crate::ledger::MapFill;
use crate::probe::ProgramRuns;
use crate::version::{REVISION, VERSION};

/// All families, sorted by name as in an exposition.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "linger_build_info",
        help: "Always 1: version and source revision of this lingerd.",
        kind: Kind::Info,
        rule: Rule::Daemon(|_, series| {
            series.count(&[("version", VERSION), ("revision", REVISION)], 1);
        }),
    },
    Family {
        name: "linger_close_blocked_seconds",
        help: "Seconds that the closing thread spent in close, from entry to return, including the wait \
           for the socket's lock. waited=\"true\": closes that waited under SO_LINGER. Closes whose \
           time is unknown are missing here, but counted in linger_closes_total.",
        kind: Kind::Histogram(&BLOCKED_BOUNDS_NS),
        rule: Rule::Group(|counters, series| {
            for (waited, times) in WAITED.into_iter().zip(&counters.blocked) {
                histogram(series, &[("waited", waited)], times);
            }
        }),
    },
    Family {
        name: "linger_closes_total",
        help: "Closes of TCP sockets by outcome. A close is the final release of a socket, by whoever \
           holds it last; each is counted once. Outcomes ending in _aborted gave up the \
           connection instead of finishing it; linger_timeout and linger_interrupted returned \
           success with data still unacknowledged.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| {
            for &outcome in &*OUTCOMES {
                let closes = counters.closed(outcome);
                nonzero(series, &[("outcome", outcome.name())], closes);
            }
        }),
    },
    Family {
        name: "linger_discarded_bytes_total",
        help: "Bytes of payload in the send queue that were discarded, by the outcome of the close that \
           discarded them, or by the fate of the orphan that a close had left. queue=\"unsent\" never left \
           this host; queue=\"unacked\" was sent, and may or may not have reached the peer.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| {
            for loss in &*LOSSES {
                if let Some(bytes) = loss.discarded(counters) {
                    for (queue, bytes) in [("unacked", bytes.unacked), ("unsent", bytes.unsent)] {
                        series.count(&[("cause", loss.name()), ("queue", queue)], bytes);
                    }
                }
            }
        }),
    },
    Family {
        name: "linger_lost_orphan_bytes_total",
        help: "Bytes of payload outstanding in orphans that could not be followed, and that are in no \
           other metric. See --max-orphans.",
        kind: Kind::Counter,
        rule: Rule::Daemon(|exposition, series| {
            series.count(&[], exposition.snapshot.lost_orphan_bytes);
        }),
    },
    Family {
        name: "linger_lost_total",
        help: "What could not be recorded. what=\"group\": changes counted under other because there was no \
           room for their group (sums are still exact); \"close\": closes that are in no counter; \
           \"orphan\": orphans that are in no metric of orphans; \"return\": closes that are counted, \
           but whose time is in no histogram; \"event\": lines that lingerd watch missed (no count \
           depends on them). Anything but 0 deserves a look.",
        kind: Kind::Counter,
        rule: Rule::Daemon(|exposition, series| {
            let lost = Lost::ALL.iter().zip(exposition.snapshot.lost);
            let mut lost: Vec<_> = lost.map(|(what, count)| (what.name(), count)).collect();
            lost.sort_unstable();
            for (what, count) in lost {
                series.count(&[("what", what)], count);
            }
        }),
    },
    Family {
        name: "linger_map_capacity",
        help: "Entries that fit in each BPF map. What does not fit is counted in linger_lost_total.",
        kind: Kind::Gauge,
        rule: Rule::Daemon(|exposition, series| map_fill(exposition, series, |fill| fill.capacity)),
    },
    Family {
        name: "linger_map_entries",
        help: "Entries in each BPF map. See linger_map_capacity for how many fit.",
        kind: Kind::Gauge,
        rule: Rule::Daemon(|exposition, series| map_fill(exposition, series, |fill| fill.entries)),
    },
    Family {
        name: "linger_orphan_delivered_bytes_total",
        help: "Bytes of linger_orphaned_bytes_total that the peer acknowledged, counted when their \
           orphan ends.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| {
            of_orphans(counters, series, |orphans| orphans.delivered_bytes);
        }),
    },
    Family {
        name: "linger_orphan_duration_seconds",
        help: "Seconds from the return of the close to the end of its orphan.",
        kind: Kind::Histogram(&LIVED_BOUNDS_NS),
        rule: Rule::Group(|counters, series| histogram(series, &[], &counters.orphans.lived)),
    },
    Family {
        name: "linger_orphaned_bytes_total",
        help: "Bytes of payload that were unsent or unacknowledged when their close returned. They are \
           delivered, discarded, or still under way.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| of_orphans(counters, series, Orphans::total_bytes)),
    },
    Family {
        name: "linger_orphans_active",
        help: "Orphans still under way: sockets whose close returned while payload was unsent or \
           unacknowledged, and which have not ended yet.",
        kind: Kind::Gauge,
        rule: Rule::Group(|counters, series| of_orphans(counters, series, Orphans::under_way)),
    },
    Family {
        name: "linger_orphans_total",
        help: "Orphans that ended, by fate. All but \"delivered\" lost payload that the program \
           believes was sent.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| {
            if counters.orphans.total() > 0 {
                for fate in &*FATES {
                    let ends = counters.orphans.ends[fate.index()];
                    series.count(&[("fate", fate.name())], ends);
                }
            }
        }),
    },
    Family {
        name: "linger_probe_attached",
        help: "Whether each BPF program is attached to its target in the kernel: 1, or 0 if someone has \
           detached it.",
        kind: Kind::Gauge,
        rule: Rule::Daemon(|exposition, series| {
            let hooks = exposition.snapshot.hooks.iter();
            let mut hooks: Vec<_> = hooks
                .map(|(hook, is_attached)| (hook.program, hook.point.to_string(), *is_attached))
                .collect();
            hooks.sort();
            for (program, target, is_attached) in hooks {
                let labels = [("program", program), ("target", &target)];
                series.count(&labels, is_attached.into());
            }
        }),
    },
    Family {
        name: "linger_probe_info",
        help: "Always 1: the plan (set of kernel hooks) in use, and the release of the running kernel.",
        kind: Kind::Info,
        rule: Rule::Daemon(|exposition, series| {
            let facts = &exposition.facts;
            let labels = [("plan", facts.plan.name()), ("kernel", &facts.kernel)];
            series.count(&labels, 1);
        }),
    },
    Family {
        name: "linger_probe_run_seconds_total",
        help: "Seconds that each BPF program ran, while the kernel's BPF statistics (sysctl \
           kernel.bpf_stats_enabled) were switched on.",
        kind: Kind::Counter,
        rule: Rule::Daemon(|exposition, series| {
            for runs in timed_runs(exposition) {
                let labels = [("program", runs.program)];
                series.sample(&labels, Value::Nanoseconds(runs.time_ns));
            }
        }),
    },
    Family {
        name: "linger_probe_runs_total",
        help: "Runs of each BPF program, while the kernel's BPF statistics (sysctl kernel.bpf_stats_enabled) \
           were switched on.",
        kind: Kind::Counter,
        rule: Rule::Daemon(|exposition, series| {
            for runs in timed_runs(exposition) {
                series.count(&[("program", runs.program)], runs.timed);
            }
        }),
    },
    Family {
        name: "linger_probe_skipped_runs_total",
        help: "Runs of each BPF program that the kernel skipped, because that program (with kprobes, any) was \
           already running on the CPU: a thread was preempted or interrupted inside it. Other hooks make \
           up for most of them; see linger_lost_total for the rest.",
        kind: Kind::Counter,
        rule: Rule::Daemon(|exposition, series| {
            for runs in runs(exposition) {
                series.count(&[("program", runs.program)], runs.skipped);
            }
        }),
    },
    Family {
        name: "linger_resets_sent_total",
        help: "RSTs that this host sent, by cause. late_data answered data for a connection that a close \
           had ended, and counts for whoever closed; no_socket and refused answered any other packet, \
           and count for a group with empty labels; all other causes count for whoever closed or acted.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| {
            for cause in &*CAUSES {
                let resets = counters.resets[cause.index()];
                nonzero(series, &[("cause", cause.name())], resets);
            }
        }),
    },
    Family {
        name: "linger_scrape_duration_seconds",
        help: "Seconds taken to read the counters for this scrape.",
        kind: Kind::Gauge,
        rule: Rule::Daemon(|exposition, series| {
            let ns = u64::try_from(exposition.reading.as_nanos()).unwrap_or(u64::MAX);
            series.sample(&[], Value::Nanoseconds(ns));
        }),
    },
    Family {
        name: "linger_unread_bytes_total",
        help: "Bytes of payload that arrived, were acknowledged to the peer, and were discarded by a \
           close because the program had not read them.",
        kind: Kind::Counter,
        rule: Rule::Group(|counters, series| nonzero(series, &[], counters.unread_bytes)),
    },
];

/// Returns the number of series of a group with these counters.
#[must_use]
pub fn series(counters: &Counters) -> usize {
    let mut count = 0;
    for family in FAMILIES {
        if let Rule::Group(rule) = family.rule {
            rule(counters, &mut count);
        }
    }
    count
}

/// Sorts values by name, as in an exposition.
fn by_name<T: Copy>(all: &[T], name: fn(T) -> &'static str) -> Vec<T> {
    let mut sorted = all.to_vec();
    sorted.sort_by_key(|&value| name(value));
    sorted
}

static OUTCOMES: LazyLock<Vec<Outcome>> = LazyLock::new(|| by_name(Outcome::ALL, Outcome::name));

static FATES: LazyLock<Vec<Fate>> = LazyLock::new(|| by_name(Fate::ALL, Fate::name));

static CAUSES: LazyLock<Vec<Cause>> = LazyLock::new(|| by_name(Cause::ALL, Cause::name));

/// A way in which payload queued for sending is discarded.
#[derive(Clone, Copy)]
enum Loss {
    Close(Outcome),
    Orphan(Fate),
}

static LOSSES: LazyLock<Vec<Loss>> = LazyLock::new(|| {
    let outcomes = OUTCOMES.iter().filter(|outcome| outcome.discards());
    let fates = FATES.iter().filter(|fate| fate.discards());
    let closes = outcomes.copied().map(Loss::Close);
    let losses: Vec<_> = closes.chain(fates.copied().map(Loss::Orphan)).collect();
    by_name(&losses, Loss::name)
});

impl Loss {
    fn name(self) -> &'static str {
        match self {
            Self::Close(outcome) => outcome.name(),
            Self::Orphan(fate) => fate.name(),
        }
    }

    /// Returns the bytes that a group lost in this way; `None` if it had no occasion to.
    fn discarded(self, counters: &Counters) -> Option<QueueBytes> {
        let orphans = &counters.orphans;
        match self {
            Self::Close(outcome) => {
                (counters.closed(outcome) > 0).then(|| counters.discarded(outcome))
            }
            Self::Orphan(fate) => (orphans.total() > 0).then(|| orphans.discarded[fate.index()]),
        }
    }
}

fn nonzero(series: &mut dyn Series, labels: &[Label], count: u64) {
    if count > 0 {
        series.count(labels, count);
    }
}

fn histogram(series: &mut dyn Series, labels: &[Label], times: &TimeHistogram) {
    if times.count() > 0 {
        series.histogram(labels, times);
    }
}

/// Emits a series of a group that ever had an orphan.
fn of_orphans(counters: &Counters, series: &mut dyn Series, count: fn(&Orphans) -> u64) {
    if counters.orphans.total() > 0 {
        series.count(&[], count(&counters.orphans));
    }
}

fn map_fill(exposition: &Exposition, series: &mut dyn Series, measure: fn(&MapFill) -> u64) {
    let mut maps: Vec<_> = exposition.snapshot.maps.iter().collect();
    maps.sort_by_key(|fill| &fill.map);
    for fill in maps {
        series.count(&[("map", &fill.map)], measure(fill));
    }
}

/// Returns the runs of each program, in the order of their names.
fn runs(exposition: &Exposition) -> Vec<&ProgramRuns> {
    let mut runs: Vec<_> = exposition.snapshot.runs.iter().collect();
    runs.sort_unstable();
    runs
}

/// Returns [`runs`] if BPF statistics are, or were, switched on: without them, nothing is known about any program.
fn timed_runs(exposition: &Exposition) -> Vec<&ProgramRuns> {
    let mut runs = runs(exposition);
    if runs.iter().all(|runs| runs.timed == 0) {
        runs.clear();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_in_order() {
        assert!(FAMILIES.is_sorted_by(|one, next| one.name < next.name));
    }
}
