//! One orphan, from the close that leaves it behind to the end of its socket.
//!
//! [`expect`] → [`leave`] → [`end`]. A close that sends its FIN with payload outstanding makes the
//! record, under the socket lock, so before the end can come. The payload still outstanding when the
//! close returns is left behind; if there is none, there was no orphan.
//!
//! In the plan `tracepoint` another CPU may end the socket while the close returns, without a common
//! lock. Every step after the record is written is therefore a compare-and-swap of its first word, which another
//! record in the same memory matches only if its close began in the same nanosecond. Whoever makes a
//! step may then write the fields that belong to it: the close, until it leaves the record behind; the
//! end, once it has claimed the record.
//!
//! First come the functions that the close calls, from [`expect`] to [`take_back`]; then what shows the end of the
//! socket, from [`reset`] to [`timer_set`], and counts it; then what settles orphans whose fate was not known at their end,
//! from [`settle_answered`] to [`settle`]; last, ends that were missed and the counters.

use core::mem::MaybeUninit;

use linger_ebpf::{
    Close, Counters, Fate, Group, LIVED_BOUNDS_NS, Orphan, Outcome, QueueBytes, UNDECIDED,
    UndecidedOrphan, flag,
    orphan_stage::{ENDED, ENDING, FREE, LEFT, MASK, OPEN, SPENT},
    reset_cause,
};

use super::{
    closers,
    copies::ends_are_early,
    group,
    ledger::{self, UNSEEN},
    maps::{self, EEXIST, ENOENT},
    orphan_table::{self, find, remove, remove_crowded},
    shared::{Shared, copy_words, copy_words_to, opaque_zero, shared},
    undecided, watch,
};
use crate::kernel::{Memory, ProbeRead, Segment, Sock, elapsed_ns, narrow, now_ns, state};

/// The fate with which a record begins.
const _: () = assert!(Fate::Delivered as u32 == 0);

const ECONNABORTED: u32 = 103;
const ECONNRESET: u32 = 104;

/// Makes the record of the orphan that a close may leave behind: it sends its FIN, or has sent it, while `bytes` of
/// payload are outstanding, on a socket with this `write_seq`. Returns whether there was room.
pub(crate) fn expect(close: &mut Close, bytes: u32, write_seq: u32) -> bool {
    let mut error = insert(close, bytes, write_seq);
    if error == EEXIST {
        // The record of an earlier socket at this address remained. This one replaces it.
        end_replaced(close.sk);
        error = insert(close, bytes, write_seq);
    }
    if error == 0 {
        close.flags |= flag::HAS_ORPHAN;
    }
    error == 0
}

/// Inserts the record of an orphan under its socket's address. Returns 0 or the error.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_insert_orphan")]
#[expect(clippy::cast_possible_truncation, reason = "zero")]
extern "C" fn insert(close: *const Close, bytes: u32, write_seq: u32) -> i32 {
    // SAFETY: callers pass a record.
    let Some(close) = (unsafe { close.as_ref() }) else {
        return EEXIST;
    };
    let zero = opaque_zero() as u32;
    let stage = close.initial_orphan_stage();
    let sk = close.sk;
    let group = group::of_close(close);
    orphan_table::insert(sk, stage, || Orphan {
        stage,
        sk,
        left_ns: close.start_ns,
        group,
        bytes,
        reset_cause: reset_cause::UNSEEN,
        watched: (close.flags & flag::WATCHED != 0).into(),
        fate: zero,
        unsent: zero,
        unacked: zero,
        write_seq,
    })
}

/// Zeroes memory for a group: the kernel requires it to be initialized before it is passed to a global
/// function.
pub(crate) fn zero_group(group: &mut MaybeUninit<Group>) -> &mut Group {
    let words = group.as_mut_ptr().cast::<u64>();
    for place in 0..size_of::<Group>() / size_of::<u64>() {
        // SAFETY: within the group; volatile so that it is written here, whatever the function does with it.
        unsafe { words.add(place).write_volatile(0) };
    }
    // SAFETY: it is written.
    unsafe { group.assume_init_mut() }
}

