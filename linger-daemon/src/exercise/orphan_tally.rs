//! The expected counts of orphans and their fates.

use std::collections::BTreeMap;

use linger_ebpf::Fate;
use serde::{Deserialize, Serialize};

use super::state::Queues;

/// Orphans of one fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateTally {
    /// Number of orphans.
    pub count: u64,
    /// Payload discarded that was not sent, bytes.
    pub unsent: u64,
    /// Payload discarded that was sent and not acknowledged, bytes.
    pub unacked: u64,
}

impl FateTally {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.unsent += other.unsent;
        self.unacked += other.unacked;
    }
}

/// The totals of a number of orphans, all of which ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanTally {
    /// By fate.
    pub ended: BTreeMap<String, FateTally>,
    /// Payload outstanding when their closes returned, bytes.
    pub bytes: u64,
    /// Of that, acknowledged since, bytes.
    pub delivered: u64,
}

impl OrphanTally {
    /// Counts an orphan that was left with `left`, of which `lost` was discarded in the end. A close that left nothing
    /// made no orphan.
    pub fn count(&mut self, left: Queues, fate: Fate, lost: Queues) {
        let bytes = left.outstanding();
        if bytes == 0 {
            return;
        }
        let ended = FateTally {
            count: 1,
            unsent: lost.unsent,
            unacked: lost.unacked,
        };
        self.bytes += bytes;
        self.delivered += bytes - lost.outstanding();
        self.end(fate.name(), ended);
    }

    /// Counts only the ends of orphans.
    pub fn end(&mut self, fate: &str, ended: FateTally) {
        self.ended.entry(fate.into()).or_default().add(ended);
    }

    /// Counts an orphan whose payload was all acknowledged by the peer.
    pub fn delivered(&mut self, left: Queues) {
        self.count(left, Fate::Delivered, Queues::default());
    }

    /// Counts an orphan whose payload was all discarded.
    pub fn lost(&mut self, left: Queues, fate: Fate) {
        self.count(left, fate, left);
    }

    /// Adds all counts of another tally.
    pub fn add(&mut self, other: &Self) {
        for (fate, &ended) in &other.ended {
            self.end(fate, ended);
        }
        self.bytes += other.bytes;
        self.delivered += other.delivered;
    }

    /// The orphans of all fates together.
    #[must_use]
    pub fn total(&self) -> FateTally {
        let mut total = FateTally::default();
        self.ended.values().for_each(|&ended| total.add(ended));
        total
    }
}
