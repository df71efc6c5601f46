//! One orphan, from the close that leaves it behind to the end of its socket.
//!
//! `expect` → `returned` → `end`. A close that sends its FIN with payload outstanding makes the
//! record, under the socket lock, so before the end can come. When the close returns, what is still
//! outstanding is what it leaves behind; if that is nothing, there never was an orphan.
//!
//! Another CPU may end the socket while the close returns. Until the return, the record is the
//! closing thread's: the end only notes what it found. From then on it is the end's. Both steps are
//! compare-and-swaps of one word, which another record in the same memory could only match if its close
//! had begun in the same nanosecond.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{
    Close, Fate, Group, Kind, Orphan, Outcome, QueueBytes, Row, flag, omen,
    orphan_stage::{ENDED, LEFT, MASK, OPEN},
};

use crate::{
    atomic, close,
    kernel::{Memory, Probed, Sock, Tcp, jiffies, now_ns},
    ledger,
    maps::{self, EEXIST, ORPHANS},
    watch::{self, End},
    who,
};

const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;

/// A close sends its FIN while this much payload is outstanding.
#[inline(always)]
pub(crate) fn expect<M: Memory>(close: &mut Close, tcp: &Tcp<M>, bytes: u32) {
    close.orphan = close.start_ns << MASK.count_ones() | OPEN;
    let mut kept = keep(close, bytes, tcp.data_segs_in());
    if kept == EEXIST {
        // An earlier socket at this address has ended, and its record not. This takes its place.
        replaced(close.sk);
        kept = keep(close, bytes, tcp.data_segs_in());
    }
    if kept != 0 {
        return maps::lose_orphan(bytes);
    }
    close.flags |= flag::LEAVES;
}

/// Keeps the record of an orphan under its socket's address; 0, or why that failed.
///
/// A [global function](crate).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn keep(close: *const Close, bytes: u32, data_segs_in: u32) -> i32 {
    // SAFETY: what callers have is a record.
    let Some(close) = (unsafe { close.as_ref() }) else {
        return EEXIST;
    };
    let orphan = Orphan {
        stage: close.orphan,
        left_ns: close.start_ns,
        group: who::closes(close),
        bytes,
        data_segs_in,
        omen: omen::NONE,
        watched: (close.flags & flag::WATCHED != 0).into(),
        fate: Fate::Delivered as u32,
        unsent: 0,
        unacked: 0,
    };
    // From the stack: before Linux 6.2 no key of a map may stand in what a global function is lent.
    let key = close.sk;
    match ORPHANS.insert(key, &orphan, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            maps::add_hint(key, 1);
            0
        }
        Err(why) => why,
    }
}

/// Writes nobody to a place for a group: the kernel wants it written before it is lent to a global
/// function.
#[inline(always)]
pub(crate) fn write_nobody(group: &mut MaybeUninit<Group>) -> *mut Group {
    let words = group.as_mut_ptr().cast::<u64>();
    for place in 0..size_of::<Group>() / size_of::<u64>() {
        // SAFETY: within the group; volatile so that it is written here, whatever the function does.
        unsafe { words.add(place).write_volatile(0) };
    }
    group.as_mut_ptr()
}

/// Copies a group, by fields: at once, it would be by bytes.
#[inline(always)]
fn copy(from: &Group, to: &mut Group) {
    to.cgroup_id = from.cgroup_id;
    to.comm[0] = from.comm[0];
    to.comm[1] = from.comm[1];
    to.exe_inode = from.exe_inode;
    to.exe_device = from.exe_device;
    to.port = from.port;
    to.family = from.family;
}

/// The close returns. How many bytes it leaves behind, which are counted with it, by the caller; if that is
/// not 0, `whose` is written: an orphan counts for the same group as its close.
///
/// A [global function](crate).
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn returned(close: *const Close, whose: *mut Group) -> u32 {
    // SAFETY: what callers have is a record and a place for a group.
    let (Some(close), Some(whose)) = (unsafe { (close.as_ref(), whose.as_mut()) }) else {
        return 0;
    };
    // The socket may be gone, and this be nonsense: then the record is not open any more.
    let tcp = Sock::<Probed>::new(close.sk as *const u8).tcp();
    let queued = tcp.map_or(0, |tcp| close::narrow(tcp.queued_before_fin().sum()));
    leave(close, queued, whose)
}

