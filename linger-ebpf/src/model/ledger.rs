//! The counters of each group, created on first use.
//!
//! Most groups have a slot, found by a hash of the group and without locks, and their counters in the row of that slot.
//! A group whose slot is another's has its counters in the hash map. Two CPUs that create a group at the same time may
//! create it in both: the daemon adds them up.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{
    BUCKETS, Counters, Group, GroupSlot, Lost, QueueBytes, TimeHistogram, key_field,
};

use super::{
    exe, group,
    maps::{self, GROUP_SLOTS, LEDGER, ROWS},
    path,
    shared::{copy_words, shared, write_words},
};

/// The value for the time of a close whose return is not seen.
pub(crate) const UNSEEN: u64 = u64::MAX;

/// The initial counters of a group.
static ZERO: Counters = Counters::ZERO;

/// The counters of a group, or those of [`Group::OTHER`] if the ledger is full; never `None`.
pub(crate) fn counters(group: &Group) -> Option<*mut Counters> {
    counters_or(group, || ())
}

/// [`counters`]; calls `refused` first if they are those of [`Group::OTHER`].
pub(crate) fn counters_or(group: &Group, refused: impl FnOnce()) -> Option<*mut Counters> {
    if let Some(row) = row(group) {
        return ROWS.get_ptr_mut(row);
    }
    crowded_or_new(group).or_else(|| {
        refused();
        ROWS.get_ptr_mut(OTHER)
    })
}

/// The counters of a group that has no slot, or had none yet; `None` if they are those of [`Group::OTHER`].
#[inline(never)]
fn crowded_or_new(group: &Group) -> Option<*mut Counters> {
    // On the stack: before Linux 6.2 a map key must not lie in memory passed to a global function.
    let group = &copy_words(shared!(core::ptr::from_ref(group).cast_mut()));
    if let Some(counters) = LEDGER.get_ptr_mut(group) {
        return Some(counters);
    }
    for (row, shared) in (0..).zip(&Group::SHARED) {
        if group.cgroup_id == shared.cgroup_id {
            return if row == OTHER {
                None
            } else {
                ROWS.get_ptr_mut(row)
            };
        }
    }
    if let Some(row) = claim_slot(group) {
        record_names(group);
        return ROWS.get_ptr_mut(row);
    }
    // If another CPU is first, this fails and the lookup finds its entry.
    if LEDGER.insert(group, &ZERO, u64::from(BPF_NOEXIST)).is_ok() {
        record_names(group);
    }
    let counters = LEDGER.get_ptr_mut(group);
    if counters.is_none() {
        maps::lose(Lost::Group);
    }
    counters
}

/// Whether the counters of this group are not those of [`Group::OTHER`]. The group must be on the stack, as a map key.
pub(crate) fn has_own(group: &Group) -> bool {
    [Group::RETIRED.cgroup_id, Group::NOBODY.cgroup_id].contains(&group.cgroup_id)
        || row(group).is_some()
        || LEDGER.get_ptr_mut(group).is_some()
}

/// The row of a group that has a slot.
fn row(group: &Group) -> Option<u32> {
    let hash = hash(group);
    let row = GroupSlot::row(hash);
    let slot = GROUP_SLOTS.get_ptr_mut(row)?;
    // Its group may be read before the stage, and be half that of an earlier one: the hash of that would be another.
    if shared!(slot, stage).get() != hash {
        return None;
    }
    // SAFETY: a field of a map value.
    let taken = unsafe { &raw const (*slot).group };
    let is_same = |place| word(taken, place) == word(group, place);
    let is_in = is_same(0) && is_same(1) && is_same(2);
    (is_in && (!is_long() || is_same(3) && is_same(4))).then_some(row)
}

/// The [`GroupSlot::hash`] of a group.
fn hash(group: &Group) -> u64 {
    let mut words = word(group, 0) ^ word(group, 1) ^ word(group, 2);
    if is_long() {
        words ^= word(group, 3) ^ word(group, 4);
    }
    GroupSlot::hash(words)
}

/// Whether fields are in use behind the first three words of groups.
fn is_long() -> bool {
    group::has_key_field(key_field::EXE | key_field::PORT | key_field::FAMILY)
}

/// A word of a group.
fn word(group: *const Group, place: usize) -> u64 {
    // SAFETY: within the group; volatile because others may write to a slot, and so that a group on the stack is read
    // again rather than kept in registers.
    unsafe { group.cast::<u64>().add(place).read_volatile() }
}

const _: () = assert!(size_of::<Group>() == 5 * size_of::<u64>());

/// The index of [`Group::OTHER`] in [`Group::SHARED`].
const OTHER: u32 = 0;
const _: () = assert!(Group::SHARED[OTHER as usize].cgroup_id == Group::OTHER.cgroup_id);

/// Takes the slot of a group, if it is free. Returns its row.
fn claim_slot(group: &Group) -> Option<u32> {
    let hash = hash(group);
    let row = GroupSlot::row(hash);
    let slot = GROUP_SLOTS.get_ptr_mut(row)?;
    if !shared!(slot, stage).replace(GroupSlot::FREE, GroupSlot::CLAIMED) {
        return None;
    }
    write_words(group, shared!(slot, group));
    shared!(slot, stage).swap(hash);
    Some(row)
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
    ROWS.get_ptr_mut(NOBODY)
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
