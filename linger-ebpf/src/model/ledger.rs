//! The counters of each group, created on first use.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{BUCKETS, Counters, Group, Lost, QueueBytes, TimeHistogram, key_field};

use super::{
    exe, group,
    maps::{self, LEDGER, SHARED},
    path,
    shared::{copy_words, shared},
};

/// The value for the time of a close whose return is not seen.
pub(crate) const UNSEEN: u64 = u64::MAX;

/// The initial counters of a group.
static ZERO: Counters = Counters::ZERO;

/// The counters of a group, or those of [`Group::OTHER`] if the ledger is full; never `None`. The group must be
/// on the stack: before Linux 6.2 a map key must not lie in memory passed to a global function.
pub(crate) fn counters(group: &Group) -> Option<*mut Counters> {
    counters_or(group, || ())
}

/// [`counters`]; calls `refused` first if they are those of [`Group::OTHER`].
pub(crate) fn counters_or(group: &Group, refused: impl FnOnce()) -> Option<*mut Counters> {
    if let Some(counters) = LEDGER.get_ptr_mut(group) {
        return Some(counters);
    }
    let mut row = create_row(group);
    if row == OWN_ROW {
        if let Some(counters) = LEDGER.get_ptr_mut(group) {
            return Some(counters);
        }
        row = OTHER;
    }
    if row == OTHER {
        refused();
    }
    SHARED.get_ptr_mut(row)
}

/// Whether the counters of this group are not those of [`Group::OTHER`].
pub(crate) fn has_own(group: &Group) -> bool {
    [Group::RETIRED.cgroup_id, Group::NOBODY.cgroup_id].contains(&group.cgroup_id)
        || LEDGER.get_ptr_mut(group).is_some()
}

/// Returned instead of an index into [`Group::SHARED`] if the group has a row of its own.
const OWN_ROW: u32 = u32::MAX;

/// The index of [`Group::OTHER`] in [`Group::SHARED`].
const OTHER: u32 = 0;
const _: () = assert!(Group::SHARED[OTHER as usize].cgroup_id == Group::OTHER.cgroup_id);

/// Creates the row of a new group. Returns [`OWN_ROW`], or the index in [`Group::SHARED`] of the group to count for
/// instead.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_create_row")]
extern "C" fn create_row(group: *const Group) -> u32 {
    if group.is_null() {
        return OTHER;
    }
    // A key must be on the stack.
    let group = copy_words(shared!(group.cast_mut()));
    for (place, shared) in (0..).zip(&Group::SHARED) {
        if group.cgroup_id == shared.cgroup_id {
            return place;
        }
    }
    // If another CPU is first, this fails and the lookup below finds its entry.
    if LEDGER.insert(&group, &ZERO, u64::from(BPF_NOEXIST)).is_ok() {
        record_names(&group);
    } else if LEDGER.get_ptr_mut(&group).is_none() {
        maps::lose(Lost::Group);
        return OTHER;
    }
    OWN_ROW
}

/// Records what a new group's labels need beyond its key.
fn record_names(group: &Group) {
    if group::has_key_field(key_field::CGROUP) {
        path::record_cgroup_path(group.cgroup_id);
    }
    if group::has_key_field(key_field::EXE) {
        exe::record_current_path(group.exe_inode, group.exe_device.into());
    }
}

/// The counters of [`Group::NOBODY`].
pub(crate) fn counters_of_nobody() -> Option<*mut Counters> {
    SHARED.get_ptr_mut(NOBODY)
}

/// Its index in [`Group::SHARED`].
const NOBODY: u32 = 2;
const _: () = assert!(Group::SHARED[NOBODY as usize].cgroup_id == Group::NOBODY.cgroup_id);

/// Adds a time, by the bounds of its buckets.
pub(crate) fn add_time(times: *mut TimeHistogram, bounds_ns: &[u64; BUCKETS - 1], time_ns: u64) {
    add_times(times, bounds_ns, time_ns, 1);
}

/// Adds a time so often, wrapping: `u64::MAX` subtracts it once.
pub(crate) fn add_times(
    times: *mut TimeHistogram,
    bounds_ns: &[u64; BUCKETS - 1],
    time_ns: u64,
    count: u64,
) {
    let mut bucket = 0;
    while bucket < bounds_ns.len() && time_ns > bounds_ns[bucket] {
        bucket += 1;
    }
    // There is one bucket more than bounds.
    shared!(times, buckets[bucket]).add(count);
    shared!(times, sum_ns).add(time_ns.wrapping_mul(count));
}

/// Adds discarded payload.
pub(crate) fn add_discarded(sum: *mut QueueBytes, discarded: QueueBytes) {
    if discarded.unsent > 0 {
        shared!(sum, unsent).add(discarded.unsent);
    }
    if discarded.unacked > 0 {
        shared!(sum, unacked).add(discarded.unacked);
    }
}