/// Leaves the orphan behind: its close is over while `outstanding` bytes of payload are in the send queue. Returns the
/// bytes left behind, which the caller counts with the close: as many, but not more than at its decision, and none if
/// its socket has ended. If not 0, `whose` is set: an orphan counts for the same group as its close. `blocked_ns` is the
/// time that the close took, or [`UNSEEN`].
pub(crate) fn leave(close: &Close, outstanding: u32, blocked_ns: u64, whose: &mut Group) -> u32 {
    let key = close.sk;
    let Some(orphan) = find(key) else { return 0 };
    let (stage, open) = (shared!(orphan, stage), close.initial_orphan_stage());
    if stage.get() & !MASK != open {
        // Its socket ended, and another one at this address has left an orphan.
        return 0;
    }
    // An unacknowledged SYN is not payload.
    let bytes = outstanding.min(shared!(orphan, bytes).get());
    shared!(orphan, bytes).set(bytes);
    let left_ns = if blocked_ns == UNSEEN {
        now_ns()
    } else {
        close.start_ns.wrapping_add(blocked_ns)
    };
    shared!(orphan, left_ns).set(left_ns);
    if bytes > 0 {
        *whose = copy_words(shared!(orphan, group));
    }
    let next = if bytes > 0 { open | LEFT } else { SPENT };
    if stage.replace(open, next) {
        if bytes == 0 {
            remove(key);
        }
        return bytes;
    }
    if stage.replace(open | ENDING, open | LEFT) {
        // Its socket is ending right now, and owns the record.
        return bytes;
    }
    // Another socket at this address may have replaced the record meanwhile, and may have its own there. Claimed before
    // it is counted, because that socket would count it too.
    if stage.replace(open | ENDED, open | ENDING) {
        count_ended_in_close(key, orphan);
        remove_or_spend(key, &stage);
    }
    0
}

/// Makes the end of this close's orphan count for [`Group::OTHER`], as its beginning did for lack of room in the
/// ledger: by then there may be room for its group.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_end_under_other")]
extern "C" fn end_under_other(close: *const Close) -> u32 {
    // SAFETY: callers pass a record.
    let Some(close) = (unsafe { close.as_ref() }) else {
        return 0;
    };
    let key = close.sk;
    if let Some(orphan) = find(key)
        && shared!(orphan, stage).get() == close.initial_orphan_stage() | LEFT
    {
        // One word, which is enough, and which its end sees as a whole.
        shared!(orphan, group.cgroup_id).set(Group::OTHER.cgroup_id);
    }
    0
}

/// Drops the record: the close aborts, or waits and sees the connection end, and leaves no orphan.
pub(crate) fn forget(close: &mut Close) {
    if close.flags & flag::HAS_ORPHAN != 0 {
        close.flags &= !flag::HAS_ORPHAN;
        // SAFETY: a field of a map value; volatile because it may equal a typed pointer, on which the
        // verifier forbids arithmetic.
        remove(unsafe { core::ptr::read_volatile(&raw const close.sk) });
    }
}

/// Takes back an orphan that was counted as left: its close aborts after all.
pub(crate) fn take_back(key: u64) {
    if !maps::is_hinted(key) {
        return;
    }
    let Some(orphan) = find(key) else { return };
    let stage = shared!(orphan, stage).get();
    let mut taken = MaybeUninit::uninit();
    if let Some(&mut Orphan { group, bytes, .. }) = take(key, orphan, stage, &mut taken)
        && let Some(counters) = ledger::counters(&group)
    {
        // Subtracts one, and its bytes.
        shared!(counters, orphans.left).add(u64::MAX);
        shared!(counters, orphans.left_bytes).add(u64::from(bytes).wrapping_neg());
    }
}

/// The kernel resets a connection (`tcp_reset`), for whatever reason. An orphan ends here already, because the kernel
/// may skip the program at the end of its socket.
pub(crate) fn reset<M: Memory>(sk: &Sock<M>, segment: &Segment<M>) {
    let Some((orphan, fate)) = note_reset(sk.address(), segment) else {
        return;
    };
    if sk.flags().dead() {
        end_record(sk, orphan, || fate as u32);
    } else if ends_are_early()
        && let Some(tcp) = sk.tcp()
    {
        let queued = tcp.queued_before_fin();
        shared!(orphan, unsent).set(narrow(queued.unsent));
        shared!(orphan, unacked).set(narrow(queued.unacked));
    }
}

