//! One orphan, from the close that leaves it behind to the end of its socket.
//!
//! `expect` → `returned` → `end`. A close that sends its FIN with payload outstanding makes the
//! record, under the socket lock, so before the end can come. When the close returns, what is still
//! outstanding is what it leaves behind; if that is nothing, there never was an orphan.
//!
//! Another CPU may end the socket while the close returns. Until the return, the record is the
//! closing thread's: the end only notes what it found. From then on it is the end's. Both steps are
//! compare-and-swaps of one word, which no other record in the same memory can match.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use linger_ebpf::{
    Close, Ends, Fate, Group, Orphan, Orphans, QueueBytes, flag, omen,
    orphan_stage::{ENDED, LEFT, MASK, OPEN},
};

use crate::{
    atomic, close,
    kernel::{Memory, Sock, Task, Tcp, jiffies, now_ns},
    maps::{self, ORPHANS},
};

const EEXIST: i32 = -17;
const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;

/// A close sends its FIN while this much payload is outstanding.
#[inline(always)]
pub(crate) fn expect<M: Memory>(close: &mut Close, tcp: &Tcp<M>, bytes: u32) {
    let now = now_ns();
    let stage = now << MASK.count_ones() | OPEN;
    let orphan = Orphan {
        stage,
        left_ns: now,
        group: Task::current().group(),
        bytes,
        data_segs_in: tcp.data_segs_in(),
        omen: omen::NONE,
        fate: Fate::Delivered as u32,
        unsent: 0,
        unacked: 0,
    };
    let key = close.sk;
    match ORPHANS.insert(key, orphan, u64::from(BPF_NOEXIST)) {
        Ok(()) => maps::add_hint(key, 1),
        Err(EEXIST) => {
            // An earlier socket at this address has ended, and its record not.
            replaced(key);
            // It was there: this takes its place.
            let _ = ORPHANS.insert(key, orphan, u64::from(BPF_ANY));
        }
        Err(_) => return maps::lose_orphan(bytes),
    }
    close.flags |= flag::LEAVES;
    close.orphan = stage;
}

/// The close returns.
#[inline(always)]
pub(crate) fn returned<M: Memory>(close: &Close, sk: &Sock<M>) {
    let Some(tcp) = sk.tcp() else { return };
    // The socket may be gone, and this be nonsense: then the record is not open any more.
    leave(close, close::narrow(tcp.queued_before_fin().sum()));
}

/// The close is over: this much payload is left behind, if its socket has not ended.
#[inline(always)]
pub(crate) fn leave(close: &Close, bytes: u32) {
    let key = close.sk;
    let Some(orphan) = record(key) else { return };
    let open = close.orphan;
    if orphan.stage & !MASK != open {
        // Its socket ended, and another at this address has left something behind.
        return;
    }
    let group = orphan.group;
    let stage = if bytes > 0 {
        orphan.bytes = bytes;
        orphan.left_ns = now_ns();
        LEFT
    } else {
        ENDED
    };
    if !atomic::replace(&raw mut orphan.stage, open, open | stage) {
        count_inner(orphan);
        remove(key);
    } else if stage == LEFT {
        count_left(&group, bytes);
    } else {
        remove(key);
    }
}

/// The close will not be seen to return: what was outstanding at its decision is left behind.
#[inline(always)]
pub(crate) fn leave_unseen(close: &Close) {
    if close.flags & flag::LEAVES != 0
        && let Some(orphan) = record(close.sk)
    {
        leave(close, orphan.bytes);
    }
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
        && let Some(orphans) = orphans(&group)
    {
        // SAFETY: fields of a map value. Less one, and less its bytes.
        unsafe {
            atomic::add(&raw mut (*orphans).left, u64::MAX);
            atomic::add(&raw mut (*orphans).left_bytes, bytes.wrapping_neg());
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
    if stage & MASK == OPEN {
        if queued.sum() > 0 {
            orphan.fate = fate as u32;
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
            count_end(&orphan.group, fate as u32, orphan.bytes, queued, lived_ns);
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
fn count_inner(orphan: &Orphan) {
    let queued = QueueBytes {
        unsent: orphan.unsent.into(),
        unacked: orphan.unacked.into(),
    };
    let bytes = close::narrow(queued.sum());
    if bytes > 0 {
        count_left(&orphan.group, bytes);
        count_end(&orphan.group, orphan.fate, bytes, queued, 0);
    }
}

/// The record of a socket that is no more. Its close has not returned yet, or its end was missed.
#[inline(always)]
fn replaced(key: u64) {
    let Some(orphan) = record(key) else { return };
    match orphan.stage & MASK {
        ENDED => count_inner(orphan),
        LEFT => {
            let queued = QueueBytes {
                unsent: 0,
                unacked: orphan.bytes.into(),
            };
            let lived_ns = now_ns().saturating_sub(orphan.left_ns);
            let unknown = Fate::Unknown as u32;
            count_end(&orphan.group, unknown, orphan.bytes, queued, lived_ns);
        }
        _ => maps::lose_orphan(orphan.bytes),
    }
}

/// Adds to what a group's closes left behind.
#[inline(always)]
fn count_left(group: &Group, bytes: u32) {
    let Some(orphans) = orphans(group) else {
        return;
    };
    // SAFETY: fields of a map value.
    unsafe {
        atomic::add(&raw mut (*orphans).left, 1);
        atomic::add(&raw mut (*orphans).left_bytes, bytes.into());
    }
}

/// Adds the end of an orphan that was left with `bytes`, of which `queued` were still outstanding.
#[inline(always)]
fn count_end(group: &Group, fate: u32, bytes: u32, queued: QueueBytes, lived_ns: u64) {
    let Some(orphans) = orphans(group) else {
        return;
    };
    // SAFETY: a local; volatile so that the check is made where the verifier sees it.
    let fate = unsafe { core::ptr::read_volatile(&raw const fate) } as usize;
    if fate >= Fate::COUNT {
        return;
    }
    // SAFETY: fields of a map value; the index is within bounds.
    unsafe {
        let ends = (&raw mut (*orphans).ends).cast::<Ends>().add(fate);
        close::add_time(
            (&raw mut (*ends).buckets).cast(),
            &raw mut (*ends).lived_ns,
            lived_ns,
        );
        // No more than there was.
        let bytes = u64::from(bytes);
        let unsent = queued.unsent.min(bytes);
        let unacked = queued.unacked.min(bytes - unsent);
        let delivered = bytes - unsent - unacked;
        close::add_discarded(&raw mut (*ends).discarded, QueueBytes { unsent, unacked });
        if delivered > 0 {
            atomic::add(&raw mut (*orphans).delivered_bytes, delivered);
        }
    }
}

#[inline(always)]
fn orphans(group: &Group) -> Option<*mut Orphans> {
    // SAFETY: a field of a map value.
    maps::counters(group).map(|counters| unsafe { &raw mut (*counters).orphans })
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
