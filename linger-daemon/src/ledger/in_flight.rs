//! The closes in flight: how many there are, and those whose end was missed.

use std::mem::offset_of;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Close, MAX_CLOSES, ParkedClose, Slot, flag};

use super::shared::Shared;
use super::{LedgerError, keys};
use crate::host;
use crate::probe::Maps;
use crate::sys::now_ns;

/// The maps of closes in flight.
pub(super) struct InFlight {
    pub(super) slots: Slots,
    pub(super) crowded: HashMap<MapData, u32, Close>,
    pub(super) parked: HashMap<MapData, u64, ParkedClose>,
}

/// The result of a sweep.
#[derive(Default)]
pub(super) struct Sweep {
    /// Whether a close in flight is to end with the return of close(2).
    pub(super) awaits_return: bool,
    /// Closes whose thread has ended, and which were removed: their return was missed.
    pub(super) missed: Vec<Close>,
}

impl InFlight {
    /// Counts the closes in flight.
    pub(super) fn count(&self) -> Result<u64, LedgerError> {
        let crowded = keys(&self.crowded, "CROWDED")?.len();
        let parked = keys(&self.parked, "PARKED")?.len();
        Ok((self.slots.count() + crowded + parked) as u64)
    }

    /// Removes the closes whose return was missed. A parked close ends with its socket, which always ends.
    pub(super) fn sweep(&mut self) -> Result<Sweep, LedgerError> {
        let mut swept = self.slots.sweep();
        for tid in keys(&self.crowded, "CROWDED")? {
            // None other has this key while the thread does not begin another.
            match self.crowded.get(&tid, 0) {
                Ok(close) if is_stale(tid, close.start_ns) && self.crowded.remove(&tid).is_ok() => {
                    self.slots.leave_crowd(tid);
                    swept.missed.push(close);
                }
                found => swept.leave(found.ok().as_ref()),
            }
        }
        Ok(swept)
    }
}

impl Sweep {
    /// Notes a close that stays; none if it is at work elsewhere by now.
    fn leave(&mut self, close: Option<&Close>) {
        self.awaits_return |= close.is_some_and(|close| close.flags & flag::RETURNS != 0);
    }
}

/// The slots of all threads, shared with the kernel.
pub(super) struct Slots(Shared);

const SLOTS: usize = MAX_CLOSES as usize;

impl Slots {
    /// Maps the array of slots.
    pub(super) fn map(maps: &Maps) -> Result<Self, LedgerError> {
        Shared::map(maps, "CLOSES", SLOTS * size_of::<Slot>()).map(Self)
    }

    /// Counts the slots that are taken.
    fn count(&self) -> usize {
        let is_taken = |slot: &usize| self.owner(*slot).load(Ordering::Relaxed) != 0;
        (0..SLOTS).filter(is_taken).count()
    }

    /// Empties the slots of closes whose return was missed.
    fn sweep(&self) -> Sweep {
        let mut swept = Sweep::default();
        for index in 0..SLOTS {
            let owner = self.owner(index);
            let taken = owner.load(Ordering::Relaxed);
            if taken == 0 {
                continue;
            }
            let close = self.close(index);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the lower half is the thread's id"
            )]
            let tid = taken as u32;
            if is_stale(tid, close.start_ns)
                && owner
                    .compare_exchange(taken, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                swept.missed.push(close);
            } else {
                swept.leave(Some(&close));
            }
        }
        swept
    }

    /// The close in a slot, of which the words need not belong together unless its thread has ended.
    fn close(&self, slot: usize) -> Close {
        const WORDS: usize = size_of::<Close>() / size_of::<u64>();
        let words: [u64; WORDS] = std::array::from_fn(|word| {
            let at = offset_of!(Slot, close) + word * size_of::<u64>();
            self.word(slot, at).load(Ordering::Relaxed)
        });
        // SAFETY: as many bytes, and any make a close.
        unsafe { std::mem::transmute::<[u64; WORDS], Close>(words) }
    }

    /// The thread whose close is in a slot.
    fn owner(&self, slot: usize) -> &AtomicU64 {
        self.word(slot, offset_of!(Slot, owner))
    }

    /// A thread has one close less among the crowded.
    fn leave_crowd(&self, tid: u32) {
        let slot = Slot::index(tid) as usize;
        self.word(slot, offset_of!(Slot, crowded))
            .fetch_sub(1, Ordering::Relaxed);
    }

    /// A word of a slot, `offset` bytes into it.
    fn word(&self, slot: usize, offset: usize) -> &AtomicU64 {
        self.0.word(slot * size_of::<Slot>() + offset)
    }
}

/// Whether a record of a close stayed behind although its thread is gone.
fn is_stale(tid: u32, start_ns: u64) -> bool {
    const GRACE_NS: u64 = 60_000_000_000;
    now_ns().saturating_sub(start_ns) > GRACE_NS
        // The kernel records thread ids of that one.
        && host::in_pid_namespace_of_host()
        && !Path::new(&format!("/proc/{tid}")).exists()
}
