//! One orphan, from the close that leaves it behind to the end of its socket.
//!
//! `expect` → `returned` → `end`. A close that sends its FIN with payload outstanding makes the
//! record, under the socket lock, so before the end can come. When the close returns, what is still
//! outstanding is what it leaves behind; if that is nothing, there never was an orphan.
//!
//! Under the plan `tracepoint` another CPU may end the socket while the close returns, and nothing locks the two
//! against each other: every step of the record is a compare-and-swap of its first word, which another record
//! in the same memory could only match if its close had begun in the same nanosecond. Who makes a step may then
//! write what belongs to it: the close, until it has left the record behind; the end, once it has
//! claimed it.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{
    Close, Fate, Group, Kind, Orphan, Outcome, QueueBytes, Row, flag, omen,
    orphan_stage::{ENDED, ENDING, LEFT, MASK, OPEN, SPENT},
};

use crate::{
    close,
    kernel::{Memory, Probed, Sock, Tcp, jiffies, now_ns},
    ledger,
    maps::{self, EEXIST, ENOENT, ORPHANS},
    shared::{copy, shared},
    watch::{self, End},
    who,
};

const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;

/// A close sends its FIN while this much payload is outstanding. Whether there was room for a record.
#[inline(always)]
pub(crate) fn expect<M: Memory>(close: &mut Close, tcp: &Tcp<M>, bytes: u32) -> bool {
    close.orphan = close.start_ns << MASK.count_ones() | OPEN;
    let mut kept = keep(close, bytes, tcp.data_segs_in());
    if kept == EEXIST {
        // An earlier socket at this address has ended, and its record not. This takes its place.
        replaced(close.sk);
        kept = keep(close, bytes, tcp.data_segs_in());
    }
    if kept == 0 {
        close.flags |= flag::LEAVES;
    }
    kept == 0
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
    let (stage, open) = (shared!(orphan, stage), close.orphan);
    if stage.get() & !MASK != open {
        // Its socket ended, and another at this address has left something behind.
        return 0;
    }
    // No more than at the decision: a SYN that was not acknowledged yet is no payload.
    let bytes = bytes.min(shared!(orphan, bytes).get());
    shared!(orphan, bytes).set(bytes);
    shared!(orphan, left_ns).set(now_ns());
    if bytes > 0 {
        *whose = copy(shared!(orphan, group));
    }
    let step = if bytes > 0 { LEFT } else { ENDED };
    if stage.replace(open, open | step) {
        if step == ENDED {
            remove(key);
        }
        return bytes;
    }
    if stage.replace(open | ENDING, open | LEFT) {
        // Its socket ends at this moment: that has the record now.
        return bytes;
    }
    if let Some(end) = count_inner(orphan)
        && shared!(orphan, watched).get() != 0
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
    record(close.sk).map_or(0, |orphan| {
        leave(close, shared!(orphan, bytes).get(), whose)
    })
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
    if let Some(Orphan { group, bytes, .. }) = take(key, orphan)
        && let Some(row) = ledger::row(&group, LEAVING)
    {
        // Less one, and less its bytes.
        shared!(row, left).add(u64::MAX);
        shared!(row, orphan_bytes).add(u64::from(bytes).wrapping_neg());
    }
}

/// The kernel resets a connection, whatever the reason.
#[inline(always)]
pub(crate) fn reset(key: u64, by_rst: impl FnOnce() -> bool) {
    if maps::is_hinted(key)
        && let Some(orphan) = record(key)
    {
        shared!(orphan, omen).set(if by_rst() { omen::RST } else { omen::NO_RST });
    }
}

