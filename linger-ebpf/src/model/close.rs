//! One close, from its beginning to its end. The models of all plans call these steps:
//!
//! 1. [`begin`] makes the record of the close, which lasts until the end.
//! 2. [`decide`] foresees the outcome as the kernel is about to decide it. [`decide_closed`] is for sockets that are
//!    closed already; [`decide_late`] makes up for a decision that was missed.
//! 3. `super::reset::sent` notes the RST of an abort, and corrects the outcome if the close aborts after its FIN.
//! 4. [`decide_wait`] decides how a wait under `SO_LINGER` ended.
//! 5. [`finish`] adds the close to the counters of its group, and leaves its orphan behind. Plans that may not see the
//!    end call [`count_early`] once the close is decided, or [`count_before_end`] once it is to end its socket.
//!
//! The plans that hook functions see the end under the socket lock.

use core::{
    mem::{MaybeUninit, offset_of},
    ptr,
};

use linger_ebpf::{
    BLOCKED_BOUNDS_NS, Close, Counters, Group, Lost, Outcome, QueueBytes, flag, stage,
};

use super::{
    closers,
    copies::ends_are_early,
    group,
    in_flight::ThreadSlot,
    ledger::{self, UNSEEN},
    maps, orphan, reset,
    shared::shared,
    watch::{self, Stack},
};
use crate::kernel::{
    Flags, Memory, ProbeRead, Sock, Task, Tcp, elapsed_ns, narrow, now_ns, state, ticks,
};

/// Begins a close on this thread. Returns `None` if its record finds no room.
pub(crate) fn begin(slot: &ThreadSlot, sk: u64) -> Option<&'static mut Close> {
    if slot.record().is_some() {
        // The end of this thread's previous close was missed.
        abandon(slot);
    }
    slot.insert(sk, now_ns())
}

/// Stops waiting for the end of a close and counts what is known about it. Its socket may be gone.
#[inline(never)]
fn abandon(slot: &ThreadSlot) {
    let Some(close) = slot.record() else {
        return;
    };
    if is_counted(close) {
        return forget(slot, close);
    }
    if close.stage == stage::WAITING {
        let outcome = if ends_are_early() {
            // Only the end of its socket may be missed.
            orphan::end_of_wait(close)
        } else {
            // Its socket outlived the wait: the end of the socket would have decided the outcome.
            outcome_of_unfinished(close)
        };
        close.outcome = outcome as u8;
        close.stage = stage::DECIDED;
    }
    if close.stage == stage::DECIDED {
        maps::lose(Lost::Return);
        let other = Group::OTHER;
        // If a kernel thread closed, only the socket, which may be gone, knows the cgroup.
        let group = if Task::current().is_kernel_thread() {
            &raw const other
        } else {
            ptr::null()
        };
        // Not as a global function, which would take another frame of the stack. Without an orphan, it only counts.
        count_and_leave(close, group, u32::MAX, UNSEEN);
    } else {
        maps::lose(Lost::Close);
    }
    watch::forget_missed(close);
    forget(slot, close);
}

/// Drops the record of a close that is over.
pub(crate) fn forget(slot: &ThreadSlot, close: &Close) {
    release_hint(close);
    slot.clear();
}

fn release_hint(close: &Close) {
    if close.flags & flag::HINTED != 0 {
        maps::add_hint(close.sk, u64::MAX);
    }
}

/// Begins the wait of a close, in a plan that hooks its return. If that return is missed, the end of the
/// socket decides the outcome, and the orphan left behind already has its record.
pub(crate) fn wait<M: Memory>(close: &mut Close, sk: &Sock<M>, state: u8) {
    close.flags |= flag::HINTED;
    maps::add_hint(close.sk, 1);
    if let Some(tcp) = sk.tcp() {
        closers::mark_early(close);
        // If the map is full, there may be room, or no orphan, when the wait is over. If only the FIN is
        // outstanding, the record marks the socket as one whose close waits.
        let write_seq = tcp.write_seq();
        orphan::expect(close, tcp.outstanding(write_seq, state), write_seq);
    }
}

