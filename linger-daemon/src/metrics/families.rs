//! The contract: every metric with its words, and how it follows from a snapshot.
//!
//! A series of a group begins with the first thing it counts; there are no series of things that
//! never happened. Bytes discarded are the exception: an outcome that can discard shows that it
//! discarded nothing; and fates: with the first orphan of a group, all of them begin.

use std::time::Duration;

use linger_ebpf::{Cause, Closes, Counters, Ends, Fate, Lost, Orphans, Outcome};
use prometheus::core::Desc;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::family::{Family, float};
use super::{Facts, REVISION, VERSION};
use crate::attribution::Labels;
use crate::ledger::{MapFill, Snapshot};

static CLOSES: Family = Family {
    name: "linger_closes_total",
    help: "Closes of TCP sockets by outcome. A close is the final release of a socket, whoever \
           holds it last; each is counted once. Outcomes ending in _aborted gave the connection \
           up instead of finishing it; linger_timeout and linger_interrupted returned success \
           with data still unacknowledged.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &["outcome"],
};

static BLOCKED: Family = Family {
    name: "linger_close_blocked_seconds",
    help: "Seconds that the closing thread spent in close, from entry to return, waiting for the \
           socket's lock included. Closes whose time is not known are missing here and counted \
           in linger_closes_total all the same.",
    kind: MetricType::HISTOGRAM,
    attributed: true,
    labels: &["outcome"],
};

static DISCARDED: Family = Family {
    name: "linger_discarded_bytes_total",
    help: "Bytes of payload that were queued to be sent and thrown away, by the outcome of the \
           close that did it, or by the fate of the orphan that a close had left. queue=\"unsent\" never left this host; queue=\"unacked\" was sent, \
           and may or may not have reached the peer.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &["cause", "queue"],
};

static UNREAD: Family = Family {
    name: "linger_unread_bytes_total",
    help: "Bytes of payload that arrived, were acknowledged to the peer, and were thrown away by a \
           close because no one had read them.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &[],
};

static RESETS: Family = Family {
    name: "linger_resets_sent_total",
    help: "RSTs that this host chose to send on a connection, by cause. RSTs in answer to segments \
           that belong to no connection are not among them.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &["cause"],
};

static ORPHANS: Family = Family {
    name: "linger_orphans",
    help: "Orphans still under way: sockets whose close returned while payload was unsent or \
           unacknowledged, and whose end has not come.",
    kind: MetricType::GAUGE,
    attributed: true,
    labels: &[],
};

static ORPHANS_TOTAL: Family = Family {
    name: "linger_orphans_total",
    help: "Orphans that came to an end, by fate. All but \"delivered\" lost payload that their \
           program believes sent.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &["fate"],
};

static ORPHANED_BYTES: Family = Family {
    name: "linger_orphaned_bytes_total",
    help: "Bytes of payload that were unsent or unacknowledged when their close returned. They are \
           delivered, discarded, or still under way.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &[],
};

static DELIVERED_BYTES: Family = Family {
    name: "linger_orphan_delivered_bytes_total",
    help: "Bytes of linger_orphaned_bytes_total that the peer acknowledged, counted when their \
           orphan ends.",
    kind: MetricType::COUNTER,
    attributed: true,
    labels: &[],
};

static ORPHAN_SECONDS: Family = Family {
    name: "linger_orphan_seconds",
    help: "Seconds from the return of the close to the end of its orphan.",
    kind: MetricType::HISTOGRAM,
    attributed: true,
    labels: &["fate"],
};

static LOST_ORPHAN_BYTES: Family = Family {
    name: "linger_lost_orphan_bytes_total",
    help: "Bytes of payload outstanding in orphans that found no place, and are in no other \
           metric. See --max-orphans.",
    kind: MetricType::COUNTER,
    attributed: false,
    labels: &[],
};

static BUILD: Family = Family {
    name: "linger_build_info",
    help: "Always 1: version and source revision of this lingerd.",
    kind: MetricType::GAUGE,
    attributed: false,
    labels: &["version", "revision"],
};

static PROBE: Family = Family {
    name: "linger_probe_info",
    help: "Always 1: the plan (set of kernel hooks) in use, and the release of the running kernel.",
    kind: MetricType::GAUGE,
    attributed: false,
    labels: &["plan", "kernel"],
};

static ATTACHED: Family = Family {
    name: "linger_probe_attached",
    help: "1 for each BPF program that is attached, with the place in the kernel it is attached to.",
    kind: MetricType::GAUGE,
    attributed: false,
    labels: &["program", "target"],
};