/// The close is over: this much payload is left behind, if its socket has not ended. As [`returned`].
#[inline(always)]
fn leave(close: &Close, bytes: u32, whose: &mut Group) -> u32 {
    let key = close.sk;
    let Some(orphan) = record(key) else { return 0 };
    let open = close.orphan;
    if orphan.stage & !MASK != open {
        // Its socket ended, and another at this address has left something behind.
        return 0;
    }
    let stage = if bytes > 0 {
        copy(&orphan.group, whose);
        orphan.bytes = bytes;
        orphan.left_ns = now_ns();
        LEFT
    } else {
        ENDED
    };
    if atomic::replace(&raw mut orphan.stage, open, open | stage) {
        if stage == LEFT {
            return bytes;
        }
    } else if let Some(end) = count_inner(orphan)
        && orphan.watched != 0
    {
        watch::end(key, &end);
    }
    remove(key);
    0
}

/// The close will not be seen to return: what was outstanding at its decision is left behind. As
/// [`returned`].
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn leave_unseen(close: *const Close, whose: *mut Group) -> u32 {
    // SAFETY: what callers have is a record and a place for a group.
    let (Some(close), Some(whose)) = (unsafe { (close.as_ref(), whose.as_mut()) }) else {
        return 0;
    };
    record(close.sk).map_or(0, |orphan| leave(close, orphan.bytes, whose))
}

/// There will be no orphan: its close aborts, or waits and sees its connection die.
#[inline(always)]
pub(crate) fn forget(close: &mut Close) {
    if close.flags & flag::LEAVES != 0 {
        close.flags &= !flag::LEAVES;
        // SAFETY: a field of a map value; volatile because it may equal a pointer whose type the
        // verifier knows, and with which it lets no one calculate.
        remove(unsafe { core::ptr::read_volatile(&raw const close.sk) });
    }
}

/// There is no orphan after all, though it was counted as left: its close goes on to abort.
#[inline(always)]
pub(crate) fn take_back(key: u64) {
    if !maps::is_hinted(key) {
        return;
    }
    let Some(orphan) = record(key) else { return };
    let (group, bytes) = (orphan.group, u64::from(orphan.bytes));
    if orphan.stage & MASK == LEFT
        && remove(key)
        && let Some(row) = ledger::row(&group, LEAVING)
    {
        // SAFETY: fields of a map value. Less one, and less its bytes.
        unsafe {
            atomic::add(&raw mut (*row).left, u64::MAX);
            atomic::add(&raw mut (*row).orphan_bytes, bytes.wrapping_neg());
        }
    }
}

/// The kernel resets a connection, whatever the reason.
#[inline(always)]
pub(crate) fn reset(key: u64, by_rst: impl FnOnce() -> bool) {
    if maps::is_hinted(key)
        && let Some(orphan) = record(key)
    {
        orphan.omen = if by_rst() { omen::RST } else { omen::NO_RST };
    }
}

/// A socket that may have left something behind comes to its end, under its lock.
#[inline(always)]
pub(crate) fn end<M: Memory>(sk: &Sock<M>) {
    let key = sk.address();
    let (Some(orphan), Some(tcp)) = (record(key), sk.tcp()) else {
        return;
    };
    let mut stage = orphan.stage;
    let queued = tcp.queued_before_fin();
    let fate = if queued.sum() == 0 {
        Fate::Delivered
    } else {
        fate(sk, &tcp, orphan)
    };
    // SAFETY: a field of a map value; volatile so that it is read again: the verifier need not follow
    // every fate from here on.
    let fate = unsafe {
        let place = &raw mut orphan.fate;
        place.write_volatile(fate as u32);
        place.read_volatile()
    };
    if stage & MASK == OPEN {
        if queued.sum() > 0 {
            orphan.unsent = close::narrow(queued.unsent);
            orphan.unacked = close::narrow(queued.unacked);
        }
        if atomic::replace(&raw mut orphan.stage, stage, stage | ENDED) {
            return;
        }
        // Its close returned at this moment, and may have removed the record.
        let Some(returned) = record(key) else { return };
        stage = returned.stage;
    }
    if stage & MASK == LEFT {
        let orphan = *orphan;
        if remove(key) {
            let lived_ns = now_ns().saturating_sub(orphan.left_ns);
            if orphan.watched != 0 {
                let end = End::new(fate, orphan.bytes, &queued, lived_ns);
                watch::end(key, &end);
            }
            count_end(&orphan.group, fate, orphan.bytes, &queued, lived_ns);
        }
    }
}

