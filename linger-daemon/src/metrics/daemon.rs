//! The metrics of the daemon itself.

use linger_ebpf::Lost;

use super::Exposition;
use super::family::{Family, Kind, Rule, Series, Value};
use crate::ledger::MapFill;
use crate::version::{REVISION, VERSION};

pub(super) static LOST_ORPHAN_BYTES: Family = Family {
    name: "linger_lost_orphan_bytes_total",
    help: "Bytes of payload outstanding in orphans that could not be followed, and that are in no \
           other metric. See --max-orphans.",
    kind: Kind::Counter,
    rule: Rule::Daemon(lost_orphan_bytes),
};

pub(super) static BUILD: Family = Family {
    name: "linger_build_info",
    help: "Always 1: version and source revision of this lingerd.",
    kind: Kind::Info,
    rule: Rule::Daemon(build),
};

pub(super) static PROBE: Family = Family {
    name: "linger_probe_info",
    help: "Always 1: the plan (set of kernel hooks) in use, and the release of the running kernel.",
    kind: Kind::Info,
    rule: Rule::Daemon(probe),
};

pub(super) static ATTACHED: Family = Family {
    name: "linger_probe_attached",
    help: "Whether each BPF program is attached to its target in the kernel: 1, or 0 if someone has \
           detached it.",
    kind: Kind::Gauge,
    rule: Rule::Daemon(attached),
};

pub(super) static SKIPPED: Family = Family {
    name: "linger_probe_skipped_runs_total",
    help: "Runs of each BPF program that the kernel skipped, because that program (with kprobes, any) was \
           already running on the CPU: a thread was preempted or interrupted inside it. Other hooks make \
           up for most of them; see linger_lost_total for the rest.",
    kind: Kind::Counter,
    rule: Rule::Daemon(skipped),
};

pub(super) static LOST: Family = Family {
    name: "linger_lost_total",
    help: "What could not be recorded. what=\"group\": changes counted under other because their \
           group found no place, sums are still exact; \"close\": closes that are in no counter; \
           \"orphan\": orphans that are in no metric of orphans; \"return\": closes that are counted, \
           but whose time is in no histogram; \"event\": lines that lingerd watch missed, on which no \
           count depends. Anything but 0 deserves a look.",
    kind: Kind::Counter,
    rule: Rule::Daemon(lost),
};

pub(super) static ENTRIES: Family = Family {
    name: "linger_map_entries",
    help: "Entries in each BPF map. See linger_map_capacity for how many fit.",
    kind: Kind::Gauge,
    rule: Rule::Daemon(entries),
};

pub(super) static CAPACITY: Family = Family {
    name: "linger_map_capacity",
    help: "Entries that fit in each BPF map. What does not fit is counted in linger_lost_total.",
    kind: Kind::Gauge,
    rule: Rule::Daemon(capacity),
};

pub(super) static SCRAPE: Family = Family {
    name: "linger_scrape_duration_seconds",
    help: "Seconds that it took to read the counters for this scrape.",
    kind: Kind::Gauge,
    rule: Rule::Daemon(scrape),
};

fn build(_: &Exposition, series: &mut dyn Series) {
    series.count(&[("version", VERSION), ("revision", REVISION)], 1);
}

fn probe(exposition: &Exposition, series: &mut dyn Series) {
    let facts = &exposition.facts;
    let labels = [("plan", facts.plan.name()), ("kernel", &facts.kernel)];
    series.count(&labels, 1);
}

fn attached(exposition: &Exposition, series: &mut dyn Series) {
    let hooks = exposition.snapshot.hooks.iter();
    let mut hooks: Vec<_> = hooks
        .map(|(hook, is_attached)| (hook.program, hook.point.to_string(), *is_attached))
        .collect();
    hooks.sort();
    for (program, target, is_attached) in hooks {
        let labels = [("program", program), ("target", &target)];
        series.count(&labels, is_attached.into());
    }
}

fn skipped(exposition: &Exposition, series: &mut dyn Series) {
    let mut skipped = exposition.snapshot.skipped_runs.clone();
    skipped.sort_unstable();
    for (program, runs) in skipped {
        series.count(&[("program", program)], runs);
    }
}

fn lost(exposition: &Exposition, series: &mut dyn Series) {
    let lost = Lost::ALL.iter().zip(exposition.snapshot.lost);
    let mut lost: Vec<_> = lost.map(|(what, count)| (what.name(), count)).collect();
    lost.sort_unstable();
    for (what, count) in lost {
        series.count(&[("what", what)], count);
    }
}

fn lost_orphan_bytes(exposition: &Exposition, series: &mut dyn Series) {
    series.count(&[], exposition.snapshot.lost_orphan_bytes);
}

fn entries(exposition: &Exposition, series: &mut dyn Series) {
    map_fill(exposition, series, |fill| fill.entries);
}

fn capacity(exposition: &Exposition, series: &mut dyn Series) {
    map_fill(exposition, series, |fill| fill.capacity);
}

fn map_fill(exposition: &Exposition, series: &mut dyn Series, measure: fn(&MapFill) -> u64) {
    let mut maps: Vec<_> = exposition.snapshot.maps.iter().collect();
    maps.sort_by_key(|fill| fill.map);
    for fill in maps {
        series.count(&[("map", fill.map)], measure(fill));
    }
}

fn scrape(exposition: &Exposition, series: &mut dyn Series) {
    let ns = u64::try_from(exposition.reading.as_nanos()).unwrap_or(u64::MAX);
    series.sample(&[], Value::Nanoseconds(ns));
}
