//! Parts of tallies, and their differences.

use linger_daemon::exercise::{Closes, FateTally, OrphanTally, Tally};
use linger_ebpf::{Fate, Outcome};

/// The outcomes of closes that wait under `SO_LINGER`, taken from the kernel's source, not from the code that counts.
const WAITING: [Outcome; 4] = [
    Outcome::Lingered,
    Outcome::LingerTimeout,
    Outcome::LingerInterrupted,
    Outcome::LingerFailed,
];

/// Parts of a tally of closes.
pub(crate) trait Parts {
    /// Returns all closes that waited under `SO_LINGER`, or all that did not.
    fn of_those(&self, waited: bool) -> Closes;

    /// Returns the closes of one outcome.
    fn of(&self, outcome: Outcome) -> Closes;
}

impl Parts for Tally {
    fn of_those(&self, waited: bool) -> Closes {
        let has_waited = |outcome: &str| WAITING.iter().any(|waiting| waiting.name() == outcome);
        let mut sum = Closes::default();
        for (outcome, closes) in &self.closes {
            if has_waited(outcome) == waited {
                sum.add(closes);
            }
        }
        sum
    }

    fn of(&self, outcome: Outcome) -> Closes {
        self.closes.get(outcome.name()).copied().unwrap_or_default()
    }
}

/// Parts of a tally of orphans.
pub(crate) trait OrphanParts {
    /// Returns the orphans of one fate.
    fn of(&self, fate: Fate) -> FateTally;

    /// Returns the increase since `before`.
    fn since(&self, before: &Self) -> Self;
}

impl OrphanParts for OrphanTally {
    fn of(&self, fate: Fate) -> FateTally {
        self.ended.get(fate.name()).copied().unwrap_or_default()
    }

    fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (fate, ended) in &before.ended {
            let of_fate = since.ended.entry(fate.clone()).or_default();
            of_fate.count -= ended.count;
            of_fate.unsent -= ended.unsent;
            of_fate.unacked -= ended.unacked;
        }
        since.bytes -= before.bytes;
        since.delivered -= before.delivered;
        since
    }
}

/// Returns the payload that orphans discarded, bytes.
pub(crate) fn discarded(orphans: FateTally) -> u64 {
    orphans.unsent + orphans.unacked
}