/// Decides the outcome as `__tcp_close` does, in the same order, under the socket lock.
///
/// `state` is the socket's state before the close, `unread` the received payload that was not read, in bytes, and
/// `timeout` how long the close may wait, in jiffies.
pub(crate) fn decide<M: Memory>(
    close: &mut Close,
    sk: &Sock<M>,
    flags: Flags,
    state: u8,
    unread: u32,
    timeout: u64,
) {
    let (outcome, queued) = foresee(sk, flags, state, unread, timeout);
    if matches!(outcome, Outcome::Lingered) {
        close.deadline = deadline(timeout);
    }
    record_decision(close, sk, state, unread, outcome, queued);
}

/// Decides the outcome for a socket that is in `CLOSE` already, where it stays.
pub(crate) fn decide_closed<M: Memory>(
    close: &mut Close,
    sk: &Sock<M>,
    has_peer: bool,
    unread: u32,
) {
    let queued = QueueBytes::NONE;
    record_decision(
        close,
        sk,
        state::CLOSE,
        unread,
        outcome_of_closed(has_peer),
        queued,
    );
}

/// The time that `inet_release` lets the close of this thread wait, in jiffies.
pub(crate) fn timeout<M: Memory>(sk: &Sock<M>, flags: Flags) -> u64 {
    if flags.linger() && !Task::current().is_exiting() {
        sk.lingertime()
    } else {
        0
    }
}

/// Makes up for a missed decision when the close is about to end, from the socket's state, `write_seq` and jiffy at the
/// release and its state now. An RST would have decided the outcome, unless its hook was skipped too. If the outcome
/// remains ambiguous, the close stays undecided and counts as lost.
pub(crate) fn decide_late(close: &mut Close, sk: &Sock<ProbeRead>) {
    let flags = sk.flags();
    let timeout = timeout(sk, flags);
    let Some(Decision {
        state,
        unread,
        outcome,
        queued,
    }) = missed_decision(close, sk, flags, timeout)
    else {
        return;
    };
    let (was, written) = (close.state, close.write_seq_at_release());
    let released = close.jiffy_of_release();
    record_decision(close, sk, state, unread, outcome, queued);
    let Some(tcp) = sk.tcp() else { return };
    if close.stage == stage::WAITING {
        close.deadline = released.wrapping_add(clamped(timeout));
    } else if close.outcome == Outcome::Graceful as u8 {
        let write_seq = tcp.write_seq();
        let left = tcp.outstanding_since(write_seq, sk.state(), was);
        expect_orphan_of(close, left, write_seq);
    } else {
        // Its hook may be skipped, too.
        return reset::note_expected(close, sk, state, |_| written);
    }
    closers::note_port(close, sk, state, || tcp.local_port());
}

/// What a close decides: see [`decide`].
struct Decision {
    state: u8,
    unread: u32,
    outcome: Outcome,
    queued: QueueBytes,
}

