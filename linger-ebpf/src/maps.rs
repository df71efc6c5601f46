//! The maps, their sizes and why.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{HashMap, PerCpuArray, PerCpuHashMap},
};
use linger_ebpf::{Close, Counters, Group, Lost, MAX_CLOSES, MAX_GROUPS};

use crate::atomic;

/// All counters of all groups, the ledger. Memory is allocated as groups appear: a group costs
/// `size_of::<Counters>()` on every CPU.
#[map]
pub(crate) static GROUPS: PerCpuHashMap<Group, Counters> =
    PerCpuHashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// What groups did that found no place in the ledger.
#[map]
pub(crate) static OTHER: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// Closes in flight: as many threads as may be inside close at the same time. Allocated at load,
/// so that a close never waits for memory.
#[map]
pub(crate) static CLOSES: HashMap<u64, Close> = HashMap::with_max_entries(MAX_CLOSES, 0);

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
