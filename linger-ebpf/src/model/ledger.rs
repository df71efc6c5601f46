//! The rows of the ledger: found, or made when something happens for the first time.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{BUCKET_BOUNDS_NS, Group, Lost, QueueBytes, ROWS, Row, RowKey, keyed};

use super::{
    exe,
    maps::{self, EEXIST, GROUPS, LEDGER, SHARED},
    path,
    shared::shared,
    who,
};

/// The time of a close whose return is not seen.
pub(crate) const UNSEEN: u64 = u64::MAX;

/// What a new row starts from.
static ZERO: Row = Row::ZERO;

/// The row of a group for what has this index of a [`linger_ebpf::Kind`]; another's if there is no
/// place. None only if there is no such kind.
#[inline(always)]
pub(crate) fn row(group: &Group, kind: usize) -> Option<*mut Row> {
    let key = RowKey {
        group: *group,
        row: kind as u64,
    };
    if let Some(row) = LEDGER.get_ptr_mut(&key) {
        return Some(row);
    }
    let row = new_row(&key);
    (!row.is_null()).then_some(row)
}

/// What happens for the first time, or to those that have no group of their own.
#[inline(never)]
fn new_row(key: &RowKey) -> *mut Row {
    for (place, shared) in Group::SHARED.iter().enumerate() {
        if key.group.cgroup_id == shared.cgroup_id {
            return shared_row(place, key.row);
        }
    }
    let admission = admission(&key.group);
    if admission == Admission::New {
        learn(&key.group);
    }
    if admission != Admission::Refused {
        // Another CPU may make it first: then this fails and the look finds it.
        let _ = LEDGER.insert(key, &ZERO, u64::from(BPF_NOEXIST));
        if let Some(row) = LEDGER.get_ptr_mut(key) {
            return row;
        }
    }
    maps::lose(Lost::Group);
    shared_row(0, key.row)
}

/// Writes down what is known of a new group beyond its key.
#[inline(always)]
fn learn(group: &Group) {
    if who::is_keyed(keyed::CGROUP) {
        path::learn_cgroup(group.cgroup_id);
    }
    if who::is_keyed(keyed::EXE) {
        exe::learn_current(group.exe_inode, group.exe_device.into());
    }
}

/// The row of one of [`Group::SHARED`].
#[inline(always)]
fn shared_row(place: usize, row: u64) -> *mut Row {
    #[expect(clippy::cast_possible_truncation, reason = "a few dozen")]
    let index = (place * ROWS) as u32 + row as u32;
    SHARED.get_ptr_mut(index).unwrap_or(core::ptr::null_mut())
}

#[derive(PartialEq, Eq)]
enum Admission {
    Refused,
    Known,
    New,
}

/// Whether a group has a place; a new one takes it, if there is one.
#[inline(always)]
fn admission(group: &Group) -> Admission {
    if GROUPS.get_ptr(group).is_some() {
        return Admission::Known;
    }
    match GROUPS.insert(group, 0, u64::from(BPF_NOEXIST)) {
        Ok(()) => Admission::New,
        // Another CPU was first.
        Err(EEXIST) => Admission::Known,
        Err(_) => Admission::Refused,
    }
}

/// Adds a time to a histogram and to the sum of times.
#[inline(always)]
pub(crate) fn add_time(row: *mut Row, time_ns: u64) {
    let mut bucket = 0;
    while bucket < BUCKET_BOUNDS_NS.len() && time_ns > BUCKET_BOUNDS_NS[bucket] {
        bucket += 1;
    }
    // There is one bucket more than bounds.
    shared!(row, buckets[bucket]).add(1);
    shared!(row, time_ns).add(time_ns);
}

/// Adds payload that was thrown away.
#[inline(always)]
pub(crate) fn add_discarded(row: *mut Row, discarded: QueueBytes) {
    if discarded.unsent > 0 {
        shared!(row, discarded.unsent).add(discarded.unsent);
    }
    if discarded.unacked > 0 {
        shared!(row, discarded.unacked).add(discarded.unacked);
    }
}