/// The decision that was missed, or `None` if it is ambiguous.
fn missed_decision(
    close: &Close,
    sk: &Sock<ProbeRead>,
    flags: Flags,
    timeout: u64,
) -> Option<Decision> {
    let (was, is) = (close.state, sk.state());
    let unread = sk.unread(flags);
    // A FIN adds 1 to `write_seq`, and `tcp_disconnect` makes it jump.
    let grown = sk.write_seq().wrapping_sub(close.write_seq_at_release());
    let is_foreseen = match (is, was) {
        (state::CLOSE, state::LISTEN) => true,
        (state::CLOSE, state::SYN_SENT) => sk.err() == 0,
        // The FIN followed.
        (state::CLOSE, state::ESTABLISHED | state::SYN_RECV | state::CLOSE_WAIT) => grown == 1,
        // It had been sent before. The close left a remnant in TIME_WAIT, or met the peer's FIN or acknowledgement.
        (state::CLOSE, state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::LAST_ACK) => {
            grown == 0 && unread == 0 && sk.err() == 0 && (!flags.done() || sk.is_in_backlog())
        }
        (state::CLOSE, _) => false,
        _ => true,
    };
    if is_foreseen {
        // It was connected in between.
        let state = if is != state::CLOSE && was == state::SYN_SENT {
            state::ESTABLISHED
        } else {
            was
        };
        let (outcome, queued) = foresee(sk, flags, state, 0, timeout);
        return Some(Decision {
            state,
            unread: 0,
            outcome,
            queued,
        });
    }
    let tcp = sk.tcp()?;
    // Whether, until a FIN of this close, neither an RST nor the peer's FIN could end it once the close was under way.
    let was_open = matches!(
        was,
        state::ESTABLISHED | state::SYN_RECV | state::SYN_SENT | state::CLOSE_WAIT
    );
    let outcome = if was == state::CLOSE {
        outcome_of_closed(sk.has_peer())
    } else if grown > 1 && tcp.repair() {
        Outcome::Repaired
    } else if grown > 1 && sk.aborts_by_linger(flags) {
        Outcome::LingerAborted
    } else if grown == 0 && unread > 0 && sk.err() == 0 && (was_open || !flags.done()) {
        Outcome::UnreadAborted
    } else if grown == 0 && (was_open || unread == 0 && timeout == 0 && has_ended_before(sk, &tcp))
    {
        outcome_of_closed(sk.has_peer())
    } else {
        return None;
    };
    // An RST would have decided these, unless its hook was skipped, too.
    let (state, queued) = match outcome {
        Outcome::LingerAborted | Outcome::UnreadAborted => {
            (was, tcp.queued_when(close.write_seq_at_release(), was))
        }
        Outcome::Repaired => (was, QueueBytes::NONE),
        _ => (state::CLOSE, QueueBytes::NONE),
    };
    Some(Decision {
        state,
        unread,
        outcome,
        queued,
    })
}

/// Whether a connection that had sent its FIN ended before a close that does not wait took the lock: after that, only the
/// backlog ends it, or an abort for lack of memory, which leaves something unacknowledged.
fn has_ended_before(sk: &Sock<ProbeRead>, tcp: &Tcp<ProbeRead>) -> bool {
    !sk.is_in_backlog() && (sk.err() != 0 || tcp.all_acknowledged())
}

/// The outcome for a socket in `CLOSE`.
fn outcome_of_closed(has_peer: bool) -> Outcome {
    if has_peer {
        Outcome::AlreadyClosed
    } else {
        Outcome::NotConnected
    }
}

/// Records a decision in the record of its close, and for watchers.
fn record_decision<M: Memory>(
    close: &mut Close,
    sk: &Sock<M>,
    state: u8,
    unread: u32,
    outcome: Outcome,
    queued: QueueBytes,
) {
    close.stage = if matches!(outcome, Outcome::Lingered) {
        stage::WAITING
    } else {
        stage::DECIDED
    };
    close.unread = if matches!(outcome, Outcome::Repaired) {
        0
    } else {
        unread
    };
    group::record_connection(close, sk);
    close.outcome = outcome as u8;
    record_discarded(close, queued);
    watch::record(close, sk, state);
}

