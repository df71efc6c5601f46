//! A watcher's place, and the ring buffer that the programs fill for it.

use std::mem::{self, offset_of};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::{Array, ArrayOfMaps, MapData, MapError, RingBuf};
use aya_obj::generated::bpf_map_type;
use linger_ebpf::pod::words_mut;
use linger_ebpf::{DAEMON, Event, Filter, WATCHERS, Watch};
use thiserror::Error;

use crate::ledger::{LedgerError, MappedArray, take};
use crate::probe::Maps;
use crate::sys::now_ns;

/// The reason why watching fails.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The maps cannot be used.
    #[error(transparent)]
    Maps(#[from] LedgerError),
    /// The ring cannot be created or installed.
    #[error("cannot create a ring buffer for events")]
    Ring(#[source] MapError),
    /// The filter cannot be set.
    #[error("cannot set the filter of the programs")]
    Filter(#[source] MapError),
    /// All places are taken.
    #[error("{} lingerd watch are running, and no more are possible: stop one of them", WATCHERS - 1)]
    Full,
    /// Another watcher has taken the place.
    #[error("suspended for so long that another lingerd watch took its place: start it again")]
    Replaced,
}

/// One of the places for watchers. It is released on drop or, if the process dies, when its lease expires.
pub struct Watcher {
    place: u32,
    /// The end of its lease as set by this watcher: any other shows that the place is another's.
    until: u64,
    watch: MappedArray<Watch>,
    filters: Array<MapData, Filter>,
    /// Kept open until the programs are loaded.
    _rings: ArrayOfMaps<MapData>,
    ring: RingBuf<MapData>,
    /// Closes that began before this time belong to the previous holder of the place.
    since_ns: u64,
    /// The number of missed events when this watcher took the place.
    missed: u64,
}

/// How long the place of a watcher that was killed is kept.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// How long a place is kept without a renewal, nanoseconds.
const LEASE_NS: u64 = LEASE.as_secs() * 1_000_000_000;
/// The lease of the daemon, which reads its ring rarely.
const LEASE_OF_DAEMON_NS: u64 = 60_000_000_000;
/// Size of a ring, bytes: some thousand closes, for watchers that read often.
const RING: u32 = 1 << 20;
/// Number of events that fit in a ring.
pub(crate) const RING_EVENTS: usize = RING as usize / (Event::HEAD + 8);
/// Size of the daemon's ring, bytes.
const RING_OF_DAEMON: u32 = 64 << 10;
/// Number of closes that fit in the daemon's ring.
const BUDGET_OF_DAEMON: u64 = RING_OF_DAEMON as u64 / (Event::HEAD as u64 + 8);

const LEASES: usize = offset_of!(Watch, leases);
const MISSED: usize = offset_of!(Watch, missed);

impl Watcher {
    /// Takes a free place.
    pub fn new(maps: &mut Maps, filter: &Filter) -> Result<Self, WatchError> {
        let watch = MappedArray::map(maps, "WATCH")?;
        let now = now_ns();
        let until = now + LEASE_NS;
        let take = |place: u32| {
            let lease = word(&watch, LEASES, place);
            let free = |taken: u64| (taken < now).then_some(until);
            lease.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free)
        };
        let mut places = (0..WATCHERS).filter(|place| *place != DAEMON);
        let place = places.find(|place| take(*place).is_ok());
        Self::at(place.ok_or(WatchError::Full)?, until, watch, maps, filter)
    }

    /// Takes the daemon's place, of which there is only one, and watches from now on.
    pub fn of_daemon(maps: &mut Maps) -> Result<Self, WatchError> {
        let watch = MappedArray::map(maps, "WATCH")?;
        let until = word(&watch, LEASES, DAEMON).load(Ordering::Relaxed);
        Self::at(DAEMON, until, watch, maps, &Filter::COSTLY)
    }

    fn at(
        place: u32,
        until: u64,
        watch: MappedArray<Watch>,
        maps: &mut Maps,
        filter: &Filter,
    ) -> Result<Self, WatchError> {
        let mut rings: ArrayOfMaps<MapData> = take(maps, "RINGS")?;
        let filters = take(maps, "FILTERS")?;
        let bytes = if place == DAEMON {
            RING_OF_DAEMON
        } else {
            RING
        };
        let ring = bpf_map_type::BPF_MAP_TYPE_RINGBUF as u32;
        let ring = aya_obj::Map::new_from_params(ring, 0, 0, bytes, 0);
        let ring = MapData::create(ring, "EVENTS", None).map_err(WatchError::Ring)?;
        rings.set(place, &ring, 0).map_err(WatchError::Ring)?;
        let ring = aya::maps::Map::RingBuf(ring)
            .try_into()
            .map_err(WatchError::Ring)?;
        let missed = word(&watch, MISSED, place).load(Ordering::Relaxed);
        let mut watcher = Self {
            place,
            until,
            watch,
            filters,
            _rings: rings,
            ring,
            since_ns: 0,
            missed,
        };
        watcher.ask(filter)?;
        watcher.since_ns = now_ns();
        watcher.renew_lease()?;
        Ok(watcher)
    }

    /// Changes the filter.
    pub fn ask(&mut self, filter: &Filter) -> Result<(), WatchError> {
        let set = self.filters.set(self.place, filter, 0);
        set.map_err(WatchError::Filter)
    }

    /// Renews the lease. Call it every second, or every ten seconds in the daemon. Returns for how long the lease
    /// had expired: closes in that time are not reported.
    pub fn renew_lease(&mut self) -> Result<Duration, WatchError> {
        let now = now_ns();
        let until = if self.place == DAEMON {
            let budget = self.watch.word(0, offset_of!(Watch, budget));
            budget.store(BUDGET_OF_DAEMON, Ordering::Relaxed);
            now + LEASE_OF_DAEMON_NS
        } else {
            let all = self.watch.word(0, offset_of!(Watch, until));
            all.fetch_max(now + LEASE_NS, Ordering::Relaxed);
            now + LEASE_NS
        };
        self.set_lease(until)?;
        let ended = mem::replace(&mut self.until, until);
        Ok(Duration::from_nanos(now.saturating_sub(ended)))
    }

    /// Sets the end of the lease, unless another watcher has taken the place after an earlier end.
    fn set_lease(&self, until: u64) -> Result<u64, WatchError> {
        let lease = word(&self.watch, LEASES, self.place);
        let set = lease.compare_exchange(self.until, until, Ordering::Relaxed, Ordering::Relaxed);
        set.map_err(|_| WatchError::Replaced)
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        while let Some(item) = self.ring.next() {
            let event = read(&item);
            if event.is_some_and(|event| event.start_ns >= self.since_ns) {
                return event;
            }
        }
        None
    }

    /// Number of events missed since this watcher began, because its ring was full or there was no room for the record of
    /// the close.
    #[must_use]
    pub fn missed(&self) -> u64 {
        let missed = word(&self.watch, MISSED, self.place).load(Ordering::Relaxed);
        missed.wrapping_sub(self.missed)
    }
}

impl AsFd for Watcher {
    /// Readable when there are events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // If another watcher has taken the place, it keeps it.
        let _ = self.set_lease(0);
    }
}

/// Returns the word of a place in one of the arrays [`LEASES`] and [`MISSED`].
fn word(watch: &MappedArray<Watch>, array: usize, place: u32) -> &AtomicU64 {
    watch.word(0, array + place as usize * size_of::<u64>())
}

/// Reads an event from its bytes, which may end before the stack.
fn read(bytes: &[u8]) -> Option<Event> {
    let is_head = bytes.len() == Event::HEAD;
    if !is_head && bytes.len() != size_of::<Event>() {
        return None;
    }
    let mut event = Event::ZERO;
    let (words, _) = bytes.as_chunks();
    for (to, from) in words_mut(&mut event).iter_mut().zip(words) {
        *to = u64::from_ne_bytes(*from);
    }
    if is_head {
        // The stack, if there is one, is for another watcher or was sent with an earlier event.
        event.stack_bytes = 0;
    }
    Some(event)
}