/// Records that everything is acknowledged while a close waits for that.
pub(crate) fn note_acknowledged(key: u64) {
    if maps::is_hinted(key)
        && let Some(orphan) = find(key)
    {
        shared!(orphan, reset_cause).set(reset_cause::ACKNOWLEDGED);
    }
}

/// Drops the record of a close that waited until its connection ended, and returns the outcome, as the hooks of that end
/// noted it. If none saw it, the kernel gave the connection up.
pub(crate) fn end_of_wait(close: &mut Close) -> Outcome {
    let record = find(close.sk)
        .filter(|orphan| shared!(*orphan, stage).get() & !MASK == close.initial_orphan_stage());
    let Some(orphan) = record else {
        return Outcome::LingerFailed;
    };
    let is_over = has_ended(shared!(orphan, stage).get());
    let reset_cause = shared!(orphan, reset_cause).get();
    if is_over || reset_cause != reset_cause::UNSEEN {
        close.unsent = shared!(orphan, unsent).get();
        close.unacked = shared!(orphan, unacked).get();
    } else {
        close.unacked = shared!(orphan, bytes).get();
    }
    forget(close);
    let is_acknowledged = if is_over {
        close.unsent | close.unacked == 0
    } else {
        reset_cause == reset_cause::ACKNOWLEDGED
    };
    if is_acknowledged {
        Outcome::Lingered
    } else {
        Outcome::LingerFailed
    }
}

/// Records why the kernel resets a connection (`tcp_reset`). If the connection is an orphan's, or may become one,
/// returns its record, and its fate unless all its data has arrived.
pub(crate) fn note_reset<M: Memory>(key: u64, segment: &Segment<M>) -> Option<(*mut Orphan, Fate)> {
    if !maps::is_hinted(key) {
        return None;
    }
    let orphan = find(key)?;
    let (reset_cause, fate) = if segment.is_rst() {
        (reset_cause::PEER_RST, Fate::PeerReset)
    } else {
        (reset_cause::LATE_DATA, Fate::LateData)
    };
    shared!(orphan, reset_cause).set(reset_cause);
    Some((orphan, fate))
}

/// Ends the orphan of a socket that ends, if it is one, under its lock.
pub(crate) fn end<M: Memory>(sk: &Sock<M>) {
    if let Some(orphan) = find(sk.address()) {
        end_record(sk, orphan, || fate(sk, shared!(orphan, reset_cause).get()));
    }
}

/// Ends the orphan of a closed socket that answers a packet with an RST: data that acknowledges the FIN ends the socket
/// without `tcp_reset` (net/ipv4/tcp_input.c `tcp_rcv_state_process`), and the program at its end may have been skipped.
pub(crate) fn end_closed(sk: &Sock<ProbeRead>) {
    if maps::is_hinted(sk.address()) && sk.state() == state::CLOSE && sk.flags().dead() {
        end(sk);
    }
}

/// Ends an orphan in `FIN_WAIT2` when the kernel sets its timer: it only waits for the peer's FIN, with all data
/// acknowledged. Some wait for long (`tcp_fin_timeout`, `TCP_LINGER2`), others end at once.
pub(crate) fn timer_set<M: Memory>(sk: &Sock<M>) {
    if maps::is_hinted(sk.address()) && sk.state() == state::FIN_WAIT2 && sk.flags().dead() {
        end(sk);
    }
}

/// [`end`] for an orphan with this record. `fate` returns its fate if payload is outstanding.
fn end_record<M: Memory>(sk: &Sock<M>, orphan: *mut Orphan, fate: impl FnOnce() -> u32) {
    let key = sk.address();
    let Some(tcp) = sk.tcp() else { return };
    let write_seq = tcp.write_seq();
    let Some(found) = stage_of(orphan, key, write_seq) else {
        return;
    };
    let stage = shared!(orphan, stage);
    let queued = tcp.queued_before_fin_at(write_seq);
    let mut fate = if queued.sum() == 0 {
        Fate::Delivered as u32
    } else {
        fate()
    };
    // SAFETY: a local; volatile so that the verifier need not follow every fate from here on.
    let fate = unsafe { (&raw mut fate).read_volatile() };
    let (unsent, unacked) = (narrow(queued.unsent), narrow(queued.unacked));
    if fate == Fate::LateData as u32 {
        closers::mark_of_orphan(sk, &tcp, orphan);
    }
    // Its close may have removed the record since, and left its slot free.
    if found & MASK == OPEN && found != FREE && stage.replace(found, found | ENDING) {
        shared!(orphan, fate).set(fate);
        shared!(orphan, unsent).set(unsent);
        shared!(orphan, unacked).set(unacked);
        shared!(orphan, write_seq).set(write_seq);
        if stage.replace(found | ENDING, found | ENDED) {
            return;
        }
        // Its close has returned in between.
    }
    let (orphan, found) = if found & MASK == LEFT {
        (orphan, found)
    } else {
        // Its close may have returned and removed the record.
        let Some(orphan) = find(key) else { return };
        let Some(found) = stage_of(orphan, key, write_seq) else {
            return;
        };
        (orphan, found)
    };
    let queued = u64::from(unsent) << 32 | u64::from(unacked);
    end_left(orphan, found, fate, queued, write_seq);
}