/// The outcome as foreseen before the kernel acts, and the send queue that an abort discards.
fn foresee<M: Memory>(
    sk: &Sock<M>,
    flags: Flags,
    state: u8,
    unread: u32,
    timeout: u64,
) -> (Outcome, QueueBytes) {
    match state {
        state::LISTEN => return (Outcome::Listener, QueueBytes::NONE),
        state::CLOSE => return (outcome_of_closed(sk.has_peer()), QueueBytes::NONE),
        _ => {}
    }
    let Some(tcp) = sk.tcp() else {
        return (Outcome::Graceful, QueueBytes::NONE);
    };
    if tcp.repair() {
        return (Outcome::Repaired, QueueBytes::NONE);
    }
    if unread > 0 {
        return (Outcome::UnreadAborted, tcp.queued(state));
    }
    if sk.aborts_by_linger(flags) {
        return (Outcome::LingerAborted, tcp.queued(state));
    }
    if state == state::SYN_SENT {
        return (Outcome::ConnectAborted, tcp.queued(state));
    }
    if timeout > 0 {
        (Outcome::Lingered, QueueBytes::NONE)
    } else {
        (Outcome::Graceful, QueueBytes::NONE)
    }
}

/// Records the send queue that an abort discards.
pub(crate) fn record_discarded(close: &mut Close, queued: QueueBytes) {
    close.unsent = narrow(queued.unsent);
    close.unacked = narrow(queued.unacked);
}

/// Decides the outcome of a wait under `SO_LINGER`, when the close is about to end. A segment that came
/// during the wait may have ended the connection, or `is_reset`: it is being reset now.
pub(crate) fn decide_wait(close: &mut Close, sk: &Sock<ProbeRead>, is_reset: bool) {
    if close.stage != stage::WAITING {
        return;
    }
    let Some(tcp) = sk.tcp() else { return };
    let outcome = match sk.state() {
        _ if is_reset => Outcome::LingerFailed,
        // Seen before the end of the socket, which follows.
        state::LAST_ACK | state::CLOSING if tcp.all_acknowledged() => Outcome::Lingered,
        state::FIN_WAIT1 | state::LAST_ACK | state::CLOSING => outcome_of_unfinished(close),
        state::CLOSE if sk.err() != 0 || !tcp.all_acknowledged() => Outcome::LingerFailed,
        _ => Outcome::Lingered,
    };
    if matches!(outcome, Outcome::LingerFailed) {
        record_discarded(close, tcp.queued_before_fin());
    }
    close.outcome = outcome as u8;
    close.stage = stage::DECIDED;
    if !matches!(outcome, Outcome::LingerTimeout | Outcome::LingerInterrupted) {
        orphan::forget(close);
    } else if close.flags & flag::HAS_ORPHAN == 0 {
        expect_orphan(close, sk, sk.state());
    }
}

/// Makes the record of an orphan if payload is outstanding when a close sends its FIN or has sent it. `state` is the
/// state before the FIN.
pub(crate) fn expect_orphan<M: Memory>(close: &mut Close, sk: &Sock<M>, state: u8) {
    if let Some(tcp) = sk.tcp() {
        let write_seq = tcp.write_seq();
        expect_orphan_of(close, tcp.outstanding(write_seq, state), write_seq);
    }
}

/// [`expect_orphan`] for this many bytes of payload, of a socket with this `write_seq`.
fn expect_orphan_of(close: &mut Close, bytes: u32, write_seq: u32) {
    if bytes == 0 && close.stage != stage::WAITING {
        return;
    }
    let kept = orphan::expect(close, bytes, write_seq);
    if !kept && bytes > 0 {
        maps::lose_orphan(bytes);
    }
}

/// The longest wait whose deadline is distinguishable from one in the past, jiffies: some weeks.
const MAX_WAIT: u64 = i32::MAX as u64;

/// The lower half of the jiffy at which a wait of `timeout` jiffies from now is over.
fn deadline(timeout: u64) -> u32 {
    ticks().wrapping_add(clamped(timeout))
}

/// The length of a wait, limited to [`MAX_WAIT`], jiffies.
fn clamped(timeout: u64) -> u32 {
    timeout.min(MAX_WAIT) as u32
}

/// Whether a waiting close has reached its deadline.
pub(crate) fn is_overdue(close: &Close) -> bool {
    let left = close.deadline.wrapping_sub(deadline(0));
    left == 0 || u64::from(left) > MAX_WAIT
}

