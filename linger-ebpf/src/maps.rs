//! The maps, their sizes and why.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use linger_ebpf::{
    Close, Counters, Group, HINTS, Lost, MAX_CLOSES, MAX_GROUPS, MAX_ORPHANS, Orphan, Parked, Slot,
    hint,
};

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

/// Orphans, by address of their socket. The daemon sets how many there may be.
#[map]
pub(crate) static ORPHANS: HashMap<u64, Orphan> =
    HashMap::with_max_entries(MAX_ORPHANS, BPF_F_NO_PREALLOC);

/// How many records in `ORPHANS` and `PARKED` have each hint, so that the end of any other socket
/// takes a look here and no more. The daemon, too, removes records.
#[map]
static SOCKETS: Array<u64> = Array::with_max_entries(HINTS, BPF_F_MMAPABLE);

/// Payload of orphans that found no place.
#[map]
static LOST_ORPHAN_BYTES: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

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

/// Counts an orphan that found no place.
pub(crate) fn lose_orphan(bytes: u32) {
    lose(Lost::Orphan);
    if let Some(count) = LOST_ORPHAN_BYTES.get_ptr_mut(0) {
        atomic::add(count, bytes.into());
    }
}

/// Whether there may be a record of this socket in `ORPHANS` or `PARKED`.
#[inline(always)]
pub(crate) fn is_hinted(sk: u64) -> bool {
    // SAFETY: a map value; volatile because others write to it.
    SOCKETS
        .get_ptr(hint(sk))
        .is_some_and(|count| unsafe { core::ptr::read_volatile(count) } > 0)
}

/// Adds to the records that have the hint of this socket; the largest number takes one away.
#[inline(always)]
pub(crate) fn add_hint(sk: u64, change: u64) {
    if let Some(count) = SOCKETS.get_ptr_mut(hint(sk)) {
        atomic::add(count, change);
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
