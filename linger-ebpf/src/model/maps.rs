//! The maps and their sizes, with the reasons.
//!
//! In this order: counters and what names them, settings, records of closes and orphans, watchers, maps of the daemon
//! alone, losses. Behind them are the functions that look something up in a map and are used in several places.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{ArrayOfMaps, RingBuf},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
};
use linger_ebpf::{
    CLOSER_PLACES, Close, Closer, Counters, Event, Exe, ExitingProcess, Filter, GROUP_ROWS, Group,
    GroupSlot, HINTS, Lost, MAX_CLOSES, MAX_COMMS, MAX_GROUPS, MAX_LEFT_OUT, MAX_ORPHANS,
    MAX_WATCHED, Note, ORPHAN_SLOT_ENTRIES, Orphan, OrphanSlot, ParkedClose, Past, Path,
    PinMetadata, PortBits, Settings, Slot, UNDECIDED_PLACES, UndecidedOrphan, WATCHERS, Waits,
    Watch, hint,
};

use core::{arch::asm, cell::UnsafeCell};

use super::shared::shared;

/// Error of an insertion with `BPF_NOEXIST` if the key exists.
pub(crate) const EEXIST: i32 = -17;

/// Error of an insertion if the map is full.
pub(crate) const E2BIG: i32 = -7;

/// Error of a removal if the key does not exist.
pub(crate) const ENOENT: i32 = -2;

/// The groups in slots. The daemon maps it to see which slots are taken. The first entries, in place of
/// [`Group::SHARED`], are not used; if few groups fit, the daemon shrinks both arrays to these.
#[map]
pub(crate) static GROUP_SLOTS: Array<GroupSlot> =
    Array::with_max_entries(GROUP_ROWS, BPF_F_MMAPABLE);

/// The counters of [`Group::SHARED`], which always exist, and of the groups in slots.
#[map]
pub(crate) static ROWS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(GROUP_ROWS, 0);

/// The counters of groups whose slot is another's. Memory is allocated as groups appear: each costs
/// `size_of::<Counters>()` on every CPU. The daemon sets the limit, and the size of the keys, by the fields in use.
#[map]
pub(crate) static LEDGER: PerCpuHashMap<Group, Counters> =
    PerCpuHashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// The daemon's own notes about groups.
#[map]
static NOTES: HashMap<Group, Note> = HashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// Groups by number.
#[map]
pub(crate) static NUMBERS: HashMap<u64, Group> =
    HashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// The group that closed last at each local port. Only programs use it, by its address: no lookup.
#[unsafe(link_section = ".bss.closers")]
static CLOSERS: Closers = Closers(UnsafeCell::new(
    [Closer { mark: 0 }; CLOSER_PLACES as usize],
));

struct Closers(UnsafeCell<[Closer; CLOSER_PLACES as usize]>);

// SAFETY: it is only used through `Shared`.
unsafe impl Sync for Closers {}

/// The mark of a local port, by the port's key.
pub(crate) fn closer(key: u64) -> *mut Closer {
    // SAFETY: the index is less than the number of places.
    unsafe {
        CLOSERS
            .0
            .get()
            .cast::<Closer>()
            .add(Closer::index(key) as usize)
    }
}

/// The paths of cgroups that closed, by their id.
#[map]
pub(crate) static CGROUPS: HashMap<u64, Path> =
    HashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// The paths of the executables of processes that closed or exited.
#[map]
pub(crate) static EXES: HashMap<Exe, Path> =
    HashMap::with_max_entries(MAX_GROUPS, BPF_F_NO_PREALLOC);

/// The executables of exiting processes, by slot of the process id. The daemon shrinks the map if the label
/// `exe` is not in use.
#[map]
pub(crate) static EXITING: Array<ExitingProcess> = Array::with_max_entries(MAX_CLOSES, 0);

/// Settings that the daemon may change.
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// The cgroups that are left out, by id.
#[map]
static LEFT_OUT: HashMap<u64, u64> = HashMap::with_max_entries(MAX_LEFT_OUT, BPF_F_NO_PREALLOC);

/// Allowed and denied process names, each with a [`linger_ebpf::verdict`].
#[map]
static COMMS: HashMap<[u64; 2], u64> = HashMap::with_max_entries(MAX_COMMS, BPF_F_NO_PREALLOC);

/// Settings of local ports.
#[map]
static PORTS: Array<PortBits> = Array::with_max_entries(PortBits::ENTRIES, 0);

/// Closes in flight, by slot of the thread: found by one load, without hashing or locks. The daemon maps it
/// to see which slots are taken.
#[map]
pub(crate) static CLOSES: Array<Slot> = Array::with_max_entries(MAX_CLOSES, BPF_F_MMAPABLE);

/// Closes in flight whose slot is taken by another thread, by thread id.
#[map]
pub(crate) static CROWDED: HashMap<u32, Close> =
    HashMap::with_max_entries(MAX_CLOSES, BPF_F_NO_PREALLOC);

/// Waiting closes whose return is not seen, by address of their socket.
#[map]
pub(crate) static PARKED: HashMap<u64, ParkedClose> =
    HashMap::with_max_entries(MAX_CLOSES, BPF_F_NO_PREALLOC);

/// When a close last waited, and whether returns are seen. Shared with the daemon, which decides that.
#[map]
pub(crate) static WAITS: Array<Waits> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Orphans, by slot of their socket. The daemon maps it to see which slots are taken; if few orphans fit, it
/// shrinks the map to one entry, which none uses.
#[map]
pub(crate) static ORPHAN_SLOTS: Array<OrphanSlot> =
    Array::with_max_entries(ORPHAN_SLOT_ENTRIES, BPF_F_MMAPABLE);