/// Counts the end of an orphan that was left behind, unless its record has left the stage `found`. `queued` has the unsent
/// bytes in its upper half, and the unacknowledged ones in its lower: a global function has at most five arguments.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_end_left")]
#[expect(clippy::cast_possible_truncation, reason = "the halves")]
extern "C" fn end_left(
    orphan: *mut Orphan,
    found: u64,
    fate: u32,
    queued: u64,
    write_seq: u32,
) -> u32 {
    if orphan.is_null() {
        return 0;
    }
    let key = shared!(orphan, sk).get();
    let mut ended = MaybeUninit::uninit();
    if let Some(ended) = take(key, orphan, found, &mut ended)
        && ended.bytes > 0
    {
        ended.fate = fate;
        (ended.unsent, ended.unacked) = ((queued >> 32) as u32, queued as u32);
        ended.write_seq = write_seq;
        let lived_ns = elapsed_ns(ended.left_ns);
        if fate == UNDECIDED {
            count_or_await_fate(ended, lived_ns);
        } else {
            count_and_report(ended, fate, lived_ns);
        }
    }
    0
}

/// The stage of a record of this socket; `None` if it is that of another socket, which may be an earlier one at the same
/// address, whose end was missed. It is read first: if another record takes the place of this one, its stage is another.
/// (On arm64, loads may change places.)
fn stage_of(orphan: *mut Orphan, key: u64, write_seq: u32) -> Option<u64> {
    let stage = shared!(orphan, stage).get();
    let is_its = shared!(orphan, sk).get() == key
        // Only a FIN can have followed.
        && write_seq.wrapping_sub(shared!(orphan, write_seq).get()) <= 1;
    is_its.then_some(stage)
}

/// Counts an orphan that ended, or keeps it until its fate is known.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count_or_await_fate")]
extern "C" fn count_or_await_fate(orphan: *const Orphan, lived_ns: u64) -> u32 {
    // SAFETY: callers pass a record.
    let Some(orphan) = (unsafe { orphan.as_ref() }) else {
        return 0;
    };
    let mut fate = orphan.fate;
    if fate == UNDECIDED {
        if undecided::put(orphan, lived_ns, count_as_peer_reset) {
            return 0;
        }
        fate = Fate::Unknown as u32;
    }
    count_and_report(orphan, fate, lived_ns)
}

/// Counts an orphan whose end was a packet that no RST answered: an RST from the peer.
fn count_as_peer_reset(ended: &UndecidedOrphan) {
    let UndecidedOrphan {
        orphan, lived_ns, ..
    } = ended;
    count_and_report(orphan, Fate::PeerReset as u32, *lived_ns);
}

/// Counts an orphan whose end was a packet that an RST answered: data.
fn count_as_late_data(ended: &UndecidedOrphan) {
    let UndecidedOrphan {
        orphan, lived_ns, ..
    } = ended;
    count_and_report(orphan, Fate::LateData as u32, *lived_ns);
}

