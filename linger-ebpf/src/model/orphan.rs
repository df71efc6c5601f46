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
    Close, Counters, Fate, Group, LIVED_BOUNDS_NS, Orphan, QueueBytes, UNDECIDED, UndecidedOrphan,
    flag, omen,
    orphan_stage::{ENDED, ENDING, LEFT, MASK, OPEN, SPENT},
};

use super::{
    closers, group, ledger,
    maps::{self, EEXIST, ENOENT, ORPHANS},
    shared::{copy, shared, zero},
    undecided,
    watch::{self, End},
};
use crate::kernel::{Memory, ProbeRead, Sock, narrow, now_ns, state};

/// What a record begins with.
const _: () = assert!(Fate::Delivered as u32 == 0);

const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;

/// A close sends its FIN while this much payload is outstanding. Whether there was room for a record.
pub(crate) fn expect(close: &mut Close, bytes: u32) -> bool {
    let mut kept = keep(close, bytes);
    if kept == EEXIST {
        // An earlier socket at this address has ended, and its record not. This takes its place.
        replaced(close.sk);
        kept = keep(close, bytes);
    }
    if kept == 0 {
        close.flags |= flag::LEAVES;
    }
    kept == 0
}

/// Keeps the record of an orphan under its socket's address; 0, or why that failed.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_keep")]
extern "C" fn keep(close: *const Close, bytes: u32) -> i32 {
    // SAFETY: what callers have is a record.
    let Some(close) = (unsafe { close.as_ref() }) else {
        return EEXIST;
    };
    let zero = zero();
    let orphan = Orphan {
        stage: close.orphan(),
        sk: close.sk,
        left_ns: close.start_ns,
        group: group::of_close(close),
        bytes,
        omen: omen::NONE,
        watched: (close.flags & flag::WATCHED != 0).into(),
        fate: zero,
        unsent: zero,
        unacked: zero,
        write_seq: zero,
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
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_returned")]
pub(crate) extern "C" fn returned(close: *const Close, whose: *mut Group) -> u32 {
    // SAFETY: what callers have is a record and a place for a group.
    let (Some(close), Some(whose)) = (unsafe { (close.as_ref(), whose.as_mut()) }) else {
        return 0;
    };
    // The socket may be gone, and this be nonsense: then the record is not open any more.
    let tcp = Sock::<ProbeRead>::new(close.sk as *const u8).tcp();
    let queued = tcp.map_or(0, |tcp| narrow(tcp.queued_before_fin().sum()));
    leave(close, queued, whose)
}

/// The close is over: this much payload is left behind, if its socket has not ended. As [`returned`].
fn leave(close: &Close, bytes: u32, whose: &mut Group) -> u32 {
    let key = close.sk;
    let Some(orphan) = record(key) else { return 0 };
    let (stage, open) = (shared!(orphan, stage), close.orphan());
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
    count_inner(key, orphan);
    remove(key);
    0
}

/// The close will not be seen to return: what was outstanding at its decision is left behind. As
/// [`returned`].
#[inline(never)]
#[unsafe(export_name = "linger_leave_unseen")]
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
pub(crate) fn forget(close: &mut Close) {
    if close.flags & flag::LEAVES != 0 {
        close.flags &= !flag::LEAVES;
        // SAFETY: a field of a map value; volatile because it may equal a pointer whose type the
        // verifier knows, and with which it lets no one calculate.
        remove(unsafe { core::ptr::read_volatile(&raw const close.sk) });
    }
}

/// There is no orphan after all, though it was counted as left: its close goes on to abort.
pub(crate) fn take_back(key: u64) {
    if !maps::is_hinted(key) {
        return;
    }
    let Some(orphan) = record(key) else { return };
    if let Some(Orphan { group, bytes, .. }) = take(key, orphan)
        && let Some(counters) = ledger::counters(&group)
    {
        // Less one, and less its bytes.
        shared!(counters, orphans.left).add(u64::MAX);
        shared!(counters, orphans.left_bytes).add(u64::from(bytes).wrapping_neg());
    }
}

/// The kernel resets a connection, whatever the reason.
pub(crate) fn reset(key: u64, by_rst: impl FnOnce() -> bool) {
    if maps::is_hinted(key)
        && let Some(orphan) = record(key)
    {
        shared!(orphan, omen).set(if by_rst() { omen::RST } else { omen::NO_RST });
    }
}

/// A socket that may have left something behind comes to its end, under its lock.
pub(crate) fn end<M: Memory>(sk: &Sock<M>) {
    let key = sk.address();
    let (Some(orphan), Some(tcp)) = (record(key), sk.tcp()) else {
        return;
    };
    let stage = shared!(orphan, stage);
    let queued = tcp.queued_before_fin();
    let mut fate = if queued.sum() == 0 {
        Fate::Delivered as u32
    } else {
        fate(sk, shared!(orphan, omen).get())
    };
    // SAFETY: a local; volatile so that it is read again: the verifier need not follow every fate from here on.
    let fate = unsafe { (&raw mut fate).read_volatile() };
    let (unsent, unacked) = (narrow(queued.unsent), narrow(queued.unacked));
    let found = stage.get();
    if fate == Fate::LateData as u32 {
        closers::mark_for(sk, &tcp, orphan);
    }
    if found & MASK == OPEN && found != SPENT && stage.replace(found, found | ENDING) {
        shared!(orphan, fate).set(fate);
        shared!(orphan, unsent).set(unsent);
        shared!(orphan, unacked).set(unacked);
        shared!(orphan, write_seq).set(tcp.write_seq());
        if stage.replace(found | ENDING, found | ENDED) {
            return;
        }
        // Its close has returned meanwhile.
    }
    // It may have returned before, and have removed the record.
    let Some(orphan) = record(key) else { return };
    if let Some(mut orphan) = take(key, orphan)
        && orphan.bytes > 0
    {
        (orphan.fate, orphan.unsent, orphan.unacked) = (fate, unsent, unacked);
        orphan.write_seq = tcp.write_seq();
        let lived_ns = now_ns().saturating_sub(orphan.left_ns);
        over(&raw const orphan, lived_ns);
    }
}

/// An orphan is over: it is counted, or kept until its fate shows.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_over")]
extern "C" fn over(orphan: *const Orphan, lived_ns: u64) -> u32 {
    // SAFETY: what callers have is a record.
    let Some(orphan) = (unsafe { orphan.as_ref() }) else {
        return 0;
    };
    let mut fate = orphan.fate;
    if fate == UNDECIDED {
        if undecided::put(orphan, lived_ns, now_ns(), by_peer) {
            return 0;
        }
        fate = Fate::Unknown as u32;
    }
    count_over(orphan, fate, lived_ns)
}

/// Nothing answered what ended an orphan: it was an RST of the peer.
fn by_peer(ended: &UndecidedOrphan) {
    let UndecidedOrphan {
        orphan, lived_ns, ..
    } = ended;
    count_over(orphan, Fate::PeerReset as u32, *lived_ns);
}

/// An RST answered what ended an orphan: it was data.
fn by_data(ended: &UndecidedOrphan) {
    let UndecidedOrphan {
        orphan, lived_ns, ..
    } = ended;
    count_over(orphan, Fate::LateData as u32, *lived_ns);
}

/// A socket answers a packet by an RST.
pub(crate) fn answered(key: u64) {
    if !maps::is_hinted(key) {
        return;
    }
    // Another socket may be at this address by now.
    let sk = Sock::<ProbeRead>::new(key as *const u8);
    let Some(tcp) = sk.tcp() else { return };
    let write_seq = tcp.write_seq();
    if let Some(orphan) = record(key)
        && shared!(orphan, stage).get() & MASK == ENDED
        && shared!(orphan, fate).get() == UNDECIDED
        && shared!(orphan, write_seq).get() == write_seq
    {
        closers::mark_for(&sk, &tcp, orphan);
        shared!(orphan, fate).set(Fate::LateData as u32);
    }
    undecided::settle_of(key, Some(write_seq), |ended| {
        closers::mark_for(&sk, &tcp, &raw const ended.orphan);
        by_data(ended);
    });
}

/// Another socket at this address closes: all that came of the one before has come.
pub(crate) fn displace(key: u64) {
    if maps::is_hinted(key) {
        settle_displaced(key);
    }
}

/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_settle_displaced")]
extern "C" fn settle_displaced(sk: u64) -> u32 {
    undecided::settle_of(sk, None, by_peer);
    0
}

/// The orphan in this place has waited for long enough: it ended then.
pub(crate) fn settle(index: u32, ended_ns: u64) {
    undecided::settle_at(index, ended_ns, now_ns(), by_peer);
}

/// Counts an orphan that is over, and tells it.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count_over")]
extern "C" fn count_over(orphan: *const Orphan, fate: u32, lived_ns: u64) -> u32 {
    // SAFETY: what callers have is a record.
    let Some(orphan) = (unsafe { orphan.as_ref() }) else {
        return 0;
    };
    let queued = QueueBytes {
        unsent: orphan.unsent.into(),
        unacked: orphan.unacked.into(),
    };
    if orphan.watched != 0 {
        let end = End::new(fate, orphan.bytes, &queued, lived_ns);
        watch::end(orphan.sk, orphan.stage >> MASK.count_ones(), &end);
    }
    count_end(&orphan.group, fate, orphan.bytes, queued, lived_ns);
    0
}

/// The kernel sets the timer of a socket. That of an orphan in `FIN_WAIT2` waits for the peer's FIN, and all else is
/// acknowledged: for some it waits for long (`tcp_fin_timeout`, `TCP_LINGER2`), others end at once.
pub(crate) fn timer_set<M: Memory>(sk: &Sock<M>) {
    if maps::is_hinted(sk.address()) && sk.state() == state::FIN_WAIT2 && sk.flags().dead() {
        end(sk);
    }
}

/// Takes an orphan that was left behind out of its record, if no one else has.
fn take(key: u64, record: *mut Orphan) -> Option<Orphan> {
    let stage = shared!(record, stage);
    let found = stage.get();
    let orphan = copy(shared!(record));
    // A record that the kernel does not remove, for a lock that it does not get, is removed later.
    let ours = found & MASK == LEFT && stage.replace(found, SPENT) && remove(key) != ENOENT;
    ours.then_some(orphan)
}

/// What became of an orphan that ends with payload outstanding.
fn fate<M: Memory>(sk: &Sock<M>, omen: u16) -> u32 {
    let fate = match sk.err() {
        ECONNRESET => match omen {
            omen::RST => Fate::PeerReset,
            omen::NO_RST => Fate::LateData,
            _ => return UNDECIDED,
        },
        ECONNABORTED => Fate::Destroyed,
        0 if sk.is_net_leaving() => Fate::Destroyed,
        0 => Fate::OrphanResources,
        _ => Fate::TimedOut,
    };
    fate as u32
}

/// Counts an orphan that ended within its close, if anything was lost with it. No one else has its record any more,
/// but for what shows its fate.
fn count_inner(key: u64, record: *mut Orphan) {
    let bytes = shared!(record, unsent)
        .get()
        .saturating_add(shared!(record, unacked).get());
    if bytes == 0 {
        return;
    }
    shared!(record, bytes).set(bytes);
    let was = shared!(record, fate).get();
    // SAFETY: a map value, which no one else writes to but for its fate, of which either is right.
    let orphan = unsafe { &*record };
    count_left(&orphan.group, bytes);
    over(orphan, 0);
    // It may have shown before the record was where that is looked for.
    if was == UNDECIDED && shared!(record, fate).get() != UNDECIDED {
        undecided::settle_of(key, Some(orphan.write_seq), by_data);
    }
}

/// Ends the record of a socket that is no more. Its close has not returned yet, or its end was missed.
#[inline(never)]
fn replaced(key: u64) {
    let Some(record) = record(key) else { return };
    let stage = shared!(record, stage).get();
    let bytes = shared!(record, bytes).get();
    match stage & MASK {
        _ if stage == SPENT => {}
        ENDED => count_inner(key, record),
        LEFT => {
            shared!(record, unsent).set(0);
            shared!(record, unacked).set(bytes);
            let lived_ns = now_ns().saturating_sub(shared!(record, left_ns).get());
            count_over(record, Fate::Unknown as u32, lived_ns);
        }
        _ => maps::lose_orphan(bytes),
    }
    remove(key);
}

/// Adds to what a group's closes left behind.
#[inline(never)]
pub(crate) fn count_left(group: &Group, bytes: u32) {
    if let Some(counters) = ledger::counters(group) {
        add_left(counters, bytes);
    }
}

/// Adds an orphan to the counters of the group that left it.
pub(crate) fn add_left(counters: *mut Counters, bytes: u32) {
    shared!(counters, orphans.left).add(1);
    shared!(counters, orphans.left_bytes).add(bytes.into());
}

/// Adds the end of an orphan that was left with `bytes`, of which `queued` were still outstanding.
fn count_end(group: &Group, fate: u32, bytes: u32, queued: QueueBytes, lived_ns: u64) {
    let group = *group;
    let (Some(counters), fate @ 0..Fate::COUNT) = (ledger::counters(&group), fate as usize) else {
        return;
    };
    // SAFETY: fields of a map value.
    let (times, sum) = unsafe {
        let orphans = &raw mut (*counters).orphans;
        (
            &raw mut (*orphans).lived,
            &raw mut (*orphans).discarded[fate],
        )
    };
    // No more than there was.
    let bytes = u64::from(bytes);
    let unsent = queued.unsent.min(bytes);
    let unacked = queued.unacked.min(bytes - unsent);
    let delivered = bytes - unsent - unacked;
    ledger::add_discarded(sum, QueueBytes { unsent, unacked });
    if delivered > 0 {
        shared!(counters, orphans.delivered_bytes).add(delivered);
    }
    ledger::add_time(times, &LIVED_BOUNDS_NS, lived_ns);
    // Last, and read first: who sees an end sees what came of its payload.
    shared!(counters, orphans.ends[fate]).add(1);
}

/// Whether a close that is yet to return expects to leave this socket behind, or waits for that not to be so.
pub(crate) fn is_expected(key: u64) -> bool {
    maps::is_hinted(key) && record(key).is_some()
}

fn record(key: u64) -> Option<*mut Orphan> {
    ORPHANS.get_ptr_mut(key)
}

/// Removes a record; 0, or why that failed: [`ENOENT`] if it was not there, others if the kernel does not get
/// its lock.
fn remove(key: u64) -> i32 {
    match ORPHANS.remove(key) {
        Ok(()) => {
            maps::add_hint(key, u64::MAX);
            0
        }
        Err(why) => why,
    }
}
