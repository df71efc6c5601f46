//! Orphans whose end never came.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Close, Group, HINTS, Orphan, flag, hint, orphan_stage};

use super::notes::GivenUp;
use super::shared::Shared;
use super::{LedgerError, keys, take};
use crate::probe::Maps;
use crate::sys::now_ns;

pub(super) struct Records {
    map: HashMap<MapData, u64, Orphan>,
    /// How many records have each hint.
    hints: Shared,
    ttl: Duration,
    swept: Instant,
}

#[derive(Default)]
pub(super) struct Sweep {
    /// Orphans that were given up, and whose they were.
    pub(super) given_up: Vec<(Group, GivenUp)>,
    /// Records that are counted nowhere: their orphans ended within a close whose return was missed.
    pub(super) lost: u64,
}

/// The records are many: they are looked through this often in a time to live, and no less than
/// once in [`LONGEST`].
const SWEEPS: u32 = 4;
const LONGEST: Duration = Duration::from_secs(60);

impl Records {
    pub(super) fn new(maps: &mut Maps, ttl: Duration) -> Result<Self, LedgerError> {
        Ok(Self {
            map: take(maps, "ORPHANS")?,
            hints: Shared::map(maps, "SOCKETS", HINTS as usize * size_of::<u64>())?,
            ttl,
            swept: Instant::now(),
        })
    }

    pub(super) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = ttl;
    }

    /// Gives up, from time to time, what has become too old.
    pub(super) fn sweep(&mut self) -> Result<Sweep, LedgerError> {
        let mut swept = Sweep::default();
        if self.swept.elapsed() < (self.ttl / SWEEPS).min(LONGEST) {
            return Ok(swept);
        }
        self.swept = Instant::now();
        let now = now_ns();
        for key in keys(&self.map, "ORPHANS")? {
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
            // Whoever removes a record that was left counts its end: the kernel does not any more.
            // One whose close has not returned belongs to that, and one that is about to end to its socket.
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

    /// Removes what a close left that is never going to return. Whether there was anything.
    pub(super) fn remove_left_by(&mut self, close: &Close) -> bool {
        if close.flags & flag::HINTED != 0 {
            self.unhint(close.sk);
        }
        if close.flags & flag::LEAVES == 0 {
            return false;
        }
        let orphan = self.map.get(&close.sk, 0);
        let is_its = |orphan: Orphan| orphan.stage & !orphan_stage::MASK == close.orphan();
        orphan.is_ok_and(is_its) && self.remove(close.sk)
    }

    /// Whether it was there to be removed.
    fn remove(&mut self, key: u64) -> bool {
        let removed = self.map.remove(&key).is_ok();
        if removed {
            self.unhint(key);
        }
        removed
    }

    /// A socket has one hint less.
    fn unhint(&self, sk: u64) {
        let hint = hint(sk) as usize * size_of::<u64>();
        self.hints.word(hint).fetch_sub(1, Ordering::Relaxed);
    }
}