/// What became of an orphan that ends with payload outstanding.
#[inline(always)]
fn fate<M: Memory>(sk: &Sock<M>, tcp: &Tcp<M>, orphan: &Orphan) -> Fate {
    match sk.err() {
        ECONNRESET => match orphan.omen {
            omen::RST => Fate::PeerReset,
            omen::NO_RST => Fate::LateData,
            _ if is_late_data(tcp, orphan) => Fate::LateData,
            _ => Fate::PeerReset,
        },
        ECONNABORTED => Fate::Destroyed,
        0 if sk.is_net_leaving() => Fate::Destroyed,
        0 => Fate::OrphanResources,
        _ => Fate::TimedOut,
    }
}

/// Whether it was data that made the kernel reset the connection, where that was not seen. Data ends
/// a closed socket as soon as it comes, and after its acknowledgement was taken; an RST before.
#[inline(always)]
fn is_late_data<M: Memory>(tcp: &Tcp<M>, orphan: &Orphan) -> bool {
    /// The clock may tick between the two.
    const TICK: u32 = 1;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "so does the kernel (tcp_jiffies32)"
    )]
    let now = jiffies() as u32;
    tcp.data_segs_in() != orphan.data_segs_in && now.wrapping_sub(tcp.rcv_tstamp()) <= TICK
}

/// Counts an orphan that ended within its close, if anything was lost with it.
#[inline(always)]
fn count_inner(orphan: &Orphan) -> Option<End> {
    let queued = QueueBytes {
        unsent: orphan.unsent.into(),
        unacked: orphan.unacked.into(),
    };
    let bytes = close::narrow(queued.sum());
    if bytes == 0 {
        return None;
    }
    count_left(&orphan.group, bytes);
    count_end(&orphan.group, orphan.fate, bytes, &queued, 0);
    Some(End::new(orphan.fate, bytes, &queued, 0))
}

/// Ends the record of a socket that is no more. Its close has not returned yet, or its end was missed.
#[inline(never)]
fn replaced(key: u64) {
    let Some(orphan) = record(key) else { return };
    match orphan.stage & MASK {
        ENDED => {
            count_inner(orphan);
        }
        LEFT => {
            let queued = QueueBytes {
                unsent: 0,
                unacked: orphan.bytes.into(),
            };
            let lived_ns = now_ns().saturating_sub(orphan.left_ns);
            let unknown = Fate::Unknown as u32;
            count_end(&orphan.group, unknown, orphan.bytes, &queued, lived_ns);
        }
        _ => maps::lose_orphan(orphan.bytes),
    }
    remove(key);
}

/// The kind of row where orphans are counted as left that are not counted together with their close.
const LEAVING: usize = Kind::Closes(Outcome::Graceful).index();

/// Adds to what a group's closes left behind.
#[inline(never)]
pub(crate) fn count_left(group: &Group, bytes: u32) {
    if let Some(row) = ledger::row(group, LEAVING) {
        add_left(row, bytes);
    }
}

/// Adds an orphan to the row of closes that left it.
#[inline(always)]
pub(crate) fn add_left(row: *mut Row, bytes: u32) {
    // SAFETY: fields of a map value.
    unsafe {
        atomic::add(&raw mut (*row).left, 1);
        atomic::add(&raw mut (*row).orphan_bytes, bytes.into());
    }
}

/// Adds the end of an orphan that was left with `bytes`, of which `queued` were still outstanding.
///
/// A function of its own, as [`close::count`].
#[inline(never)]
fn count_end(group: &Group, fate: u32, bytes: u32, queued: &QueueBytes, lived_ns: u64) {
    /// The first of the kinds of ends, which stand in the order of their fates.
    const ENDS: usize = Kind::Ends(Fate::Delivered).index();
    let Some(row) = ledger::row(group, ENDS + fate as usize) else {
        return;
    };
    ledger::add_time(row, lived_ns);
    // No more than there was.
    let bytes = u64::from(bytes);
    let unsent = queued.unsent.min(bytes);
    let unacked = queued.unacked.min(bytes - unsent);
    let delivered = bytes - unsent - unacked;
    ledger::add_discarded(row, QueueBytes { unsent, unacked });
    if delivered > 0 {
        // SAFETY: a field of a map value.
        atomic::add(unsafe { &raw mut (*row).orphan_bytes }, delivered);
    }
}

#[inline(always)]
fn record(key: u64) -> Option<&'static mut Orphan> {
    // SAFETY: see above who works on it; the reference does not outlive the program.
    ORPHANS
        .get_ptr_mut(key)
        .map(|orphan| unsafe { &mut *orphan })
}

/// Whether it was there to be removed.
#[inline(always)]
fn remove(key: u64) -> bool {
    let removed = ORPHANS.remove(key).is_ok();
    if removed {
        maps::add_hint(key, u64::MAX);
    }
    removed
}