static LOST: Family = Family {
    name: "linger_lost_total",
    help: "What could not be recorded. what=\"group\": changes counted under other because their \
           group found no place, the sums are still exact; \"close\": closes that are in no \
           counter; \"orphan\": orphans that are in no metric of orphans; \"return\": closes that are counted, but not in the histogram of their time. \
           Anything but 0 deserves a look.",
    kind: MetricType::COUNTER,
    attributed: false,
    labels: &["what"],
};

static ENTRIES: Family = Family {
    name: "linger_map_entries",
    help: "Entries in each BPF map. See linger_map_capacity for how many fit.",
    kind: MetricType::GAUGE,
    attributed: false,
    labels: &["map"],
};

static CAPACITY: Family = Family {
    name: "linger_map_capacity",
    help: "Entries that fit in each BPF map. What finds no place is counted in linger_lost_total.",
    kind: MetricType::GAUGE,
    attributed: false,
    labels: &["map"],
};

static SCRAPE: Family = Family {
    name: "linger_scrape_duration_seconds",
    help: "Seconds that reading the ledger took for this scrape.",
    kind: MetricType::GAUGE,
    attributed: false,
    labels: &[],
};

/// What each metric is, for the registry.
pub(super) fn descriptions() -> Vec<Desc> {
    [
        &CLOSES,
        &BLOCKED,
        &DISCARDED,
        &UNREAD,
        &RESETS,
        &ORPHANS,
        &ORPHANS_TOTAL,
        &ORPHANED_BYTES,
        &DELIVERED_BYTES,
        &ORPHAN_SECONDS,
        &BUILD,
        &PROBE,
        &ATTACHED,
        &LOST,
        &LOST_ORPHAN_BYTES,
        &ENTRIES,
        &CAPACITY,
        &SCRAPE,
    ]
    .map(Family::description)
    .into()
}

/// Every metric of a snapshot that took `reading` to read. Families may be empty.
pub(super) fn all(snapshot: &Snapshot, facts: &Facts, reading: Duration) -> Vec<MetricFamily> {
    vec![
        CLOSES.with(by_outcome(snapshot, closes)),
        BLOCKED.with(by_outcome(snapshot, blocked)),
        DISCARDED.with(by_group(snapshot, discarded)),
        UNREAD.with(by_group(snapshot, unread)),
        RESETS.with(by_group(snapshot, resets)),
        ORPHANS.with(by_group(snapshot, orphans)),
        ORPHANS_TOTAL.with(by_group(snapshot, orphans_ended)),
        ORPHANED_BYTES.with(by_group(snapshot, orphaned_bytes)),
        DELIVERED_BYTES.with(by_group(snapshot, delivered_bytes)),
        ORPHAN_SECONDS.with(by_group(snapshot, orphan_seconds)),
        BUILD.with(vec![BUILD.of_daemon(&[VERSION, REVISION], 1.0)]),
        PROBE.with(vec![
            PROBE.of_daemon(&[facts.plan.name(), &facts.kernel], 1.0),
        ]),
        ATTACHED.with(attached(facts)),
        LOST.with(lost(snapshot)),
        LOST_ORPHAN_BYTES.with(vec![
            LOST_ORPHAN_BYTES.of_daemon(&[], float(snapshot.lost_orphan_bytes)),
        ]),
        ENTRIES.with(map_fill(snapshot, &ENTRIES, |fill| fill.entries)),
        CAPACITY.with(map_fill(snapshot, &CAPACITY, |fill| fill.capacity)),
        SCRAPE.with(vec![SCRAPE.of_daemon(&[], reading.as_secs_f64())]),
    ]
}

fn by_group(snapshot: &Snapshot, series: fn(&Labels, &Counters) -> Vec<Metric>) -> Vec<Metric> {
    let groups = snapshot.groups.iter();
    groups
        .flat_map(|(group, counters)| series(group, counters))
        .collect()
}

/// What one group did with one outcome.
struct Ended<'a> {
    group: &'a Labels,
    outcome: Outcome,
    closes: &'a Closes,
}

/// Asks for the series of every outcome that happened.
fn by_outcome(snapshot: &Snapshot, series: fn(&Ended) -> Vec<Metric>) -> Vec<Metric> {
    let mut all = Vec::new();
    for (group, counters) in &snapshot.groups {
        for &outcome in Outcome::ALL {
            let closes = &counters.closes[outcome.index()];
            if closes.count() > 0 {
                all.extend(series(&Ended {
                    group,
                    outcome,
                    closes,
                }));
            }
        }
    }
    all
}

