//! Storage for the records of closes in flight.
//!
//! Only the closing thread, and interrupts on it, work on a record. A record under a socket's address
//! belongs to the end of the socket.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{Close, Outcome, ParkedClose, Slot, stage};

use super::{
    group,
    maps::{self, CLOSES, CROWDED, PARKED},
    shared::{copy_words, shared},
};
use crate::kernel::current_tid;

/// Access to the record of a thread, whether there is one or not.
pub(crate) struct ThreadSlot {
    tid: u32,
    slot: *mut Slot,
}

impl ThreadSlot {
    /// The slot of the current thread.
    pub(crate) fn current() -> Option<Self> {
        let tid = current_tid();
        let slot = CLOSES.get_ptr_mut(Slot::index(tid))?;
        Some(Self { tid, slot })
    }

    /// Whether the slot is this thread's.
    fn is_slot_own(&self) -> bool {
        shared!(self.slot, owner).get() == Slot::owner(self.tid)
    }

    /// The record of this thread.
    pub(crate) fn record(&self) -> Option<&'static mut Close> {
        let close = if self.is_slot_own() {
            // SAFETY: a field of a map value.
            unsafe { &raw mut (*self.slot).close }
        } else {
            if shared!(self.slot, crowded).get() == 0 {
                return None;
            }
            CROWDED.get_ptr_mut(self.tid)?
        };
        // SAFETY: only this thread uses it; the reference does not outlive the program.
        Some(unsafe { &mut *close })
    }

    /// The record of this thread, if it is for this socket.
    pub(crate) fn find(&self, sk: u64) -> Option<&'static mut Close> {
        self.record().filter(|close| close.sk == sk)
    }

    /// Makes the record of a close of this thread, which must have none. Returns `None` if there is no room.
    pub(crate) fn insert(&self, sk: u64, start_ns: u64) -> Option<&'static mut Close> {
        if shared!(self.slot, owner).replace(0, Slot::owner(self.tid)) {
            // SAFETY: a field of a map value, which this thread owns until it clears the slot.
            let close = unsafe { &mut (*self.slot).close };
            begin(close, sk, start_ns);
            return Some(close);
        }
        CROWDED
            .insert(self.tid, &Close::ZERO, u64::from(BPF_NOEXIST))
            .ok()?;
        self.crowd(1);
        let close = self.record()?;
        begin(close, sk, start_ns);
        Some(close)
    }

    /// Drops the record of this thread.
    pub(crate) fn clear(&self) {
        if self.is_slot_own() {
            // In this order, so that the next owner never finds the previous socket.
            shared!(self.slot, close.sk).set(0);
            shared!(self.slot, owner).set(0);
        } else if CROWDED.remove(self.tid).is_ok() {
            self.crowd(u32::MAX);
        }
    }

    /// Drops the record of this thread, whose close is counted, but not over: [`ThreadSlot::counted`] finds it until the
    /// slot is used again.
    pub(crate) fn clear_counted(&self) {
        if self.is_slot_own() {
            let sk = shared!(self.slot, close.sk);
            // In this order, as above. No socket has this address.
            sk.set(!sk.get());
            shared!(self.slot, owner).set(0);
        } else {
            self.clear();
        }
    }

    /// The close of this thread that was [cleared](ThreadSlot::clear_counted) for this socket. `None` if its record was
    /// crowded, or another thread has used the slot since.
    pub(crate) fn counted(&self, sk: u64) -> Option<Close> {
        let close = copy_words(shared!(self.slot, close));
        let is_unused = shared!(self.slot, owner).get() == 0;
        (is_unused && shared!(self.slot, close.sk).get() == !sk).then_some(close)
    }

    /// Adds to the number of crowded closes, wrapping: `u32::MAX` subtracts one.
    fn crowd(&self, change: u32) {
        shared!(self.slot, crowded).add(change);
    }

    /// Notes that the record of this thread's close found no room. Several programs may do so.
    pub(crate) fn note_unrecorded(&self) {
        shared!(self.slot, unrecorded).set(self.tid);
    }

    /// Returns and clears that note.
    pub(crate) fn take_unrecorded(&self) -> bool {
        let unrecorded = shared!(self.slot, unrecorded);
        // The idle thread, whose id is 0, closes nothing.
        let is_own = self.tid != 0 && unrecorded.get() == self.tid;
        if is_own {
            unrecorded.set(0);
        }
        is_own
    }
}

/// Writes the fields known at the beginning over those of an earlier close. Fields that only become valid later keep
/// their old values.
///
/// One by one, because the compiler would turn a whole assignment, or a longer run of zeros, into a loop over bytes. The
/// volatile write of the port parts the zeros before it from those behind it.
fn begin(close: &mut Close, sk: u64, start_ns: u64) {
    close.port_key = 0;
    close.sk = sk;
    close.start_ns = start_ns;
    close.unsent = 0;
    close.unacked = 0;
    close.unread = 0;
    shared!(&raw mut *close, port).set(0);
    close.family = 0;
    close.outcome = Outcome::Graceful as u8;
    close.stage = stage::BEGUN;
    close.flags = 0;
    close.state = 0;
    close.rules = maps::rules();
}

/// Stores a close of this thread under its socket's address. Returns 0 if the map is full.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_park")]
pub(crate) extern "C" fn park(close: *const Close) -> u32 {
    // SAFETY: callers pass a record.
    let Some(close) = (unsafe { close.as_ref() }) else {
        return 0;
    };
    let parked = ParkedClose {
        close: *close,
        group: group::of_close(close),
    };
    let kept = PARKED.insert(close.sk, parked, u64::from(BPF_NOEXIST));
    if kept.is_ok() {
        maps::add_hint(close.sk, 1);
    }
    kept.is_ok().into()
}

/// The close that is parked under a socket's address.
pub(crate) fn parked(sk: u64) -> Option<&'static mut ParkedClose> {
    // SAFETY: only the end of the socket uses it; the reference does not outlive the program.
    PARKED.get_ptr_mut(sk).map(|parked| unsafe { &mut *parked })
}

/// Removes the close that is parked under a socket's address.
pub(crate) fn unpark(sk: u64) {
    if PARKED.remove(sk).is_ok() {
        maps::add_hint(sk, u64::MAX);
    }
}
