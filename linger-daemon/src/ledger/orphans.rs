//! Orphans whose end was not seen.

use std::collections::HashSet;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Close, Group, HINTS, Orphan, flag, hint, orphan_stage};

use super::mapped_array::MappedArray;
use super::notes::GivenUp;
use super::{LedgerError, failed, keys, take};
use crate::probe::{Maps, Programs};
use crate::sys::{now_ns, run};

const NAME: &str = "ORPHANS";

/// The records of orphans, and what is known of those whose end was not seen.
pub(super) struct OrphanRecords {
    map: HashMap<MapData, u64, Orphan>,
    /// Number of records with each hint.
    hints: MappedArray,
    /// Time to live: how long an orphan is followed after its close has returned.
    ttl: Duration,
    /// When the last sweep began.
    swept: Instant,
    /// The orphans whose sockets the last sweep found gone, by address and time when they were left: the programs are
    /// about to count their end, or have missed it.
    gone: HashSet<(u64, u64)>,
}

/// The result of [`OrphanRecords::sweep`].
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
            map: take(maps, NAME)?,
            hints: MappedArray::map(maps, "SOCKETS", HINTS as usize * size_of::<u64>())?,
            ttl,
            swept: Instant::now(),
            gone: HashSet::new(),
        })
    }

    pub(super) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = ttl;
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
        let program = programs.missed_end();
        for key in keys(&self.map, NAME)? {
            // It may have ended meanwhile.
            let Ok(orphan) = self.map.get(&key, 0) else {
                continue;
            };
            if orphan.stage == orphan_stage::SPENT {
                // The kernel has counted it, and could not remove it.
                self.remove(key);
                continue;
            }
            let age = Duration::from_nanos(now.saturating_sub(orphan.left_ns));
            let stage = orphan.stage & orphan_stage::MASK;
            if stage == orphan_stage::LEFT
                && let Some(program) = program
            {
                let id = (key, orphan.left_ns);
                if end_missed(program, id, gone_before.contains(&id))? {
                    self.gone.insert(id);
                    continue;
                }
            }
            // Whoever removes a record of an orphan left behind counts its end: then the programs do not. A record
            // belongs to the close until that has returned, and to the socket when it is about to end.
            let is_anothers = [orphan_stage::OPEN, orphan_stage::ENDING].contains(&stage);
            if age <= self.ttl || is_anothers || !self.remove(key) {
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
        let orphan = self.map.get(&close.sk, 0);
        let is_its =
            |orphan: Orphan| orphan.stage & !orphan_stage::MASK == close.initial_orphan_stage();
        orphan.is_ok_and(is_its) && self.remove(close.sk)
    }

    /// Removes a record. Returns whether it existed.
    fn remove(&mut self, key: u64) -> bool {
        let removed = self.map.remove(&key).is_ok();
        if removed {
            self.unhint(key);
        }
        removed
    }

    /// Subtracts a record from the hint of its socket.
    fn unhint(&self, sk: u64) {
        let hint = hint(sk) as usize * size_of::<u64>();
        self.hints.word(hint).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether the socket of an orphan is gone. If it `was_gone` before, its end was missed, and the program ends
/// it.
fn end_missed(
    program: &OwnedFd,
    (key, left_ns): (u64, u64),
    was_gone: bool,
) -> Result<bool, LedgerError> {
    let left_ns = if was_gone { left_ns } else { 0 };
    let is_gone = run(program, [key, left_ns]).map_err(failed("work on", NAME))?;
    Ok(is_gone != 0)
}