/// Settles an orphan whose socket answers a packet with an RST.
pub(crate) fn settle_answered(key: u64) {
    if !maps::is_hinted(key) {
        return;
    }
    // Another socket may be at this address by now.
    let sk = Sock::<ProbeRead>::new(key as *const u8);
    let Some(tcp) = sk.tcp() else { return };
    let write_seq = tcp.write_seq();
    if let Some(orphan) = find(key)
        && has_ended(shared!(orphan, stage).get())
        && shared!(orphan, fate).get() == UNDECIDED
        && shared!(orphan, write_seq).get() == write_seq
    {
        closers::mark_of_orphan(&sk, &tcp, orphan);
        shared!(orphan, fate).set(Fate::LateData as u32);
    }
    undecided::settle_of(key, Some(write_seq), |ended| {
        closers::mark_of_orphan(&sk, &tcp, &raw const ended.orphan);
        count_as_late_data(ended);
    });
}

/// Whether an orphan at this stage ended within its close, which may be counting it now.
fn has_ended(stage: u64) -> bool {
    matches!(stage & MASK, ENDED | ENDING)
}

/// Settles the previous orphan at an address where another socket closes: its fate can no longer change.
pub(crate) fn displace(key: u64) {
    if maps::is_hinted(key) {
        settle_displaced(key);
    }
}

/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_settle_displaced")]
extern "C" fn settle_displaced(sk: u64) -> u32 {
    undecided::settle_of(sk, None, count_as_peer_reset);
    0
}

/// Settles the orphan at this index, which ended at `ended_ns` and has waited long enough.
pub(crate) fn settle(index: u32, ended_ns: u64) {
    undecided::settle_at(index, ended_ns, now_ns(), count_as_peer_reset);
}

/// Counts an orphan that ended, and reports it to watchers.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count_and_report")]
extern "C" fn count_and_report(orphan: *const Orphan, fate: u32, lived_ns: u64) -> u32 {
    // SAFETY: callers pass a record.
    let Some(orphan) = (unsafe { orphan.as_ref() }) else {
        return 0;
    };
    let queued = QueueBytes {
        unsent: orphan.unsent.into(),
        unacked: orphan.unacked.into(),
    };
    if orphan.watched != 0 {
        watch::report_end(orphan, fate, lived_ns);
    }
    count_end(&orphan.group, fate, orphan.bytes, queued, lived_ns);
    0
}

/// Removes a record that was counted. Until then its stage keeps others from removing it, and from taking it for one that
/// is to be removed; if the kernel cannot take the map's lock, it becomes one.
fn remove_or_spend(key: u64, stage: &Shared<u64>) {
    if remove(key) != 0 {
        stage.set(SPENT);
    }
}

/// Copies the record of an orphan that was left behind to `to`, and removes it. Returns the copy, or `None` if the record
/// has left this stage: then another CPU was first.
fn take(
    key: u64,
    record: *mut Orphan,
    found: u64,
    to: &mut MaybeUninit<Orphan>,
) -> Option<&mut Orphan> {
    let orphan = copy_words_to(to, shared!(record));
    // If the kernel cannot take the map's lock, the record is removed later.
    let ours = found & MASK == LEFT
        && shared!(record, stage).replace(found, SPENT)
        && remove(key) != ENOENT;
    ours.then_some(orphan)
}

/// The fate of an orphan that ends with payload outstanding.
fn fate<M: Memory>(sk: &Sock<M>, reset_cause: u16) -> u32 {
    let fate = match sk.err() {
        ECONNRESET => match reset_cause {
            reset_cause::PEER_RST => Fate::PeerReset,
            reset_cause::LATE_DATA => Fate::LateData,
            _ => return UNDECIDED,
        },
        ECONNABORTED => Fate::Destroyed,
        0 if sk.is_net_leaving() => Fate::Destroyed,
        0 => Fate::OrphanResources,
        _ => Fate::TimedOut,
    };
    fate as u32
}

/// Counts an orphan that ended within its close, if that lost anything. Nothing else uses its record any
/// more, except to set its fate.
fn count_ended_in_close(key: u64, record: *mut Orphan) {
    let bytes = shared!(record, unsent)
        .get()
        .saturating_add(shared!(record, unacked).get());
    if bytes == 0 {
        return;
    }
    shared!(record, bytes).set(bytes);
    let was = shared!(record, fate).get();
    // SAFETY: a map value to which others write only the fate, of which either value is right.
    let orphan = unsafe { &*record };
    count_left_by(&orphan.group, bytes);
    count_or_await_fate(orphan, 0);
    // The fate may have come before the record was where it is looked up.
    if was == UNDECIDED && shared!(record, fate).get() != UNDECIDED {
        undecided::settle_of(key, Some(orphan.write_seq), count_as_late_data);
    }
}

