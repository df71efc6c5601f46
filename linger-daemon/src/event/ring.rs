//! A place among those who watch, and the ring that the kernel fills for it.

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

/// Why nothing can be watched.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The maps cannot be used.
    #[error(transparent)]
    Maps(#[from] LedgerError),
    /// The kernel makes no ring, or does not take it.
    #[error("cannot make a ring for events")]
    Ring(#[source] MapError),
    /// The kernel does not take what is asked for.
    #[error("cannot tell the programs what is asked for")]
    Filter(#[source] MapError),
    /// All places are taken.
    #[error("{} others watch already, which is all that there may be: stop one of them", WATCHERS - 1)]
    Full,
}

/// A place among those who watch. It is given up in the end, or, if that does not come to pass, some
/// seconds later.
pub struct Watcher {
    place: u32,
    watch: Shared,
    filters: Array<MapData, Filter>,
    /// Open until the programs are loaded.
    _rings: ArrayOfMaps<MapData>,
    ring: RingBuf<MapData>,
    lease: Duration,
    /// What began before this was for the one who had the place before.
    since_ns: u64,
    /// How many events had found no room when this one took the place.
    missed: u64,
}

/// How long a place is kept without a sign of life.
const LEASE: Duration = Duration::from_secs(10);
/// The same of the daemon, which looks at its ring seldom.
const LEASE_OF_DAEMON: Duration = Duration::from_secs(60);
/// Bytes of a ring: some thousand closes, for those who look often.
const RING: u32 = 1 << 20;
/// As many events as that has room for.
pub(crate) const RING_EVENTS: usize = RING as usize / (Event::HEAD + 8);
/// Bytes of that of the daemon.
const RING_OF_DAEMON: u32 = 64 << 10;
/// As many closes as that has room for.
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

    /// Takes the daemon's place. It watches from now on, and there is but one.
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

    /// Asks for other closes from now on.
    pub fn ask(&mut self, filter: &Filter) -> Result<(), WatchError> {
        let set = self.filters.set(self.place, filter, 0);
        set.map_err(WatchError::Filter)
    }

    /// Keeps the place for some seconds more: to be called each second, or, by the daemon, each ten. Returns
    /// for how long it was not kept, because that was not done: what was closed then is not told.
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

    /// The next event; none if there is none yet.
    pub fn take(&mut self) -> Option<Event> {
        while let Some(item) = self.ring.next() {
            let event = read(&item);
            if event.is_some_and(|event| event.start_ns >= self.since_ns) {
                return event;
            }
        }
        None
    }

    /// How many events found no room since this one watches.
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

/// An event from its bytes, which may end before its stack.
fn read(bytes: &[u8]) -> Option<Event> {
    let mut event = MaybeUninit::new(Event::ZERO);
    let length = bytes.len();
    if length != Event::HEAD && length != size_of::<Event>() {
        return None;
    }
    // SAFETY: it has room for that many bytes; `Event` is made of integers without padding, so that any
    // bytes are one.
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
