//! The metrics of the groups: the contract, each with its words, and how it follows from counters.
//!
//! A series of a group begins with the first thing it counts; there are no series of things that
//! never happened. Bytes discarded are the exception: an outcome that can discard shows that it
//! discarded nothing; and fates: with the first orphan of a group, all of them begin.

use linger_ebpf::{Orphans, WAITED};

use super::family::{Bounds, Family, Kind, Rule, Series};
use super::group_counts::GroupCounts;

pub(super) static CLOSES: Family = Family {
    name: "linger_closes_total",
    help: "Closes of TCP sockets by outcome. A close is the final release of a socket, by whoever \
           holds it last; each is counted once. Outcomes ending in _aborted gave up the \
           connection instead of finishing it; linger_timeout and linger_interrupted returned \
           success with data still unacknowledged.",
    kind: Kind::Counter,
    rule: Rule::Group(closes),
};

pub(super) static BLOCKED: Family = Family {
    name: "linger_close_blocked_seconds",
    help: "Seconds that the closing thread spent in close, from entry to return, including the wait \
           for the socket's lock. waited=\"true\": closes that waited under SO_LINGER. Closes whose \
           time is unknown are missing here, but counted in linger_closes_total.",
    kind: Kind::Histogram(Bounds::Blocked),
    rule: Rule::Group(blocked),
};

pub(super) static DISCARDED: Family = Family {
    name: "linger_discarded_bytes_total",
    help: "Bytes of payload in the send queue that were discarded, by the outcome of the close that \
           did it, or by the fate of the orphan that a close had left. queue=\"unsent\" never left \
           this host; queue=\"unacked\" was sent, and may or may not have reached the peer.",
    kind: Kind::Counter,
    rule: Rule::Group(discarded),
};

pub(super) static UNREAD: Family = Family {
    name: "linger_unread_bytes_total",
    help: "Bytes of payload that arrived, were acknowledged to the peer, and were discarded by a \
           close because no one had read them.",
    kind: Kind::Counter,
    rule: Rule::Group(unread),
};

pub(super) static RESETS: Family = Family {
    name: "linger_resets_sent_total",
    help: "RSTs that this host sent, by cause. late_data answered data for a connection that a close \
           had ended, and counts for who closed; no_socket and refused answered any other packet, and \
           count for a group with empty labels; all other causes count for who closed or acted.",
    kind: Kind::Counter,
    rule: Rule::Group(resets),
};

pub(super) static ORPHANS_ACTIVE: Family = Family {
    name: "linger_orphans_active",
    help: "Orphans still under way: sockets whose close returned while payload was unsent or \
           unacknowledged, and which have not ended yet.",
    kind: Kind::Gauge,
    rule: Rule::Group(orphans_active),
};

pub(super) static ORPHANS_TOTAL: Family = Family {
    name: "linger_orphans_total",
    help: "Orphans that ended, by fate. All but \"delivered\" lost payload that their program \
           believes sent.",
    kind: Kind::Counter,
    rule: Rule::Group(orphans_ended),
};

pub(super) static ORPHANED_BYTES: Family = Family {
    name: "linger_orphaned_bytes_total",
    help: "Bytes of payload that were unsent or unacknowledged when their close returned. They are \
           delivered, discarded, or still under way.",
    kind: Kind::Counter,
    rule: Rule::Group(orphaned_bytes),
};

pub(super) static DELIVERED_BYTES: Family = Family {
    name: "linger_orphan_delivered_bytes_total",
    help: "Bytes of linger_orphaned_bytes_total that the peer acknowledged, counted when their \
           orphan ends.",
    kind: Kind::Counter,
    rule: Rule::Group(delivered_bytes),
};

pub(super) static ORPHAN_DURATION: Family = Family {
    name: "linger_orphan_duration_seconds",
    help: "Seconds from the return of the close to the end of its orphan.",
    kind: Kind::Histogram(Bounds::Lived),
    rule: Rule::Group(orphan_duration),
};

fn closes(counted: &GroupCounts, series: &mut dyn Series) {
    for (outcome, closes) in counted.outcomes() {
        series.count(&[("outcome", outcome.name())], closes);
    }
}

fn blocked(counted: &GroupCounts, series: &mut dyn Series) {
    for (waited, times) in WAITED.into_iter().zip(counted.blocked()) {
        if let Some(times) = times {
            series.histogram(&[("waited", waited)], times);
        }
    }
}

fn discarded(counted: &GroupCounts, series: &mut dyn Series) {
    for (cause, bytes) in counted.losses() {
        for (queue, bytes) in [("unacked", bytes.unacked), ("unsent", bytes.unsent)] {
            series.count(&[("cause", cause), ("queue", queue)], bytes);
        }
    }
}

fn unread(counted: &GroupCounts, series: &mut dyn Series) {
    if counted.unread_bytes() > 0 {
        series.count(&[], counted.unread_bytes());
    }
}

fn resets(counted: &GroupCounts, series: &mut dyn Series) {
    for (cause, resets) in counted.resets() {
        series.count(&[("cause", cause.name())], resets);
    }
}

/// A series of a group that ever had an orphan.
fn of_orphans(counted: &GroupCounts, series: &mut dyn Series, count: fn(&Orphans) -> u64) {
    if let Some(orphans) = counted.orphans() {
        series.count(&[], count(orphans));
    }
}

fn orphans_active(counted: &GroupCounts, series: &mut dyn Series) {
    of_orphans(counted, series, Orphans::under_way);
}

fn orphaned_bytes(counted: &GroupCounts, series: &mut dyn Series) {
    of_orphans(counted, series, Orphans::total_bytes);
}

fn delivered_bytes(counted: &GroupCounts, series: &mut dyn Series) {
    of_orphans(counted, series, |orphans| orphans.delivered_bytes);
}

fn orphans_ended(counted: &GroupCounts, series: &mut dyn Series) {
    for (fate, ends) in counted.fates() {
        series.count(&[("fate", fate.name())], ends);
    }
}

fn orphan_duration(counted: &GroupCounts, series: &mut dyn Series) {
    if let Some(times) = counted.lived() {
        series.histogram(&[], times);
    }
}