/// Ends the record that another socket at its address is about to replace: its socket is gone. Its close has not
/// returned yet, or its end was missed.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_end_replaced")]
extern "C" fn end_replaced(key: u64) -> u32 {
    let Some(record) = find(key) else { return 0 };
    let stage = shared!(record, stage);
    let found = stage.get();
    match found & MASK {
        LEFT if stage.replace(found, found | ENDING) => {
            let bytes = shared!(record, bytes).get();
            shared!(record, unsent).set(0);
            shared!(record, unacked).set(bytes);
            let lived_ns = elapsed_ns(shared!(record, left_ns).get());
            // In place: there is no stack left for a copy.
            count_and_report(record, Fate::Unknown as u32, lived_ns);
            remove_or_spend(key, &stage);
        }
        // As one left behind, so that its close leaves it alone.
        ENDED if stage.replace(found, found & !MASK | LEFT) => {
            count_ended_in_close(key, record);
            remove_or_spend(key, &stage);
        }
        OPEN if found != FREE && stage.replace(found, SPENT) => {
            maps::lose_orphan(shared!(record, bytes).get());
            remove(key);
        }
        _ if found == SPENT => {
            remove_crowded(key);
        }
        // Another CPU is using it: the new orphan finds no room.
        _ => {}
    }
    0
}

/// Ends an orphan that was left at `left_ns` and whose socket is gone: its end was missed.
pub(crate) fn end_missed(key: u64, left_ns: u64) {
    let Some(orphan) = find(key) else { return };
    // First, as in `stage_of`.
    let stage = shared!(orphan, stage).get();
    if shared!(orphan, left_ns).get() == left_ns
        && let Some(orphan) = take(key, orphan, stage, &mut MaybeUninit::uninit())
    {
        (orphan.unsent, orphan.unacked) = (0, orphan.bytes);
        let lived_ns = elapsed_ns(left_ns);
        count_and_report(orphan, Fate::Unknown as u32, lived_ns);
    }
}

/// The counters of the group of a close that leaves an orphan of `left` bytes, or none: its end counts there too.
pub(crate) fn counters(close: &Close, group: &Group, left: u32) -> Option<*mut Counters> {
    ledger::counters_or(group, || {
        if left > 0 {
            end_under_other(close);
        }
    })
}

/// Adds the orphan of a close to the counters of a group.
#[inline(never)]
pub(crate) fn count_left(close: &Close, group: &Group, bytes: u32) {
    if let Some(counters) = counters(close, group, bytes) {
        add_left(counters, bytes);
    }
}

/// Adds an orphan to the counters of a group in a map.
#[inline(never)]
fn count_left_by(group: &Group, bytes: u32) {
    if let Some(counters) = ledger::counters(group) {
        add_left(counters, bytes);
    }
}

/// Adds an orphan to these counters.
pub(crate) fn add_left(counters: *mut Counters, bytes: u32) {
    shared!(counters, orphans.left).add(1);
    shared!(counters, orphans.left_bytes).add(bytes.into());
}

/// Adds the end of an orphan that was left with `bytes`, of which `queued` were still outstanding.
fn count_end(group: &Group, fate: u32, bytes: u32, queued: QueueBytes, lived_ns: u64) {
    let (Some(counters), fate @ 0..Fate::COUNT) = (ledger::counters(group), fate as usize) else {
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
    // Never more than was left.
    let bytes = u64::from(bytes);
    let unsent = queued.unsent.min(bytes);
    let unacked = queued.unacked.min(bytes - unsent);
    let delivered = bytes - unsent - unacked;
    ledger::add_discarded(sum, QueueBytes { unsent, unacked });
    if delivered > 0 {
        shared!(counters, orphans.delivered_bytes).add(delivered);
    }
    ledger::add_time(times, &LIVED_BOUNDS_NS, lived_ns);
    // Written last and read first: a reader that sees the end also sees its payload.
    shared!(counters, orphans.ends[fate]).add(1);
}

/// Whether this socket has a record: a close that has not returned yet expects to leave it behind, or waits to avoid
/// that.
pub(crate) fn is_expected(key: u64) -> bool {
    maps::is_hinted(key) && find(key).is_some()
}
