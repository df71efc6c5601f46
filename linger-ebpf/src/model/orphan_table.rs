//! Storage for the records of orphans, by address of their socket.
//!
//! Most records are in slots, found by one load, without hashing or locks. A record whose slot is taken goes to
//! the map of crowded orphans.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{Orphan, OrphanSlot, hint, orphan_stage::FREE};

use super::{
    maps::{self, EEXIST, ORPHAN_SLOTS, ORPHANS},
    shared::shared,
};

/// The slot of a socket. If the daemon limits orphans to few, there is none.
fn slot(key: u64) -> Option<*mut OrphanSlot> {
    ORPHAN_SLOTS.get_ptr_mut(OrphanSlot::index(hint(maps::lower_half(key))))
}

/// Whether the record of this socket is in its slot.
fn is_in(slot: *mut OrphanSlot, key: u64) -> bool {
    shared!(slot, orphan.sk).get() == key
}

/// Adds to the number of crowded orphans of a socket's slot, wrapping: `u64::MAX` subtracts one.
fn crowd(key: u64, change: u64) {
    if let Some(slot) = slot(key) {
        shared!(slot, crowded).add(change);
    }
}

/// The record of a socket.
pub(crate) fn find(key: u64) -> Option<*mut Orphan> {
    find_from(slot(key), key)
}

/// The record of a socket with this slot.
fn find_from(slot: Option<*mut OrphanSlot>, key: u64) -> Option<*mut Orphan> {
    if let Some(slot) = slot {
        if is_in(slot, key) {
            // SAFETY: a field of a map value.
            return Some(unsafe { &raw mut (*slot).orphan });
        }
        if shared!(slot, crowded).get() == 0 {
            return None;
        }
    }
    ORPHANS.get_ptr_mut(key)
}

/// Stores the record of a socket, with this `stage`. Returns 0, [`EEXIST`] if the socket has one, or another error if
/// there is no room. `record` returns the record: a closure, so that the compiler builds it in its slot instead of copying
/// it there.
pub(crate) fn insert(key: u64, stage: u64, record: impl Fn() -> Orphan) -> i32 {
    let slot = slot(key);
    if find_from(slot, key).is_some() {
        return EEXIST;
    }
    if let Some(slot) = slot
        && shared!(slot, orphan.stage).replace(FREE, stage)
    {
        // SAFETY: a field of a map value. Others read its stage, which stays the same, and its socket; only who holds the
        // socket's lock, as the caller does, changes a record at this stage.
        unsafe { (*slot).orphan = record() };
    } else if let Err(why) = ORPHANS.insert(key, record(), u64::from(BPF_NOEXIST)) {
        return why;
    } else {
        crowd(key, 1);
    }
    maps::add_hint(key, 1);
    0
}

/// Removes the record of a socket. Returns 0, [`ENOENT`](maps::ENOENT) if there is none, or another error if the kernel
/// cannot take the lock of the map of crowded orphans.
pub(crate) fn remove(key: u64) -> i32 {
    if let Some(slot) = slot(key)
        && is_in(slot, key)
    {
        // In this order, so that the next record never has the previous socket.
        shared!(slot, orphan.sk).set(0);
        shared!(slot, orphan.stage).swap(FREE);
        maps::add_hint(key, u64::MAX);
        return 0;
    }
    remove_crowded(key)
}

/// [`remove`] for a record that is not in a slot.
pub(crate) fn remove_crowded(key: u64) -> i32 {
    match ORPHANS.remove(key) {
        Ok(()) => {
            crowd(key, u64::MAX);
            maps::add_hint(key, u64::MAX);
            0
        }
        Err(why) => why,
    }
}
