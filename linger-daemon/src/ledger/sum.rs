//! Adding up.

use linger_ebpf::{Counters, Orphans, QueueBytes, Times};

/// What the copies on all CPUs add up to.
pub(super) fn sum(copies: &[Counters]) -> Counters {
    let mut sum = Counters::ZERO;
    for copy in copies {
        add(&mut sum, copy);
    }
    sum
}

/// Adds counters to others. Those of one CPU may stand below zero, when a close was counted anew on another.
pub(super) fn add(sum: &mut Counters, more: &Counters) {
    add_all(&mut sum.closes, &more.closes);
    for (sum, more) in sum.blocked.iter_mut().zip(&more.blocked) {
        add_times(sum, more);
    }
    add_queues(&mut sum.discarded, &more.discarded);
    add_all(&mut sum.resets, &more.resets);
    add_all([&mut sum.unread_bytes], &[more.unread_bytes]);
    add_orphans(&mut sum.orphans, &more.orphans);
}

fn add_orphans(sum: &mut Orphans, more: &Orphans) {
    add_all(&mut sum.ends, &more.ends);
    add_queues(&mut sum.discarded, &more.discarded);
    add_times(&mut sum.lived, &more.lived);
    add_all(
        [&mut sum.delivered_bytes, &mut sum.left_bytes, &mut sum.left],
        &[more.delivered_bytes, more.left_bytes, more.left],
    );
}

/// Adds times to others.
fn add_times(sum: &mut Times, more: &Times) {
    add_all([&mut sum.sum_ns], &[more.sum_ns]);
    add_all(&mut sum.buckets, &more.buckets);
}

fn add_queues(sums: &mut [QueueBytes], more: &[QueueBytes]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        add_all(
            [&mut sum.unsent, &mut sum.unacked],
            &[more.unsent, more.unacked],
        );
    }
}

/// Adds each to its own.
fn add_all<'a>(sums: impl IntoIterator<Item = &'a mut u64>, more: &[u64]) {
    for (sum, more) in sums.into_iter().zip(more) {
        *sum = sum.wrapping_add(*more);
    }
}
