//! Adding up.

use linger_ebpf::{Closes, Counters, Ends, Fate, Kind, Orphans, QueueBytes, Row};

/// Adds a row to another of its kind. Those of one CPU may stand below zero, when a close was counted
/// anew on another.
pub(super) fn add_row(sum: &mut Row, more: &Row) {
    add_all(&mut sum.buckets, &more.buckets);
    add_queue(&mut sum.discarded, more.discarded);
    add_all(
        [
            &mut sum.time_ns,
            &mut sum.undated,
            &mut sum.unread_bytes,
            &mut sum.resets,
            &mut sum.left,
            &mut sum.orphan_bytes,
        ],
        &[
            more.time_ns,
            more.undated,
            more.unread_bytes,
            more.resets,
            more.left,
            more.orphan_bytes,
        ],
    );
}

/// Adds a row to the counters of a group.
pub(super) fn add_kind(sum: &mut Counters, kind: Kind, row: &Row) {
    match kind {
        Kind::Closes(outcome) => {
            add_closes(
                &mut sum.closes[outcome.index()],
                &Closes {
                    blocked_ns: row.time_ns,
                    buckets: row.buckets,
                    undated: row.undated,
                    discarded: row.discarded,
                },
            );
            if let Some(cause) = outcome.cause() {
                add_all([&mut sum.resets[cause.index()]], &[row.resets]);
            }
            let orphans = &mut sum.orphans;
            add_all(
                [&mut orphans.left, &mut orphans.left_bytes],
                &[row.left, row.orphan_bytes],
            );
        }
        Kind::Ends(fate) => add_end(&mut sum.orphans, fate, row),
        Kind::GivenUp => add_end(&mut sum.orphans, Fate::Unknown, row),
        Kind::Resets(cause) => add_all([&mut sum.resets[cause.index()]], &[row.resets]),
    }
    add_all([&mut sum.unread_bytes], &[row.unread_bytes]);
}

fn add_end(orphans: &mut Orphans, fate: Fate, row: &Row) {
    add_ends(
        &mut orphans.ends[fate.index()],
        &Ends {
            lived_ns: row.time_ns,
            buckets: row.buckets,
            discarded: row.discarded,
        },
    );
    add_all([&mut orphans.delivered_bytes], &[row.orphan_bytes]);
}

/// Adds all counters of a group to another's.
pub(super) fn add(sum: &mut Counters, more: &Counters) {
    for (sum, more) in sum.closes.iter_mut().zip(&more.closes) {
        add_closes(sum, more);
    }
    add_all(&mut sum.resets, &more.resets);
    add_all([&mut sum.unread_bytes], &[more.unread_bytes]);
    add_orphans(&mut sum.orphans, &more.orphans);
}

fn add_orphans(sum: &mut Orphans, more: &Orphans) {
    add_all(
        [&mut sum.left, &mut sum.left_bytes, &mut sum.delivered_bytes],
        &[more.left, more.left_bytes, more.delivered_bytes],
    );
    for (sum, more) in sum.ends.iter_mut().zip(&more.ends) {
        add_ends(sum, more);
    }
}

fn add_closes(sum: &mut Closes, more: &Closes) {
    add_all(&mut sum.buckets, &more.buckets);
    add_queue(&mut sum.discarded, more.discarded);
    add_all(
        [&mut sum.blocked_ns, &mut sum.undated],
        &[more.blocked_ns, more.undated],
    );
}

fn add_ends(sum: &mut Ends, more: &Ends) {
    add_all(&mut sum.buckets, &more.buckets);
    add_queue(&mut sum.discarded, more.discarded);
    add_all([&mut sum.lived_ns], &[more.lived_ns]);
}

fn add_queue(sum: &mut QueueBytes, more: QueueBytes) {
    add_all(
        [&mut sum.unsent, &mut sum.unacked],
        &[more.unsent, more.unacked],
    );
}

fn add_all<'a>(sums: impl IntoIterator<Item = &'a mut u64>, more: &[u64]) {
    for (sum, more) in sums.into_iter().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}
