//! Counts kept by the daemon itself: those of retired groups, and of the closes and orphans that it gives up. They are
//! stored in a map like all others, so that the next daemon can continue them.

use aya::maps::{Array, MapData};
use linger_ebpf::{Close, Counters, Group, Lost, Outcome, Past, flag, stage};

use super::notes::GivenUp;
use super::{LedgerError, read, take, write};
use crate::probe::Maps;

const NAME: &str = "PAST";

/// Indices in [`Group::SHARED`].
pub(super) const OTHER: usize = 0;
pub(super) const RETIRED: usize = 1;

/// The map with these counts, and a copy of them.
pub(super) struct RetiredTotals {
    map: Array<MapData, Past>,
    pub(super) past: Box<Past>,
}

impl RetiredTotals {
    pub(super) fn new(maps: &mut Maps) -> Result<Self, LedgerError> {
        let map: Array<_, Past> = take(maps, NAME)?;
        let past = Box::new(map.get(&0, 0).map_err(read(NAME))?);
        Ok(Self { map, past })
    }

    pub(super) fn lose(&mut self, what: Lost, count: u64) -> Result<(), LedgerError> {
        if count == 0 {
            return Ok(());
        }
        self.change(|past| past.lost[what.index()] += count)
    }

    /// Counts a close whose thread ended before its return was seen: under `other` or, if its outcome is not known, as
    /// lost.
    pub(super) fn count_missed(&mut self, close: &Close) -> Result<(), LedgerError> {
        let outcome = Outcome::from_index(close.outcome).filter(|_| close.stage == stage::DECIDED);
        let Some(outcome) = outcome else {
            return self.lose(Lost::Close, 1);
        };
        let cause = outcome.cause().filter(|_| close.flags & flag::RESET != 0);
        self.change(|past| {
            let other = &mut past.counters[OTHER];
            other.closes[outcome.index()] += 1;
            if outcome.discards() {
                let discarded = other.discarded_mut(outcome);
                discarded.unsent += u64::from(close.unsent);
                discarded.unacked += u64::from(close.unacked);
            }
            other.unread_bytes += u64::from(close.unread);
            if let Some(cause) = cause {
                other.resets[cause.index()] += 1;
            }
            for what in [Lost::Return, Lost::Group] {
                past.lost[what.index()] += 1;
            }
        })
    }

    /// Counts a given-up orphan for the group at this index of [`Group::SHARED`].
    pub(super) fn give_up(&mut self, place: usize, given_up: GivenUp) -> Result<(), LedgerError> {
        self.change(|past| given_up.count(&mut past.counters[place].orphans))
    }

    /// Replaces the counters at this index of [`Group::SHARED`] by these, which include those of `group`. Records that
    /// group in the same write, so that it is not counted twice if the daemon ends before it has removed the group's
    /// own counters.
    pub(super) fn put(
        &mut self,
        place: usize,
        counters: &Counters,
        group: &Group,
    ) -> Result<(), LedgerError> {
        self.change(|past| (past.counters[place], past.last) = (*counters, *group))
    }

    /// Records that the own counters of the last group are removed: that group may get others.
    pub(super) fn settle(&mut self) -> Result<(), LedgerError> {
        self.change(|past| past.last = Group::ZERO)
    }

    /// Changes the map and, if that succeeds, the copy.
    fn change(&mut self, how: impl FnOnce(&mut Past)) -> Result<(), LedgerError> {
        let mut changed = self.past.clone();
        how(&mut changed);
        self.map.set(0, *changed, 0).map_err(write(NAME))?;
        self.past = changed;
        Ok(())
    }
}
