//! The latest costly closes, kept by the daemon.

use std::collections::VecDeque;

use linger_ebpf::{Event, event_kind};

use super::{Clock, Close, WatchError, WatchEvent, Watcher, decode};
use crate::attribution::Names;
use crate::probe::Maps;

/// The latest costly closes: those that lost payload, or blocked for long ([`linger_ebpf::COSTLY_NS`]). They are
/// a sample: if they come too fast, some are left out.
pub struct RecentCloses {
    watcher: Watcher,
    closes: VecDeque<Close>,
}

/// Maximum number of costly closes that are kept.
pub const MAX_RECENT: usize = 100;

impl RecentCloses {
    /// Starts keeping closes. Call it before the programs are attached.
    pub fn new(maps: &mut Maps) -> Result<Self, WatchError> {
        Ok(Self {
            watcher: Watcher::of_daemon(maps)?,
            closes: VecDeque::new(),
        })
    }

    /// Reads new events. Returns the closes, latest first. Call it at least every ten seconds. `name` returns the names
    /// of the cgroups with these ids.
    pub fn read(
        &mut self,
        name: impl FnOnce(&[u64]) -> Vec<Option<Names>>,
    ) -> impl Iterator<Item = &Close> {
        // Only the next daemon takes its place, after this one has ended.
        let _ = self.watcher.renew_lease();
        // The wall clock may have been set.
        let clock = Clock::of_host();
        let mut events: VecDeque<Event> = VecDeque::new();
        while let Some(event) = self.watcher.take() {
            if event.kind == event_kind::CLOSE {
                events.truncate(MAX_RECENT - 1);
                events.push_front(event);
            }
        }
        let cgroups: Vec<u64> = events.iter().map(|event| event.cgroup_id).collect();
        for (event, names) in events.iter().zip(name(&cgroups)).rev() {
            if let WatchEvent::Close(close) = decode(event, names.as_ref(), &clock) {
                self.closes.push_front(close);
            }
        }
        self.closes.truncate(MAX_RECENT);
        self.closes.iter()
    }
}