/// Orphans whose slot is taken by another one, by address of their socket. The daemon sets the limit.
#[map]
pub(crate) static ORPHANS: HashMap<u64, Orphan> =
    HashMap::with_max_entries(MAX_ORPHANS, BPF_F_NO_PREALLOC);

/// Orphans that ended before their fate was known, at indices derived from their socket's address. The daemon
/// maps it to see which wait.
#[map]
pub(crate) static UNDECIDED: Array<UndecidedOrphan> =
    Array::with_max_entries(UNDECIDED_PLACES, BPF_F_MMAPABLE);

/// Number of records of orphans, and in `PARKED` and `UNDECIDED` for each hint, so that the end of any other socket
/// costs one lookup here. The daemon removes records too.
#[map]
static SOCKETS: Array<u64> = Array::with_max_entries(HINTS, BPF_F_MMAPABLE);

/// Identities of the RSTs counted last, at indices derived from their socket's address. The daemon shrinks the
/// map where no event is hooked more than once.
#[map]
static RESETS: Array<u64> = Array::with_max_entries(HINTS, 0);

/// Payload of lost orphans, bytes.
#[map]
static LOST_ORPHAN_BYTES: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The watchers' leases. Shared with all of them: none waits for another, or for the daemon.
#[map]
pub(crate) static WATCH: Array<Watch> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The filter of each watcher.
#[map]
pub(crate) static FILTERS: Array<Filter> = Array::with_max_entries(WATCHERS, 0);

/// A ring for each watcher, which creates it; it goes with the watcher or its successor. The inner map given
/// here is only a template.
#[btf_map]
pub(crate) static RINGS: ArrayOfMaps<RingBuf<Event, 4096>, { WATCHERS as usize }> =
    ArrayOfMaps::new();

/// Events of closes, by address of their socket, until they return and their orphan ends.
#[map]
pub(crate) static WATCHED: HashMap<u64, Event> =
    HashMap::with_max_entries(MAX_WATCHED, BPF_F_NO_PREALLOC);

/// Metadata of the programs. Used only by the daemon, like [`PAST`].
#[map]
static ORIGIN: Array<PinMetadata> = Array::with_max_entries(1, 0);

/// Counts kept by the daemon itself.
#[map]
static PAST: Array<Past> = Array::with_max_entries(1, 0);

/// Losses, by [`Lost`].
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSSES, 0);

#[expect(clippy::cast_possible_truncation, reason = "a handful")]
const LOSSES: u32 = Lost::COUNT as u32;

/// Counts one loss.
pub(crate) fn lose(what: Lost) {
    if let Some(count) = LOST.get_ptr_mut(what as u32) {
        shared!(count).add(1);
    }
}

/// Counts a lost orphan with its payload.
pub(crate) fn lose_orphan(bytes: u32) {
    lose(Lost::Orphan);
    if let Some(count) = LOST_ORPHAN_BYTES.get_ptr_mut(0) {
        shared!(count).add(bytes.into());
    }
}

/// The lower half of an address, as a number. The verifier allows copying it from a typed pointer; without the
/// assembly the compiler might do arithmetic on the pointer itself.
#[expect(clippy::cast_possible_truncation, reason = "that is asked for")]
pub(crate) fn lower_half(address: u64) -> u64 {
    let half: u32;
    // SAFETY: copies a register.
    unsafe {
        asm!("{half} = {address}", half = out(wreg) half, address = in(wreg) address as u32,
             options(pure, nomem, nostack));
    }
    half.into()
}

/// Whether there may be a record of this socket as an orphan, or in `PARKED` or `UNDECIDED`.
pub(crate) fn is_hinted(sk: u64) -> bool {
    SOCKETS
        .get_ptr_mut(hint(lower_half(sk)))
        .is_some_and(|count| shared!(count).get() > 0)
}

/// Adds to the number of records with the hint of this socket, wrapping: `u64::MAX` subtracts one.
pub(crate) fn add_hint(sk: u64, change: u64) {
    if let Some(count) = SOCKETS.get_ptr_mut(hint(lower_half(sk))) {
        shared!(count).add(change);
    }
}

/// Records the identity of an RST that is counted. Returns whether it is new.
pub(crate) fn is_new_reset(sk: u64, reset: u64) -> bool {
    let Some(last) = RESETS.get_ptr_mut(hint(lower_half(sk))) else {
        return true;
    };
    let last = shared!(last);
    let is_new = last.get() != reset;
    last.set(reset);
    is_new
}

/// The rules in use for leaving closes out, a set of [`linger_ebpf::rule`]s.
pub(crate) fn rules() -> u8 {
    SETTINGS
        .get_ptr_mut(0)
        .map_or(0, |settings| shared!(settings, rules).get())
}

/// Whether the cgroup with this id is left out.
pub(crate) fn is_cgroup_left_out(id: u64) -> bool {
    LEFT_OUT.get_ptr(id).is_some()
}

/// The [`linger_ebpf::verdict`] on a process name, 0 if there is none.
pub(crate) fn comm_verdict(comm: [u64; 2]) -> u64 {
    // SAFETY: a map value.
    COMMS
        .get_ptr(&comm)
        .map_or(0, |verdict| unsafe { *verdict })
}

/// The settings of one port.
pub(crate) struct Port {
    pub(crate) labelled: bool,
    pub(crate) allowed: bool,
    pub(crate) denied: bool,
}

/// The settings of this port.
pub(crate) fn port(port: u16) -> Port {
    let bit = 1 << (port % 64);
    let bits = PORTS.get(u32::from(port / 64)).copied().unwrap_or_default();
    Port {
        labelled: bits.labelled & bit != 0,
        allowed: bits.allowed & bit != 0,
        denied: bits.denied & bit != 0,
    }
}
