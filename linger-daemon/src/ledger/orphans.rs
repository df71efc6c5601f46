//! Orphans whose end never came.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{HashMap, MapData};
use linger_ebpf::{
    BUCKET_BOUNDS_NS, Fate, Group, HINTS, Orphan, Orphans, QueueBytes, hint, orphan_stage,
};

use super::in_flight::now_ns;
use super::shared::Shared;
use super::{LedgerError, keys, take};

/// The records of orphans, and those that were given up.
pub(super) struct Records {
    map: HashMap<MapData, u64, Orphan>,
    /// How many records have each hint.
    hints: Shared,
    /// How long one may live.
    ttl: Duration,
    /// When they were last looked through.
    swept: Instant,
    /// What was given up.
    expired: BTreeMap<Group, Orphans>,
}

/// The records are many: they are looked through this often in a time to live, and no less than
/// once in [`LONGEST`].
const SWEEPS: u32 = 4;
const LONGEST: Duration = Duration::from_secs(60);

impl Records {
    /// Takes the maps. A record may live for `ttl`.
    pub(super) fn new(ebpf: &mut Ebpf, ttl: Duration) -> Result<Self, LedgerError> {
        Ok(Self {
            map: take(ebpf, "ORPHANS")?,
            hints: Shared::map(ebpf, "SOCKETS", HINTS as usize * size_of::<u64>())?,
            ttl,
            swept: Instant::now(),
            expired: BTreeMap::new(),
        })
    }

    /// From now on a record may live for `ttl`.
    pub(super) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = ttl;
    }

    /// What was given up, by group.
    pub(super) fn expired(&self) -> &BTreeMap<Group, Orphans> {
        &self.expired
    }

    /// Takes what was given up of a group.
    pub(super) fn take_expired(&mut self, group: &Group) -> Option<Orphans> {
        self.expired.remove(group)
    }

    /// Gives up, from time to time, what has become too old. Returns how many of them are counted
    /// nowhere: they ended within a close whose return was missed.
    pub(super) fn sweep(&mut self) -> Result<u64, LedgerError> {
        if self.swept.elapsed() < (self.ttl / SWEEPS).min(LONGEST) {
            return Ok(0);
        }
        self.swept = Instant::now();
        let now = now_ns();
        let mut lost = 0;
        for key in keys(&self.map, "ORPHANS")? {
            // It may have ended meanwhile.
            let Ok(orphan) = self.map.get(&key, 0) else {
                continue;
            };
            let age = Duration::from_nanos(now.saturating_sub(orphan.left_ns));
            let stage = orphan.stage & orphan_stage::MASK;
            // Whoever removes a record that was left counts its end: the kernel does not any more.
            // One whose close has not returned belongs to that.
            if age <= self.ttl || stage == orphan_stage::OPEN || !self.remove(key) {
                continue;
            }
            if stage == orphan_stage::LEFT {
                let orphans = self.expired.entry(orphan.group).or_insert(Orphans::ZERO);
                give_up(orphans, orphan.bytes.into(), age);
            } else {
                lost += 1;
            }
        }
        Ok(lost)
    }

    /// Whether it was there to be removed.
    fn remove(&mut self, key: u64) -> bool {
        let removed = self.map.remove(&key).is_ok();
        if removed {
            let hint = hint(key) as usize * size_of::<u64>();
            self.hints.word(hint).fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }
}

/// Counts an orphan of unknown fate. Its bytes were sent, perhaps.
fn give_up(orphans: &mut Orphans, bytes: u64, age: Duration) {
    let ends = &mut orphans.ends[Fate::Unknown.index()];
    let lived_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
    let bucket = BUCKET_BOUNDS_NS.partition_point(|&bound| bound < lived_ns);
    ends.buckets[bucket] += 1;
    ends.lived_ns += lived_ns;
    ends.discarded = QueueBytes {
        unacked: ends.discarded.unacked + bytes,
        ..ends.discarded
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_counted_once_with_its_time() {
        let mut orphans = Orphans::ZERO;
        give_up(&mut orphans, 70, Duration::from_secs(2));
        give_up(&mut orphans, 30, Duration::from_secs(1801));
        let ends = &orphans.ends[Fate::Unknown.index()];
        assert_eq!((ends.count(), ends.discarded.sum()), (2, 100));
        assert_eq!(ends.lived_ns, 1_803_000_000_000);
        // Bounds are inclusive: two seconds are in the bucket of two seconds.
        let two = BUCKET_BOUNDS_NS
            .iter()
            .position(|&bound| bound == 2_000_000_000);
        assert_eq!(ends.buckets[two.unwrap()], 1);
        assert_eq!(*ends.buckets.last().unwrap(), 1);
        assert_eq!((orphans.ended(), orphans.ended_bytes()), (2, 100));
    }
}
