//! One orphan, from the close that leaves it behind to the end of its socket.
//!
//! `expect` → `returned` → `end`. A close that sends its FIN with payload outstanding makes the
//! record, under the socket lock, so before the end can come. When the close returns, what is still
//! outstanding is what it leaves behind; if that is nothing, there never was an orphan.
//!
//! Another CPU may end the socket while the close returns. Until the return, the record is the
//! closing thread's: the end only notes what it found. From then on it is the end's. Both steps are
//! compare-and-swaps of one word, which no other record in the same memory can match.

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

/// What a new record starts from. Its socket's lock keeps everyone from it until it is written.
static ZERO: Orphan = Orphan::ZERO;

/// A close sends its FIN while this much payload is outstanding.
#[inline(always)]
pub(crate) fn expect<M: Memory>(close: &mut Close, tcp: &Tcp<M>, bytes: u32) {
    let key = close.sk;
    match ORPHANS.insert(key, &ZERO, u64::from(BPF_NOEXIST)) {
        Ok(()) => maps::add_hint(key, 1),
        // An earlier socket at this address has ended, and its record not. This takes its place.
        Err(EEXIST) => replaced(key),
        Err(_) => return maps::lose_orphan(bytes),
    }
    let Some(orphan) = record(key) else {
        return maps::lose_orphan(bytes);
    };
    let now = now_ns();
    let stage = now << MASK.count_ones() | OPEN;
    orphan.stage = stage;
    orphan.left_ns = now;
    orphan.group = who::closes(close);
    orphan.bytes = bytes;
    orphan.data_segs_in = tcp.data_segs_in();
    orphan.omen = omen::NONE;
    orphan.watched = (close.flags & flag::WATCHED != 0).into();
    orphan.fate = Fate::Delivered as u32;
    orphan.unsent = 0;
    orphan.unacked = 0;
    close.flags |= flag::LEAVES;
    close.orphan = stage;
}

/// What a close left behind, and whose close it was: an orphan counts for the same.
pub(crate) struct Left {
    pub(crate) group: Group,
    pub(crate) bytes: u32,
}

/// The close returns. What it leaves behind is counted with it, by the caller.
#[inline(always)]
pub(crate) fn returned(close: &Close) -> Option<Left> {
    let tcp = Sock::<Probed>::new(close.sk as *const u8).tcp()?;
    // The socket may be gone, and this be nonsense: then the record is not open any more.
    leave(close, close::narrow(tcp.queued_before_fin().sum()))
}

/// The close is over: this much payload is left behind, if its socket has not ended.
#[inline(always)]
fn leave(close: &Close, bytes: u32) -> Option<Left> {
    let key = close.sk;
    let orphan = record(key)?;
    let open = close.orphan;
    if orphan.stage & !MASK != open {
        // Its socket ended, and another at this address has left something behind.
        return None;
    }
    let left = Left {
        group: orphan.group,
        bytes,
    };
    let stage = if bytes > 0 {
        orphan.bytes = bytes;
        orphan.left_ns = now_ns();
        LEFT
    } else {
        ENDED
    };
    if !atomic::replace(&raw mut orphan.stage, open, open | stage) {
        if let Some(end) = count_inner(orphan)
            && orphan.watched != 0
        {
            watch::end(key, &end);
        }
        remove(key);
        None
    } else if stage == LEFT {
        Some(left)
    } else {
        remove(key);
        None
    }
}

/// The close will not be seen to return: what was outstanding at its decision is left behind. It is
/// counted by the caller.
#[inline(always)]
pub(crate) fn leave_unseen(close: &Close) -> Option<Left> {
    if close.flags & flag::LEAVES == 0 {
        return None;
    }
    let bytes = record(close.sk)?.bytes;
    leave(close, bytes)
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
    let stage = orphan.stage;
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
        // Its close returned at this moment.
    }
    let Some(orphan) = record(key) else { return };
    if orphan.stage & MASK == LEFT {
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
    count_left(&Left {
        group: orphan.group,
        bytes,
    });
    count_end(&orphan.group, orphan.fate, bytes, &queued, 0);
    Some(End::new(orphan.fate, bytes, &queued, 0))
}

/// The record of a socket that is no more. Its close has not returned yet, or its end was missed.
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
}

/// The kind of row where orphans are counted as left that are not counted together with their close.
const LEAVING: usize = Kind::Closes(Outcome::Graceful).index();

/// Adds to what a group's closes left behind.
#[inline(never)]
pub(crate) fn count_left(left: &Left) {
    if let Some(row) = ledger::row(&left.group, LEAVING) {
        add_left(row, left.bytes);
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
