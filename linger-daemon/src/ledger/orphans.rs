//! Orphans whose end was not seen.

use std::collections::HashSet;
use std::mem::{self, offset_of};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Close, Group, Orphan, OrphanSlot, flag, hint, orphan_stage};

use super::mapped_array::MappedArray;
use super::notes::GivenUp;
use super::{LedgerError, failed, keys, take};
use crate::probe::{Maps, Programs};
use crate::sys::{now_ns, run};

const NAME: &str = "ORPHANS";

/// The records of orphans, and what is known of those whose end was not seen.
pub(super) struct OrphanRecords {
    slots: MappedArray<OrphanSlot>,
    crowded: HashMap<MapData, u64, Orphan>,
    hints: MappedArray<u64>,
    /// Time to live: how long an orphan is followed after its close has returned.
    pub(super) ttl: Duration,
    swept: Instant,
    /// The orphans whose sockets the last sweep found gone, by address and time when they were left: the programs are
    /// about to count their end, or have missed it. Also those that it found counted and not removed.
    gone: HashSet<(u64, u64)>,
}

#[derive(Clone, Copy)]
enum Place {
    Slot(usize),
    /// In the map of crowded orphans, under its socket's address.
    Map(u64),
}

#[derive(Default)]
pub(super) struct Sweep {
    /// Orphans that were given up, with the groups that left them.
    pub(super) given_up: Vec<(Group, GivenUp)>,
    /// Number of records that are counted nowhere: their orphans ended within a close whose return was missed.
    pub(super) lost: u64,
}

/// Number of sweeps in a time to live: few, because there are many records, but at least one every [`LONGEST`].
const SWEEPS: u32 = 4;
const LONGEST: Duration = Duration::from_secs(60);

impl OrphanRecords {
    pub(super) fn new(maps: &mut Maps, ttl: Duration) -> Result<Self, LedgerError> {
        Ok(Self {
            slots: MappedArray::map(maps, "ORPHAN_SLOTS")?,
            crowded: take(maps, NAME)?,
            hints: MappedArray::map(maps, "SOCKETS")?,
            ttl,
            swept: Instant::now(),
            gone: HashSet::new(),
        })
    }

    /// If a sweep is due, ends the orphans whose end was missed, and gives up those that have outlived their time to
    /// live.
    pub(super) fn sweep(&mut self, programs: &Programs) -> Result<Sweep, LedgerError> {
        let mut swept = Sweep::default();
        if self.swept.elapsed() < (self.ttl / SWEEPS).min(LONGEST) {
            return Ok(swept);
        }
        self.swept = Instant::now();
        let now = now_ns();
        let gone_before = mem::take(&mut self.gone);
        let slots = (0..self.slots.len()).map(Place::Slot);
        let crowded = keys(&self.crowded, NAME)?.into_iter().map(Place::Map);
        for place in slots.chain(crowded) {
            let Some(orphan) = self.get(place) else {
                continue;
            };
            let id = (orphan.sk, orphan.left_ns);
            let was_gone = gone_before.contains(&id);
            if orphan.stage == orphan_stage::SPENT {
                // The kernel has counted it, and is about to remove it. If it is still there in the next sweep, the
                // kernel could not, or the daemon was killed while it freed the slot.
                if was_gone {
                    self.remove(place, &orphan);
                } else {
                    self.gone.insert(id);
                }
                continue;
            }
            let age = Duration::from_nanos(now.saturating_sub(orphan.left_ns));
            let stage = orphan.stage & orphan_stage::MASK;
            if stage == orphan_stage::LEFT
                && let Some(program) = programs.missed_end()
                && end_missed(program, id, was_gone)?
            {
                self.gone.insert(id);
                continue;
            }
            // Whoever removes a record of an orphan left behind counts its end: then the programs do not. A record
            // belongs to the close until that has returned, and to the socket when it is about to end.
            let is_anothers = [orphan_stage::OPEN, orphan_stage::ENDING].contains(&stage);
            if age <= self.ttl || is_anothers || !self.remove(place, &orphan) {
                continue;
            }
            if stage == orphan_stage::LEFT {
                let given_up = GivenUp {
                    lived_ns: u64::try_from(age.as_nanos()).unwrap_or(u64::MAX),
                    bytes: orphan.bytes.into(),
                };
                swept.given_up.push((orphan.group, given_up));
            } else {
                swept.lost += 1;
            }
        }
        Ok(swept)
    }