/// A socket that may have left something behind comes to its end, under its lock.
#[inline(always)]
pub(crate) fn end<M: Memory>(sk: &Sock<M>) {
    let key = sk.address();
    let (Some(orphan), Some(tcp)) = (record(key), sk.tcp()) else {
        return;
    };
    let stage = shared!(orphan, stage);
    let queued = tcp.queued_before_fin();
    let mut fate = if queued.sum() == 0 {
        Fate::Delivered
    } else {
        fate(sk, &tcp, orphan)
    } as u32;
    // SAFETY: a local; volatile so that it is read again: the verifier need not follow every fate from here on.
    let fate = unsafe { (&raw mut fate).read_volatile() };
    let found = stage.get();
    if found & MASK == OPEN && found != SPENT && stage.replace(found, found | ENDING) {
        shared!(orphan, fate).set(fate);
        shared!(orphan, unsent).set(close::narrow(queued.unsent));
        shared!(orphan, unacked).set(close::narrow(queued.unacked));
        if stage.replace(found | ENDING, found | ENDED) {
            return;
        }
        // Its close has returned meanwhile.
    }
    // It may have returned before, and have removed the record.
    let Some(orphan) = record(key) else { return };
    if let Some(orphan) = take(key, orphan)
        && orphan.bytes > 0
    {
        let lived_ns = now_ns().saturating_sub(orphan.left_ns);
        if orphan.watched != 0 {
            let end = End::new(fate, orphan.bytes, &queued, lived_ns);
            watch::end(key, &end);
        }
        count_end(&orphan.group, fate, orphan.bytes, &queued, lived_ns);
    }
}

/// Takes an orphan that was left behind out of its record, if no one else has.
#[inline(always)]
fn take(key: u64, record: *mut Orphan) -> Option<Orphan> {
    let stage = shared!(record, stage);
    let found = stage.get();
    let orphan = copy(shared!(record));
    // A record that the kernel does not remove, for a lock that it does not get, is removed later.
    let ours = found & MASK == LEFT && stage.replace(found, SPENT) && remove(key) != ENOENT;
    ours.then_some(orphan)
}

/// What became of an orphan that ends with payload outstanding.
#[inline(always)]
fn fate<M: Memory>(sk: &Sock<M>, tcp: &Tcp<M>, orphan: *mut Orphan) -> Fate {
    match sk.err() {
        ECONNRESET => match shared!(orphan, omen).get() {
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
fn is_late_data<M: Memory>(tcp: &Tcp<M>, orphan: *mut Orphan) -> bool {
    /// The clock may tick between the two.
    const TICK: u32 = 1;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "so does the kernel (tcp_jiffies32)"
    )]
    let now = jiffies() as u32;
    tcp.data_segs_in() != shared!(orphan, data_segs_in).get()
        && now.wrapping_sub(tcp.rcv_tstamp()) <= TICK
}

/// Counts an orphan that ended within its close, if anything was lost with it.
#[inline(always)]
fn count_inner(orphan: *mut Orphan) -> Option<End> {
    let queued = QueueBytes {
        unsent: shared!(orphan, unsent).get().into(),
        unacked: shared!(orphan, unacked).get().into(),
    };
    let bytes = close::narrow(queued.sum());
    if bytes == 0 {
        return None;
    }
    let (group, fate) = (copy(shared!(orphan, group)), shared!(orphan, fate).get());
    count_left(&group, bytes);
    count_end(&group, fate, bytes, &queued, 0);
    Some(End::new(fate, bytes, &queued, 0))
}

/// Ends the record of a socket that is no more. Its close has not returned yet, or its end was missed.
#[inline(never)]
fn replaced(key: u64) {
    let Some(orphan) = record(key) else { return };
    let stage = shared!(orphan, stage).get();
    let bytes = shared!(orphan, bytes).get();
    match stage & MASK {
        _ if stage == SPENT => {}
        ENDED => {
            count_inner(orphan);
        }
        LEFT => {
            let queued = QueueBytes {
                unsent: 0,
                unacked: bytes.into(),
            };
            let lived_ns = now_ns().saturating_sub(shared!(orphan, left_ns).get());
            let unknown = Fate::Unknown as u32;
            let group = copy(shared!(orphan, group));
            count_end(&group, unknown, bytes, &queued, lived_ns);
        }
        _ => maps::lose_orphan(bytes),
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
    shared!(row, left).add(1);
    shared!(row, orphan_bytes).add(bytes.into());
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
        shared!(row, orphan_bytes).add(delivered);
    }
}

#[inline(always)]
fn record(key: u64) -> Option<*mut Orphan> {
    ORPHANS.get_ptr_mut(key)
}

/// Removes a record; 0, or why that failed: [`ENOENT`] if it was not there, others if the kernel does not get
/// its lock.
#[inline(always)]
fn remove(key: u64) -> i32 {
    match ORPHANS.remove(key) {
        Ok(()) => {
            maps::add_hint(key, u64::MAX);
            0
        }
        Err(why) => why,
    }
}