fn closes(ended: &Ended) -> Vec<Metric> {
    vec![CLOSES.of_group(ended.group, &[ended.outcome.name()], ended.closes.count())]
}

fn blocked(ended: &Ended) -> Vec<Metric> {
    // A plan that cannot time closes on this kernel has no histogram, rather than an empty one.
    if ended.closes.timed() == 0 {
        return Vec::new();
    }
    let Closes {
        buckets,
        blocked_ns,
        ..
    } = ended.closes;
    vec![BLOCKED.histogram(ended.group, &[ended.outcome.name()], buckets, *blocked_ns)]
}

fn discarded(group: &Labels, counters: &Counters) -> Vec<Metric> {
    let by_close = Outcome::ALL
        .iter()
        .zip(&counters.closes)
        .filter(|(outcome, closes)| outcome.discards() && closes.count() > 0)
        .map(|(outcome, closes)| (outcome.name(), closes.discarded));
    let after_close = fates(counters)
        .filter(|(fate, _)| fate.discards())
        .map(|(fate, ends)| (fate.name(), ends.discarded));
    by_close
        .chain(after_close)
        .flat_map(|(cause, bytes)| {
            [("unsent", bytes.unsent), ("unacked", bytes.unacked)]
                .map(|(queue, bytes)| DISCARDED.of_group(group, &[cause, queue], bytes))
        })
        .collect()
}

/// Every fate, of a group that ever had an orphan: a loss is seen as the increase of a series that
/// was there before.
fn fates(counters: &Counters) -> impl Iterator<Item = (Fate, &Ends)> {
    let any = counters.orphans.total() > 0;
    let ends = Fate::ALL.iter().copied().zip(&counters.orphans.ends);
    ends.filter(move |_| any)
}

fn orphans(group: &Labels, counters: &Counters) -> Vec<Metric> {
    let orphans = &counters.orphans;
    of_orphans(&ORPHANS, group, orphans, orphans.under_way())
}

fn orphaned_bytes(group: &Labels, counters: &Counters) -> Vec<Metric> {
    let orphans = &counters.orphans;
    of_orphans(&ORPHANED_BYTES, group, orphans, orphans.total_bytes())
}

fn delivered_bytes(group: &Labels, counters: &Counters) -> Vec<Metric> {
    let orphans = &counters.orphans;
    of_orphans(&DELIVERED_BYTES, group, orphans, orphans.delivered_bytes)
}

/// A series of a group that ever had an orphan.
fn of_orphans(family: &Family, group: &Labels, orphans: &Orphans, value: u64) -> Vec<Metric> {
    if orphans.total() == 0 {
        return Vec::new();
    }
    vec![family.of_group(group, &[], value)]
}

fn orphans_ended(group: &Labels, counters: &Counters) -> Vec<Metric> {
    fates(counters)
        .map(|(fate, ends)| ORPHANS_TOTAL.of_group(group, &[fate.name()], ends.count()))
        .collect()
}

fn orphan_seconds(group: &Labels, counters: &Counters) -> Vec<Metric> {
    fates(counters)
        .filter(|(_, ends)| ends.count() > 0)
        .map(|(fate, ends)| {
            ORPHAN_SECONDS.histogram(group, &[fate.name()], &ends.buckets, ends.lived_ns)
        })
        .collect()
}

fn unread(group: &Labels, counters: &Counters) -> Vec<Metric> {
    if counters.unread_bytes == 0 {
        return Vec::new();
    }
    vec![UNREAD.of_group(group, &[], counters.unread_bytes)]
}

fn resets(group: &Labels, counters: &Counters) -> Vec<Metric> {
    let causes = Cause::ALL.iter().zip(counters.resets);
    causes
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| RESETS.of_group(group, &[cause.name()], count))
        .collect()
}

fn attached(facts: &Facts) -> Vec<Metric> {
    let hooks = facts.attached.iter();
    hooks
        .map(|hook| ATTACHED.of_daemon(&[hook.program, &hook.point.to_string()], 1.0))
        .collect()
}

fn lost(snapshot: &Snapshot) -> Vec<Metric> {
    let lost = Lost::ALL.iter().zip(snapshot.lost);
    lost.map(|(what, count)| LOST.of_daemon(&[what.name()], float(count)))
        .collect()
}

fn map_fill(snapshot: &Snapshot, family: &Family, measure: fn(&MapFill) -> u64) -> Vec<Metric> {
    let maps = snapshot.maps.iter();
    maps.map(|fill| family.of_daemon(&[fill.map], float(measure(fill))))
        .collect()
}
