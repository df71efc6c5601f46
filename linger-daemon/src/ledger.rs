//! The maps of the kernel as one typed snapshot of all counts.

use linger_ebpf::{BUCKETS, Closes, Counters, Lost, Outcome, Plan};

/// Who closed, as the metrics' labels say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// The systemd unit, or the plain cgroup path.
    pub unit: String,
    /// Name of the process.
    pub comm: String,
}

/// How full a map of the kernel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Its name.
    pub map: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
}

/// All counts at one moment. Each set of labels stands in it once.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The plan that counted.
    pub plan: Plan,
    /// What each group did, sorted by its labels.
    pub groups: Vec<(Labels, Counters)>,
    /// What could not be recorded, by [`Lost`].
    pub lost: [u64; Lost::COUNT],
    /// How full the maps are.
    pub maps: Vec<MapFill>,
}

impl Snapshot {
    /// Closes of one outcome by one group.
    #[must_use]
    pub fn closes(&self, counters: &Counters, outcome: Outcome) -> u64 {
        let closes = &counters.closes[outcome.index()];
        if self.plan.counts_at_decision() {
            closes.undated
        } else {
            closes.undated + timed(closes)
        }
    }
}

/// Closes whose time is known.
#[must_use]
pub fn timed(closes: &Closes) -> u64 {
    let buckets: &[u64; BUCKETS] = &closes.buckets;
    buckets.iter().sum()
}