    /// Removes the orphan of a close whose return was missed. Returns whether there was one.
    pub(super) fn remove_left_by(&mut self, close: &Close) -> bool {
        if close.flags & flag::HINTED != 0 {
            self.unhint(close.sk);
        }
        if close.flags & flag::HAS_ORPHAN == 0 {
            return false;
        }
        let is_its = |orphan: &Orphan| {
            orphan.sk == close.sk
                && orphan.stage & !orphan_stage::MASK == close.initial_orphan_stage()
        };
        [Place::Slot(slot(close.sk)), Place::Map(close.sk)]
            .into_iter()
            .any(|place| {
                let orphan = self.get(place).filter(is_its);
                orphan.is_some_and(|orphan| self.remove(place, &orphan))
            })
    }

    /// The record in a place, if there is one. It may end meanwhile. In a slot, unless it has been left behind, its words
    /// may be of different moments. The stage is read first: while that stands, so do the words of one left behind.
    fn get(&self, place: Place) -> Option<Orphan> {
        match place {
            Place::Slot(slot) => {
                let slot = Some(slot).filter(|slot| *slot < self.slots.len())?;
                let offset = offset_of!(OrphanSlot, orphan);
                let orphan = self.slots.read(slot, offset, Orphan::ZERO);
                (orphan.stage != orphan_stage::FREE).then_some(orphan)
            }
            Place::Map(key) => self.crowded.get(&key, 0).ok(),
        }
    }

    /// Removes a record. Returns false if a program was first.
    fn remove(&mut self, place: Place, orphan: &Orphan) -> bool {
        let removed = match place {
            Place::Slot(slot) => self.free(slot, orphan.stage),
            Place::Map(key) => self.remove_crowded(key),
        };
        // A daemon that was killed while it freed the slot may have left the record without its socket.
        if removed && orphan.sk != 0 {
            self.unhint(orphan.sk);
        }
        removed
    }

    fn remove_crowded(&mut self, key: u64) -> bool {
        let removed = self.crowded.remove(&key).is_ok();
        let slot = slot(key);
        if removed && slot < self.slots.len() {
            let crowded = self.slots.word(slot, offset_of!(OrphanSlot, crowded));
            crowded.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// Frees a slot whose record is at this stage.
    fn free(&self, slot: usize, stage: u64) -> bool {
        let word = self.slots.word(slot, offset_of!(OrphanSlot, orphan.stage));
        let (taken, order) = (orphan_stage::SPENT, Ordering::SeqCst);
        let is_ours = word.compare_exchange(stage, taken, order, order).is_ok();
        if is_ours {
            // In this order, as the programs do.
            let sk = self.slots.word(slot, offset_of!(OrphanSlot, orphan.sk));
            sk.store(0, Ordering::Relaxed);
            word.store(orphan_stage::FREE, Ordering::SeqCst);
        }
        is_ours
    }

    /// Subtracts a record from the hint of its socket.
    fn unhint(&self, sk: u64) {
        let count = self.hints.word(hint(sk) as usize, 0);
        count.fetch_sub(1, Ordering::Relaxed);
    }
}

fn slot(sk: u64) -> usize {
    OrphanSlot::index(hint(sk)) as usize
}

/// Returns whether the socket of an orphan is gone. If it `was_gone` before, its end was missed, and the program ends it.
fn end_missed(
    program: &OwnedFd,
    (key, left_ns): (u64, u64),
    was_gone: bool,
) -> Result<bool, LedgerError> {
    let left_ns = if was_gone { left_ns } else { 0 };
    let is_gone = run(program, [key, left_ns]).map_err(failed("work on", NAME))?;
    Ok(is_gone != 0)
}
