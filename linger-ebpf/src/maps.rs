//! The maps, their sizes and why.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use linger_ebpf::{Close, Counters, Group, Lost, MAX_CLOSES, MAX_GROUPS, Parked, Slot};

use crate::atomic;

/// All counters of all groups, the ledger. Memory is allocated as groups appear: a group costs
/// `size_of::<Counters>()` on every CPU.
#[map]
pub(crate) static GROUPS: PerCpuHashMap<Group, Counters> =
    PerCpuHashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// What groups did that found no place in the ledger.
#[map]
pub(crate) static OTHER: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Closes in flight, each in the slot of its thread: found by one load, without hashing or locks.
/// The daemon maps it to see which are taken.
#[map]
pub(crate) static CLOSES: Array<Slot> = Array::with_max_entries(MAX_CLOSES, BPF_F_MMAPABLE);

/// Closes in flight whose slot another thread has taken, by thread id.
#[map]
pub(crate) static CROWDED: HashMap<u32, Close> =
    HashMap::with_max_entries(MAX_CLOSES, BPF_F_NO_PREALLOC);

/// Closes that wait and whose return no one sees, by address of their socket.
#[map]
pub(crate) static PARKED: HashMap<u64, Parked> =
    HashMap::with_max_entries(MAX_CLOSES, BPF_F_NO_PREALLOC);

/// What could not be recorded, by [`Lost`].
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES, 0);

#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const LOSSES: u32 = Lost::COUNT as u32;

/// What a new group starts from; too large for the stack.
static ZERO: Counters = Counters::ZERO;

/// Counts one loss.
pub(crate) fn lose(what: Lost) {
    if let Some(count) = LOST.get_ptr_mut(what as u32) {
        atomic::add(count, 1);
    }
}

/// The counters of a group on this CPU, made if need be; those of `OTHER` if there is no place.
#[inline(always)]
pub(crate) fn counters(group: &Group) -> Option<*mut Counters> {
    if let Some(counters) = GROUPS.get_ptr_mut(group) {
        return Some(counters);
    }
    // Another CPU may make it first: then this fails and the second look finds it.
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "by value it would be copied to the stack, where it does not fit"
    )]
    let _ = GROUPS.insert(group, &ZERO, u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    GROUPS.get_ptr_mut(group).or_else(|| {
        lose(Lost::Group);
        OTHER.get_ptr_mut(0)
    })
}