/// The outcome of a wait that ended before everything was acknowledged.
pub(crate) fn outcome_of_unfinished(close: &Close) -> Outcome {
    if is_overdue(close) {
        Outcome::LingerTimeout
    } else {
        Outcome::LingerInterrupted
    }
}

/// Ends the close on this thread, and counts it or its loss. In the plan `tracepoint` the socket may be gone, and values read from it
/// meaningless: then the record of its orphan is no longer open. In the others the socket is still locked.
pub(crate) fn finish<M: Memory>(slot: &ThreadSlot, close: &Close, sk: &Sock<M>) {
    let blocked_ns = elapsed_ns(close.start_ns);
    let is_decided = close.stage == stage::DECIDED;
    let left = if close.flags & flag::HAS_ORPHAN != 0 {
        let outstanding = sk.tcp().map_or(0, |tcp| tcp.outstanding_before_fin());
        count_and_leave_global(close, ptr::null(), outstanding, blocked_ns)
    } else {
        if is_decided {
            count(close, ptr::null(), blocked_ns, 0);
        }
        0
    };
    if is_decided {
        watch::report(close, left, blocked_ns, Stack::Here);
    } else {
        maps::lose(Lost::Close);
    }
    forget(slot, close);
}

/// Counts a decided close that is about to end its socket, and leaves no orphan. The end of the socket, or the next close
/// of this thread, drops the record.
pub(crate) fn count_before_end(close: &mut Close) {
    let blocked_ns = elapsed_ns(close.start_ns);
    count(close, ptr::null(), blocked_ns, 0);
    watch::report(close, 0, blocked_ns, Stack::Here);
    close.stage = stage::COUNTED;
    // Now, because the daemon may drop the record.
    release_hint(close);
    close.flags &= !flag::HINTED;
}

/// Whether a close was [counted before the end of its socket](count_before_end).
pub(crate) fn is_counted(close: &Close) -> bool {
    close.stage == stage::COUNTED
}

/// Counts a close before its return, or without one, together with the orphan it leaves behind, like
/// [`count`]. Returns the orphan's payload in bytes.
pub(crate) fn count_early(close: &Close, group: *const Group, blocked_ns: u64) -> u32 {
    if close.flags & flag::HAS_ORPHAN == 0 {
        count(close, group, blocked_ns, 0);
        return 0;
    }
    // As much as was outstanding at its decision.
    count_and_leave_global(close, group, u32::MAX, blocked_ns)
}

/// [`count_and_leave`] as a [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count_and_leave")]
extern "C" fn count_and_leave_global(
    close: *const Close,
    group: *const Group,
    outstanding: u32,
    blocked_ns: u64,
) -> u32 {
    // SAFETY: callers pass a record.
    match unsafe { close.as_ref() } {
        Some(close) => count_and_leave(close, group, outstanding, blocked_ns),
        None => 0,
    }
}

/// Leaves the orphan of a close behind, and counts the close if it is decided: for the group that the orphan has had since
/// the decision or, if nothing is left, for `group`, as [`count`] does. Returns the orphan's payload in bytes: at most
/// `outstanding`.
fn count_and_leave(close: &Close, group: *const Group, outstanding: u32, blocked_ns: u64) -> u32 {
    let mut whose = MaybeUninit::uninit();
    let whose = orphan::zero_group(&mut whose);
    let left = orphan::leave(close, outstanding, blocked_ns, whose);
    if close.stage == stage::DECIDED {
        let group = if left > 0 { whose } else { group };
        count(close, group, blocked_ns, left);
    } else if left > 0 {
        orphan::count_left(close, whose, left);
    }
    left
}

