//! Which closes to show.

use std::time::Duration;

use linger_ebpf::{Filter, Outcome, asks};

use super::units::CgroupAt;

use crate::event::WatchEvent;

/// Which closes to show: those that meet every condition.
#[derive(Clone, Debug, Default)]
pub struct WatchFilter {
    /// One of these outcomes; any if empty.
    pub outcomes: Vec<Outcome>,
    /// One of these units; any if empty.
    pub units: Vec<String>,
    /// The name of the process.
    pub comm: Option<String>,
    /// The port of either end.
    pub port: Option<u16>,
    /// Only closes that lost payload, directly or by the end of their orphan.
    pub lost: bool,
    /// Minimum time blocked.
    pub blocked: Option<Duration>,
    /// Record the user stack.
    pub stack: bool,
}

impl WatchFilter {
    /// The filter for the programs, with the cgroups of the units. The programs can filter by one cgroup; with
    /// several, only [`WatchFilter::matches`] does.
    pub(super) fn to_kernel(&self, cgroups: &[CgroupAt]) -> Filter {
        let mut filter = Filter::ALL;
        if !self.outcomes.is_empty() {
            let bits = self.outcomes.iter().map(|outcome| 1 << outcome.index());
            filter.outcomes = bits.fold(0, |all, bit: u64| all | bit);
        }
        if let Some(comm) = &self.comm {
            let mut bytes = [0; 16];
            // Truncated as by the kernel, with a terminating zero.
            for (to, from) in bytes[..15].iter_mut().zip(comm.bytes()) {
                *to = from;
            }
            let (first, second) = bytes.split_at(8);
            let word = |half: &[u8]| half.try_into().map_or(0, u64::from_ne_bytes);
            filter.comm = [word(first), word(second)];
        }
        filter.port = self.port.unwrap_or(0).into();
        if let Some(blocked) = self.blocked {
            filter.blocked_ns = u64::try_from(blocked.as_nanos()).unwrap_or(u64::MAX);
        }
        if let [cgroup] = cgroups {
            (filter.cgroup_id, filter.cgroup_level) = (cgroup.id, cgroup.level);
        }
        for (applies, bit) in [
            (self.lost, asks::LOST),
            (!self.units.is_empty() && cgroups.len() <= 1, asks::CGROUP),
            (self.stack, asks::STACK),
        ] {
            if applies {
                filter.asks |= bit;
            }
        }
        filter
    }

    /// Whether an event from the programs matches: below the cgroup of a unit there may be other units.
    pub(super) fn matches(&self, event: &WatchEvent) -> bool {
        let connection = match event {
            WatchEvent::Close(close) | WatchEvent::Correction(close) => &close.connection,
            WatchEvent::Orphan(end) => &end.connection,
        };
        let unit = &connection.unit;
        self.units.is_empty() || unit.is_empty() || self.units.contains(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_is_all() {
        assert_eq!(WatchFilter::default().to_kernel(&[]), Filter::ALL);
    }

    #[test]
    fn what_is_asked_for_is_told_to_the_programs() {
        let wanted = WatchFilter {
            outcomes: vec![Outcome::LingerAborted, Outcome::Graceful],
            units: vec!["a.service".into()],
            comm: Some("a name that is longer".into()),
            port: Some(443),
            lost: true,
            blocked: Some(Duration::from_millis(5)),
            stack: true,
        };
        let cgroup = CgroupAt { id: 77, level: 2 };
        let filter = wanted.to_kernel(&[cgroup]);
        let graceful = 1 << Outcome::Graceful.index();
        assert_eq!(
            filter.outcomes,
            graceful | 1 << Outcome::LingerAborted.index()
        );
        assert_eq!(
            filter.comm.map(u64::to_ne_bytes).concat(),
            *b"a name that is \0"
        );
        assert_eq!((filter.port, filter.blocked_ns), (443, 5_000_000));
        assert_eq!((filter.cgroup_id, filter.cgroup_level), (77, 2));
        assert_eq!(filter.asks, asks::LOST | asks::CGROUP | asks::STACK);
    }
}
