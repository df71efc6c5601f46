//! The closes in flight: how many there are, and those whose end was missed.

use std::ffi::c_void;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Close, MAX_CLOSES, Parked, Slot};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::time::{ClockId, clock_gettime};

use super::{LedgerError, read};

/// The maps of closes in flight.
pub(super) struct InFlight {
    pub(super) slots: Slots,
    pub(super) crowded: HashMap<MapData, u32, Close>,
    pub(super) parked: HashMap<MapData, u64, Parked>,
}

impl InFlight {
    /// Counts the closes in flight, removing those whose thread has ended: their return was missed.
    /// Returns how many are in flight, and how many were removed.
    pub(super) fn sweep(&mut self) -> Result<(u64, u64), LedgerError> {
        let (mut in_flight, mut removed) = self.slots.sweep();
        let (tids, ended) = {
            let tids = keys(&self.crowded, "CROWDED")?;
            let ended: Vec<u32> = tids
                .iter()
                .copied()
                .filter(|tid| {
                    let close = self.crowded.get(tid, 0);
                    close.is_ok_and(|close| is_stale(*tid, close.start_ns))
                })
                .collect();
            (tids.len() as u64, ended)
        };
        in_flight += tids;
        for tid in ended {
            if self.crowded.remove(&tid).is_ok() {
                self.slots.leave_crowd(tid);
                in_flight -= 1;
                removed += 1;
            }
        }
        // A parked close ends with its socket, which always ends.
        in_flight += keys(&self.parked, "PARKED")?.len() as u64;
        Ok((in_flight, removed))
    }
}

/// The keys of a map that changes meanwhile, each once. When the one at hand has gone, the kernel
/// starts again from the first: then the rest is left for the next time, or this might never end.
fn keys<K: aya::Pod + Eq + std::hash::Hash, V: aya::Pod>(
    map: &HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<Vec<K>, LedgerError> {
    let mut seen = std::collections::HashSet::new();
    for key in map.keys() {
        if !seen.insert(key.map_err(read(name))?) {
            break;
        }
    }
    Ok(seen.into_iter().collect())
}

/// The slots of all threads, shared with the kernel.
pub(super) struct Slots {
    slots: NonNull<c_void>,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Slots {}

const SLOTS: usize = MAX_CLOSES as usize;
const LENGTH: NonZeroUsize = NonZeroUsize::new(SLOTS * size_of::<Slot>()).expect("not empty");

impl Slots {
    /// Maps the array of slots.
    pub(super) fn map(closes: &MapData) -> io::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, of the length that the array was made with.
        let slots = unsafe {
            mmap(
                None,
                LENGTH,
                access,
                MapFlags::MAP_SHARED,
                closes.fd().as_fd(),
                0,
            )
        }?;
        Ok(Self { slots })
    }

    /// How many closes are in a slot, and how many were removed, whose thread has ended.
    fn sweep(&self) -> (u64, u64) {
        let (mut in_flight, mut removed) = (0, 0);
        for index in 0..SLOTS {
            let owner = self.word(index, std::mem::offset_of!(Slot, owner));
            let taken = owner.load(Ordering::Relaxed);
            if taken == 0 {
                continue;
            }
            let start = std::mem::offset_of!(Slot, close) + std::mem::offset_of!(Close, start_ns);
            let start_ns = self.word(index, start).load(Ordering::Relaxed);
            // The lower half is the thread's id.
            #[expect(clippy::cast_possible_truncation, reason = "as it says")]
            let tid = taken as u32;
            if is_stale(tid, start_ns)
                && owner
                    .compare_exchange(taken, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                removed += 1;
            } else {
                in_flight += 1;
            }
        }
        (in_flight, removed)
    }

    /// A thread has one close less among the crowded.
    fn leave_crowd(&self, tid: u32) {
        self.word(
            Slot::index(tid) as usize,
            std::mem::offset_of!(Slot, crowded),
        )
        .fetch_sub(1, Ordering::Relaxed);
    }

    /// A word of a slot, `offset` bytes into it.
    fn word(&self, index: usize, offset: usize) -> &AtomicU64 {
        assert!(index < SLOTS, "there are as many slots");
        // SAFETY: within the mapping, which lives as long as `self`; aligned, as the page and every
        // word of a slot are; all that write to it, here and in the kernel, write whole words.
        unsafe {
            let slot = self.slots.cast::<Slot>().add(index);
            slot.byte_add(offset).cast::<AtomicU64>().as_ref()
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: nothing that refers to the mapping outlives it. It cannot fail: it is a mapping.
        let _ = unsafe { munmap(self.slots, LENGTH.get()) };
    }
}

/// Whether a record of a close stayed behind although its thread is gone.
fn is_stale(tid: u32, start_ns: u64) -> bool {
    const GRACE_NS: u64 = 60_000_000_000;
    now_ns().saturating_sub(start_ns) > GRACE_NS
        && sees_all_processes()
        && !Path::new(&format!("/proc/{tid}")).exists()
}

/// Whether this process lives in the initial PID namespace, whose thread ids the kernel records.
fn sees_all_processes() -> bool {
    // include/linux/proc_ns.h: PROC_PID_INIT_INO
    fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let whole = u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000;
        whole + u64::try_from(now.tv_nsec()).unwrap_or(0)
    })
}