/// Adds a close, and the payload it leaves behind, to the counters of a group; its time too, unless that
/// is [`UNSEEN`]. Without a group, this thread's group is used.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count")]
pub(crate) extern "C" fn count(
    close: *const Close,
    group: *const Group,
    blocked_ns: u64,
    left: u32,
) -> u32 {
    // SAFETY: callers pass a record, and a group or null.
    let (close, group) = unsafe { (close.as_ref(), group.as_ref()) };
    let Some(close) = close else { return 0 };
    let group = match group {
        Some(group) => *group,
        None => group::of_close(close),
    };
    let Some(counters) = counters(close, &group, left) else {
        return 0;
    };
    if left > 0 {
        orphan::add_left(counters, left);
    }
    add(counters, close, blocked_ns);
    0
}

/// The counters of the group of a close, and of the orphan of `left` bytes that it leaves behind. Marks the close's
/// local port with the group.
fn counters(close: &Close, group: &Group, left: u32) -> Option<*mut Counters> {
    let counters = orphan::counters(close, group, left)?;
    if close.port_key != 0 {
        closers::mark(counters, group, close.port_key);
    }
    Some(counters)
}

/// Adds a close to counters.
fn add(counters: *mut Counters, close: &Close, blocked_ns: u64) {
    let outcome = usize::from(close.outcome);
    if outcome >= Outcome::COUNT {
        return;
    }
    shared!(counters, closes[outcome]).add(1);
    if has_discarded(close)
        && let Some(index) = Outcome::discard_index_at(outcome)
    {
        let discarded = QueueBytes {
            unsent: close.unsent.into(),
            unacked: close.unacked.into(),
        };
        // SAFETY: a field of a map value.
        let sum = unsafe { &raw mut (*counters).discarded[index] };
        ledger::add_discarded(sum, discarded);
    }
    if close.unread > 0 {
        shared!(counters, unread_bytes).add(close.unread.into());
    }
    if close.flags & flag::RESET != 0
        && let Some(cause) = cause(outcome)
    {
        shared!(counters, resets[cause]).add(1);
    }
    // Last: the verifier follows each bucket to the end.
    if blocked_ns != UNSEEN {
        // SAFETY: as above.
        let times = unsafe { &raw mut (*counters).blocked[usize::from(has_waited(outcome))] };
        ledger::add_time(times, &BLOCKED_BOUNDS_NS, blocked_ns);
    }
}

/// Whether payload in the send queue was discarded, by one load for both fields.
fn has_discarded(close: &Close) -> bool {
    const {
        assert!(offset_of!(Close, unsent).is_multiple_of(align_of::<u64>()));
        assert!(offset_of!(Close, unacked) == offset_of!(Close, unsent) + size_of::<u32>());
    }
    let both = ptr::from_ref(close).wrapping_byte_add(offset_of!(Close, unsent));
    // SAFETY: within the record, and aligned.
    unsafe { both.cast::<u64>().read() != 0 }
}

/// [`Outcome::waited`] by index: those outcomes are contiguous.
const fn has_waited(outcome: usize) -> bool {
    outcome.wrapping_sub(Outcome::Lingered.index()) < WAITING
}

const WAITING: usize = 4;

const _: () = {
    let mut outcome = 0;
    while outcome < Outcome::COUNT {
        assert!(Outcome::ALL[outcome].waited() == has_waited(outcome));
        outcome += 1;
    }
};

/// [`Outcome::cause`] by index: both are contiguous and in the same order.
const fn cause(outcome: usize) -> Option<usize> {
    let cause = outcome.wrapping_sub(Outcome::LingerAborted.index());
    if cause < ABORTING { Some(cause) } else { None }
}

const ABORTING: usize = 4;

const _: () = {
    let mut outcome = 0;
    while outcome < Outcome::COUNT {
        match (Outcome::ALL[outcome].cause(), cause(outcome)) {
            (Some(one), Some(two)) => assert!(one.index() == two),
            (None, None) => {}
            _ => panic!("an outcome and the cause of its RST have different places"),
        }
        outcome += 1;
    }
};
