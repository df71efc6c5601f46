//! The counters of each group: found, or made when it counts for the first time.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{BUCKETS, Counters, Group, Lost, QueueBytes, Times, keyed};

use super::{
    exe, group,
    maps::{self, LEDGER, SHARED},
    path,
    shared::shared,
};

/// The time of a close whose return is not seen.
pub(crate) const UNSEEN: u64 = u64::MAX;

/// What a new group starts from.
static ZERO: Counters = Counters::ZERO;

/// The counters of a group; another's if there is no place. None never happens. The group is on the stack: before
/// Linux 6.2 no key of a map may stand in what a global function is lent.
pub(crate) fn counters(group: &Group) -> Option<*mut Counters> {
    if let Some(counters) = LEDGER.get_ptr_mut(group) {
        return Some(counters);
    }
    let counters = new(group);
    (!counters.is_null()).then_some(counters)
}

/// The counters of a group that counts for the first time, or has none of its own.
#[inline(never)]
fn new(group: &Group) -> *mut Counters {
    for (place, shared) in (0..).zip(&Group::SHARED) {
        if group.cgroup_id == shared.cgroup_id {
            return self::shared(place);
        }
    }
    // Another CPU may make them first: then this fails and the look finds them.
    if LEDGER.insert(group, &ZERO, u64::from(BPF_NOEXIST)).is_ok() {
        learn(group);
    }
    if let Some(counters) = LEDGER.get_ptr_mut(group) {
        return counters;
    }
    maps::lose(Lost::Group);
    shared(0)
}

/// Writes down what is known of a new group beyond its key.
fn learn(group: &Group) {
    if group::is_keyed(keyed::CGROUP) {
        path::learn_cgroup(group.cgroup_id);
    }
    if group::is_keyed(keyed::EXE) {
        exe::learn_current(group.exe_inode, group.exe_device.into());
    }
}

/// The counters of one of [`Group::SHARED`].
fn shared(place: u32) -> *mut Counters {
    SHARED.get_ptr_mut(place).unwrap_or(core::ptr::null_mut())
}

/// The counters of [`Group::NOBODY`].
pub(crate) fn nobodys() -> Option<*mut Counters> {
    SHARED.get_ptr_mut(NOBODY)
}

/// Its place in [`Group::SHARED`].
const NOBODY: u32 = 2;
const _: () = assert!(Group::SHARED[NOBODY as usize].cgroup_id == Group::NOBODY.cgroup_id);

/// Adds a time, by the bounds of its buckets.
pub(crate) fn add_time(times: *mut Times, bounds_ns: &[u64; BUCKETS - 1], time_ns: u64) {
    let mut bucket = 0;
    while bucket < bounds_ns.len() && time_ns > bounds_ns[bucket] {
        bucket += 1;
    }
    // There is one bucket more than bounds.
    shared!(times, buckets[bucket]).add(1);
    shared!(times, sum_ns).add(time_ns);
}

/// Adds payload that was thrown away.
pub(crate) fn add_discarded(sum: *mut QueueBytes, discarded: QueueBytes) {
    if discarded.unsent > 0 {
        shared!(sum, unsent).add(discarded.unsent);
    }
    if discarded.unacked > 0 {
        shared!(sum, unacked).add(discarded.unacked);
    }
}
