//! Closes in flight: their number, and those whose return was missed.

use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Close, ParkedClose, Slot, flag, stage};
use nix::errno::Errno;
use nix::unistd::{Pid, getpgid};

use super::mapped_array::MappedArray;
use super::{LedgerError, keys, take};
use crate::host;
use crate::probe::Maps;
use crate::sys::now_ns;

/// The closes in flight: in the slots of threads, shared with the kernel, and elsewhere.
pub(super) struct InFlight {
    slots: MappedArray<Slot>,
    crowded: HashMap<MapData, u32, Close>,
    parked: HashMap<MapData, u64, ParkedClose>,
}

#[derive(Default)]
pub(super) struct Sweep {
    /// Whether a close in flight ends with the return of close(2).
    pub(super) awaits_return: bool,
    /// Closes that were removed because their thread has ended: their return was missed.
    pub(super) missed: Vec<Close>,
}

impl InFlight {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, LedgerError> {
        Ok(Self {
            slots: MappedArray::map(maps, "CLOSES")?,
            crowded: take(maps, "CROWDED")?,
            parked: take(maps, "PARKED")?,
        })
    }

    pub(super) fn count(&self) -> Result<u64, LedgerError> {
        let is_in_flight = |slot: &usize| {
            self.owner(*slot).load(Ordering::Relaxed) != 0 && !is_counted(&self.close(*slot))
        };
        let slots = (0..self.slots.len()).filter(is_in_flight).count();
        let is_crowded = |tid: &u32| {
            self.crowded
                .get(tid, 0)
                .is_ok_and(|close| !is_counted(&close))
        };
        let crowded = keys(&self.crowded, "CROWDED")?;
        let crowded = crowded.iter().filter(|tid| is_crowded(tid)).count();
        let parked = keys(&self.parked, "PARKED")?.len();
        Ok((slots + crowded + parked) as u64)
    }

    /// Removes the closes whose return was missed. A parked close ends with its socket, which always ends.
    pub(super) fn sweep(&mut self) -> Result<Sweep, LedgerError> {
        let mut swept = Sweep::default();
        for slot in 0..self.slots.len() {
            let owner = self.owner(slot);
            let taken = owner.load(Ordering::Relaxed);
            if taken == 0 {
                continue;
            }
            let close = self.close(slot);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the lower half is the thread's id"
            )]
            let tid = taken as u32;
            let empty = || owner.compare_exchange(taken, 0, Ordering::Relaxed, Ordering::Relaxed);
            swept.add(close, is_stale(tid, close.start_ns) && empty().is_ok());
        }
        for tid in keys(&self.crowded, "CROWDED")? {
            // It may have ended meanwhile.
            let Ok(close) = self.crowded.get(&tid, 0) else {
                continue;
            };
            // The key belongs to the same close unless a thread with this id begins another.
            let is_missed = is_stale(tid, close.start_ns) && self.crowded.remove(&tid).is_ok();
            if is_missed {
                let crowded = self
                    .slots
                    .word(Slot::index(tid) as usize, offset_of!(Slot, crowded));
                crowded.fetch_sub(1, Ordering::Relaxed);
            }
            swept.add(close, is_missed);
        }
        Ok(swept)
    }

    /// The close in a slot. Unless its thread has ended, its words may be of different moments.
    fn close(&self, slot: usize) -> Close {
        self.slots.read(slot, offset_of!(Slot, close), Close::ZERO)
    }

    /// The owner of a slot, see [`Slot::owner`].
    fn owner(&self, slot: usize) -> &AtomicU64 {
        self.slots.word(slot, offset_of!(Slot, owner))
    }
}

impl Sweep {
    /// Adds a close, which was removed if `is_missed`.
    fn add(&mut self, close: Close, is_missed: bool) {
        if is_missed && !is_counted(&close) {
            self.missed.push(close);
        } else {
            self.awaits_return |= close.flags & flag::RETURNS != 0;
        }
    }
}

/// Whether only the record of a close is left, because the end of its socket was missed.
fn is_counted(close: &Close) -> bool {
    close.stage == stage::COUNTED
}

/// Whether the record of a close is left over from a thread that is gone.
fn is_stale(tid: u32, start_ns: u64) -> bool {
    /// Age from which a close is suspected, so that few threads are looked up.
    const GRACE_NS: u64 = 60_000_000_000;
    now_ns().saturating_sub(start_ns) > GRACE_NS
        // Records have thread ids of the host's namespace.
        && host::in_pid_namespace_of_host()
        // `/proc` may hide the processes of others (`hidepid`).
        && getpgid(Some(Pid::from_raw(tid.cast_signed()))) == Err(Errno::ESRCH)
}
