//! A watcher's place, and the ring that the kernel fills for it.

use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::{Array, ArrayOfMaps, MapData, MapError, RingBuf};
use linger_ebpf::{DAEMON, Event, Filter, WATCHERS, Watch};
use thiserror::Error;

use crate::ledger::{LedgerError, Shared, take};
use crate::probe::Maps;
use crate::sys::now_ns;

/// Why watching fails.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The maps cannot be used.
    #[error(transparent)]
    Maps(#[from] LedgerError),
    /// The ring cannot be created or installed.
    #[error("cannot make a ring for events")]
    Ring(#[source] MapError),
    /// The filter cannot be set.
    #[error("cannot tell the programs what is asked for")]
    Filter(#[source] MapError),
    /// All places are taken.
    #[error("{} others watch already, which is all that there may be: stop one of them", WATCHERS - 1)]
    Full,
}

/// One of the places for watchers. It is released on drop or, if the process dies, when its lease expires.
pub struct Watcher {
    place: u32,
    watch: Shared,
    filters: Array<MapData, Filter>,
    /// Kept open until the programs are loaded.
    _rings: ArrayOfMaps<MapData>,
    ring: RingBuf<MapData>,
    lease: Duration,
    /// Closes that began before this time belong to the previous holder of the place.
    since_ns: u64,
    /// The number of missed events when this watcher took the place.
    missed: u64,
}

/// How long a place is kept without a renewal.
const LEASE: Duration = Duration::from_secs(10);
/// The lease of the daemon, which reads its ring rarely.
const LEASE_OF_DAEMON: Duration = Duration::from_secs(60);
/// Size of a ring, bytes: some thousand closes, for watchers that read often.
const RING: u32 = 1 << 20;
/// Number of events that fit in a ring.
pub(crate) const RING_EVENTS: usize = RING as usize / (Event::HEAD + 8);
/// Size of the daemon's ring, bytes.
const RING_OF_DAEMON: u32 = 64 << 10;
/// Number of closes that fit in the daemon's ring.
const BUDGET_OF_DAEMON: u64 = RING_OF_DAEMON as u64 / (Event::HEAD as u64 + 8);

impl Watcher {
    /// Takes a free place.
    pub fn new(maps: &mut Maps, filter: &Filter) -> Result<Self, WatchError> {
        let watch = shared(maps)?;
        let now = now_ns();
        let until = now + nanoseconds(LEASE);
        let place = (0..WATCHERS)
            .filter(|place| *place != DAEMON)
            .find(|place| {
                let lease = lease(&watch, *place);
                let stands = lease.load(Ordering::Relaxed);
                stands < now && replace(lease, stands, until)
            });
        let place = place.ok_or(WatchError::Full)?;
        Self::at(place, watch, maps, filter, LEASE, RING)
    }

    /// Takes the daemon's place, of which there is only one, and watches from now on.
    pub fn of_daemon(maps: &mut Maps) -> Result<Self, WatchError> {
        let watch = shared(maps)?;
        let filter = &Filter::COSTLY;
        Self::at(DAEMON, watch, maps, filter, LEASE_OF_DAEMON, RING_OF_DAEMON)
    }

    fn at(
        place: u32,
        watch: Shared,
        maps: &mut Maps,
        filter: &Filter,
        lease: Duration,
        bytes: u32,
    ) -> Result<Self, WatchError> {
        let mut rings: ArrayOfMaps<MapData> = take(maps, "RINGS")?;
        let filters = take(maps, "FILTERS")?;
        let ring = ring(bytes).map_err(WatchError::Ring)?;
        rings.set(place, &ring, 0).map_err(WatchError::Ring)?;
        let ring = aya::maps::Map::RingBuf(ring)
            .try_into()
            .map_err(WatchError::Ring)?;
        let missed = missed(&watch, place).load(Ordering::Relaxed);
        let mut watcher = Self {
            place,
            watch,
            filters,
            _rings: rings,
            ring,
            lease,
            since_ns: 0,
            missed,
        };
        watcher.ask(filter)?;
        watcher.since_ns = now_ns();
        watcher.renew_lease();
        Ok(watcher)
    }

    /// Changes the filter.
    pub fn ask(&mut self, filter: &Filter) -> Result<(), WatchError> {
        let set = self.filters.set(self.place, filter, 0);
        set.map_err(WatchError::Filter)
    }

    /// Renews the lease. Call it every second, or every ten seconds in the daemon. Returns for how long the lease
    /// had expired: closes in that time are not reported.
    #[expect(clippy::must_use_candidate, reason = "not all need to know")]
    pub fn renew_lease(&self) -> Duration {
        let now = now_ns();
        let until = now + nanoseconds(self.lease);
        let ended = lease(&self.watch, self.place).swap(until, Ordering::Relaxed);
        if self.place == DAEMON {
            let budget = self.watch.word(offset_of!(Watch, budget));
            budget.store(BUDGET_OF_DAEMON, Ordering::Relaxed);
        } else {
            let all = self.watch.word(offset_of!(Watch, until));
            all.fetch_max(until, Ordering::Relaxed);
        }
        Duration::from_nanos(now.saturating_sub(ended))
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

    /// Number of events missed for lack of room since this watcher began.
    #[must_use]
    pub fn missed(&self) -> u64 {
        let missed = missed(&self.watch, self.place).load(Ordering::Relaxed);
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
        lease(&self.watch, self.place).store(0, Ordering::Relaxed);
    }
}

fn shared(maps: &Maps) -> Result<Shared, LedgerError> {
    Shared::map(maps, "WATCH", size_of::<Watch>())
}

fn lease(watch: &Shared, place: u32) -> &AtomicU64 {
    watch.word(offset_of!(Watch, leases) + place as usize * size_of::<u64>())
}

fn missed(watch: &Shared, place: u32) -> &AtomicU64 {
    watch.word(offset_of!(Watch, missed) + place as usize * size_of::<u64>())
}

fn replace(word: &AtomicU64, stands: u64, new: u64) -> bool {
    word.compare_exchange(stands, new, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

fn ring(bytes: u32) -> Result<MapData, MapError> {
    const BPF_MAP_TYPE_RINGBUF: u32 = 27;
    let ring = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF, 0, 0, bytes, 0);
    MapData::create(ring, "EVENTS", None)
}

/// Reads an event from its bytes, which may end before the stack.
fn read(bytes: &[u8]) -> Option<Event> {
    let mut event = MaybeUninit::new(Event::ZERO);
    let length = bytes.len();
    if length != Event::HEAD && length != size_of::<Event>() {
        return None;
    }
    // SAFETY: it has room for that many bytes; `Event` consists of integers without padding, for which any
    // bytes are valid.
    Some(unsafe {
        event
            .as_mut_ptr()
            .cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), length);
        event.assume_init()
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
