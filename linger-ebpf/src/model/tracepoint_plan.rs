//! The plan `tracepoint`: a close seen through the events it causes.
//!
//! `cgroup/sock_release` begins the close, without the lock, and decides sockets that are closed already.
//! Under the lock, the first change of state shows what the kernel decided. A socket that was closed in
//! between no longer changes state and is decided at its end. The close is counted at that point, with
//! the time until then: at the decision, or at the socket's end if that comes within the close. The rest
//! of the close, mostly sending the FIN, is not timed.
//!
//! A close that waits under `SO_LINGER` ends with the return of close(2), while that is hooked
//! ([`WAITS`]). The hook costs every system call of the host, so the daemon attaches it for a while
//! once closes have waited. Otherwise (also at exit, in dup2(2), and on kernels that release files after
//! close(2)), the close is parked under its socket's address and counted without its time when the
//! socket ends.

use core::ptr;

use linger_ebpf::{BLOCKED_BOUNDS_NS, Close, Constants, Group, Lost, Outcome, flag, stage};

use super::{
    close, closers, group,
    in_flight::{self, ThreadSlot},
    ledger::{self, UNSEEN},
    maps::{self, WAITS},
    orphan, reset,
    shared::shared,
    watch::{self, Stack},
};
use crate::kernel::{
    Memory, ProbeRead, Registers, Sock, Task, Tcp, constant, elapsed_ns, now_ns, state,
};

/// Whether the current thread is inside a close(2) whose return ends the release.
fn in_close_syscall() -> bool {
    let registers = Task::current().registers();
    // Task work runs after the hook of the return; by then the result has been written down.
    is_close(&registers) && registers.is_inside()
}

/// Whether these are the registers of a close(2) whose return ends the release.
pub(crate) fn is_close(registers: &Registers) -> bool {
    let close = constant!(close_syscall).value();
    // Without one, the registers are not read: the offsets may not apply to them.
    close != Constants::NO_SYSCALL && registers.syscall() == close
}

/// The last holder of a socket releases it (`inet_release`), without the lock: begins a close. From here on no other
/// process works on the socket.
pub(crate) fn on_release(sk: &Sock<ProbeRead>, is_closed: bool, has_peer: bool) {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    let Some(close) = close::begin(&slot, sk.address()) else {
        return maps::lose(Lost::Close);
    };
    // A closed socket stays closed. Any other state may change before the close takes the lock.
    if is_closed {
        let unread = sk.queued_unread(|| sk.flags());
        close::decide_closed(close, sk, has_peer, unread);
    }
}

/// A socket's state changes (`inet_sock_set_state`): the first change under the lock shows what the close decides.
pub(crate) fn on_set_state<M: Memory>(sk: &Sock<M>, old: u8, new: u8) {
    // Only these follow a close.
    if !matches!(
        new,
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSE | state::LAST_ACK | state::CLOSING
    ) {
        return;
    }
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    let Some(close) = slot.find(sk.address()) else {
        if maps::is_hinted(sk.address()) && is_over(sk, new) {
            end_parked(sk);
            orphan::end(sk);
        }
        return;
    };
    // Before the close has taken the lock and shut down both directions, a soft interrupt may change
    // the state.
    if close.stage != stage::BEGUN || !sk.is_owned() || !sk.is_shut_down() {
        return;
    }
    // The receive queue is flushed, but its sequence numbers remain. A FIN means that it was empty.
    // A close that ends in CLOSE does not wait.
    let flags = sk.flags();
    let (unread, timeout) = match new {
        state::CLOSE => (sk.unread(flags), 0),
        _ => (0, close::timeout(sk, flags)),
    };
    close::decide(close, sk, flags, old, unread, timeout);
    if new == state::FIN_WAIT2 {
        // Everything is acknowledged: the close does not wait, even if it is `lingered`.
        close.stage = stage::DECIDED;
    }
    if new == state::CLOSE || new == state::FIN_WAIT2 && is_without_wait(sk) {
        // The socket ends within the close.
        reset::note_expected(close, sk, old, Tcp::write_seq);
        if old == state::FIN_WAIT2
            && let Some(tcp) = sk.tcp()
        {
            closers::note_port(close, sk, old, || tcp.local_port());
        }
        return;
    }
    closers::note_port(close, sk, old, sk.head().port);
    close::expect_orphan(close, sk, old);
    if close.stage == stage::WAITING {
        closers::mark_early(close);
        if note_wait() {
            close.flags |= flag::RETURNS;
            return;
        }
        park(close);
        slot.clear();
    } else {
        close.state = old;
        close.port_key = count(close);
        slot.clear_counted();
    }
}

/// Whether a socket does not wait for the peer's FIN after its close (negative `TCP_LINGER2`): the close aborts, unless
/// a segment ends the connection first.
fn is_without_wait<M: Memory>(sk: &Sock<M>) -> bool {
    sk.tcp().is_some_and(|tcp| tcp.linger2() < 0)
}

/// Whether a socket that a close has left behind is over, in this state.
fn is_over<M: Memory>(sk: &Sock<M>, state: u8) -> bool {
    match state {
        // Everything is acknowledged, though the socket may wait for the peer's FIN for long.
        state::FIN_WAIT2 => !is_without_wait(sk),
        // The end of the socket follows. A soft interrupt, which does not own it, may have interrupted the program
        // hooked there, which the kernel then skips.
        state::CLOSE => !sk.is_owned() && sk.flags().dead(),
        _ => false,
    }
}

/// Records in [`WAITS`] that a close begins to wait. Returns whether its return will be seen.
fn note_wait() -> bool {
    if let Some(waits) = WAITS.get_ptr_mut(0) {
        shared!(waits, last_ns).set(now_ns());
    }
    are_returns_seen() && in_close_syscall()
}

/// Whether the return of close(2) is hooked.
fn are_returns_seen() -> bool {
    WAITS
        .get_ptr_mut(0)
        .is_some_and(|waits| shared!(waits, seen_until_ns).get() > now_ns())
}

/// Counts a close that does not wait, at the last event that shows it. Returns its time, as counted.
fn count(close: &Close) -> u64 {
    let blocked_ns = elapsed_ns(close.start_ns);
    let left = close::count_early(close, ptr::null(), blocked_ns);
    watch::report(close, left, blocked_ns, Stack::Here);
    blocked_ns
}

/// Counts a close that waited and whose return was not seen.
fn count_unseen(close: &Close, group: *const Group, stack: Stack) {
    let left = close::count_early(close, group, UNSEEN);
    maps::lose(Lost::Return);
    watch::report(close, left, UNSEEN, stack);
}

/// Parks a close that waits, and whose return will not be seen, until its socket ends. If there is no room, nothing of
/// it may remain, because nothing would end it.
fn park(close: &mut Close) {
    if in_flight::park(close) == 0 {
        maps::lose(Lost::Close);
        watch::forget_missed(close);
        orphan::forget(close);
    }
}

/// This host sends an RST on its own initiative (`tcp_send_reset` without a packet).
pub(crate) fn on_reset(sk: &Sock<ProbeRead>) {
    let address = sk.address();
    let close = ThreadSlot::current()
        .and_then(|slot| slot.find(address))
        .or_else(|| in_flight::parked(address).map(|parked| &mut parked.close));
    // The release of a kernel socket is not seen, and its close is not counted.
    let is_seen = !sk.is_kernel_socket();
    if close.is_none() && is_seen && sk.state() == state::CLOSE && sk.flags().dead() {
        // Only a close does this, after its FIN; that close has been counted and dropped.
        orphan::take_back(address);
        recount(address);
        return;
    }
    reset::sent(close, sk, || address);
}

/// Recounts a close that was counted as graceful or lingered and aborts after all.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_recount")]
extern "C" fn recount(sk: u64) -> u32 {
    let sk = Sock::<ProbeRead>::new(sk as *const u8);
    if sk.tcp().is_some_and(|tcp| !reset::is_new(&sk, &tcp)) {
        return 0;
    }
    let counted = ThreadSlot::current().and_then(|slot| slot.counted(sk.address()));
    let mut close = counted.unwrap_or(Close {
        port_key: UNSEEN,
        stage: stage::DECIDED,
        rules: maps::rules(),
        ..Close::ZERO
    });
    let (outcome, blocked_ns) = (close.outcome, close.port_key);
    close.sk = sk.address();
    close.port_key = 0;
    close.flags &= flag::WATCHED;
    reset::after_fin(&mut close, &sk);
    group::record_connection(&mut close, &sk);
    // As at its decision.
    let is_lingering = close::timeout(&sk, sk.flags()) > 0;
    withdraw(&raw const close, is_lingering.into(), blocked_ns);
    close::count(&raw const close, ptr::null(), blocked_ns, 0);
    watch::report_correction(&close, outcome, blocked_ns, &sk);
    0
}

/// Subtracts this thread's close, and its time if that is known, from the lingered or graceful ones.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_withdraw")]
extern "C" fn withdraw(close: *const Close, is_lingering: u32, blocked_ns: u64) -> u32 {
    // SAFETY: callers pass a record.
    if let Some(close) = unsafe { close.as_ref() }
        && let Some(counters) = ledger::counters(&group::of_close(close))
    {
        let outcome = if is_lingering == 0 {
            Outcome::Graceful
        } else {
            Outcome::Lingered
        };
        // Subtracts one.
        shared!(counters, closes[outcome as usize]).add(u64::MAX);
        if blocked_ns != UNSEEN {
            // SAFETY: a field of a map value.
            let times = unsafe { &raw mut (*counters).blocked[usize::from(is_lingering != 0)] };
            ledger::add_times(times, &BLOCKED_BOUNDS_NS, blocked_ns, u64::MAX);
        }
    }
    0
}

/// A socket ends (`tcp_destroy_sock`), once and in any context: ends its close if that is in flight or parked, and its
/// orphan.
pub(crate) fn on_destroy<M: Memory>(sk: &Sock<M>) {
    let address = sk.address();
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    let mut ends = false;
    if let Some(close) = slot.find(address) {
        // Under the lock, the close ends the socket. Without it, a soft interrupt does, which
        // interrupted this thread after the close released the socket, and does not affect the close.
        let decided = close.stage == stage::DECIDED && returns(close);
        if !decided && sk.is_owned() {
            decide_at_end(close, sk);
            // It has waited, and its return may no longer be hooked.
            ends = !returns(close) || !are_returns_seen();
        }
        if close.flags & flag::HAS_ORPHAN != 0 {
            orphan::end(sk);
        }
    } else if maps::is_hinted(address) {
        end_parked(sk);
        orphan::end(sk);
    }
    if ends && let Some(close) = slot.record() {
        count(close);
        slot.clear();
    }
}

/// Counts a parked close, when its socket ends.
fn end_parked<M: Memory>(sk: &Sock<M>) {
    let address = sk.address();
    if let Some(parked) = in_flight::parked(address) {
        if parked.close.stage == stage::DECIDED {
            // It aborts after its wait, which ends the socket within the close.
            count(&parked.close);
        } else {
            decide_at_end(&mut parked.close, sk);
            count_unseen(&parked.close, &raw const parked.group, Stack::Elsewhere);
        }
        in_flight::unpark(address);
    }
}

/// Decides an undecided close at the end of its socket.
fn decide_at_end<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    match close.stage {
        // No change of state: the socket was closed when the close took the lock. By now its receive
        // queue is flushed.
        stage::BEGUN => {
            close::decide_closed(close, sk, sk.has_peer(), sk.unread(sk.flags()));
        }
        stage::WAITING => decide_wait_at_end(close, sk),
        _ => {}
    }
}

/// Decides the outcome of a wait at the end of the socket.
fn decide_wait_at_end<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    let Some(tcp) = sk.tcp() else { return };
    let outcome = if close::is_overdue(close) {
        Outcome::LingerTimeout
    } else if sk.err() == 0 && tcp.all_acknowledged() {
        Outcome::Lingered
    } else {
        close::record_discarded(close, tcp.queued_before_fin());
        Outcome::LingerFailed
    };
    close.outcome = outcome as u8;
    close.stage = stage::DECIDED;
    if !matches!(outcome, Outcome::LingerTimeout) {
        orphan::forget(close);
    }
}

/// Whether the return of this close will be seen.
fn returns(close: &Close) -> bool {
    close.flags & flag::RETURNS != 0
}

/// A system call that may be close(2) returns: ends the close of this thread whose return is awaited, if there is one.
pub(crate) fn on_close_return() {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    let Some(close) = slot.record().filter(|close| returns(close)) else {
        return;
    };
    let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
    if close.stage == stage::WAITING {
        // Its socket lives: not everything was acknowledged, unless it waits for the peer's FIN.
        let now = sk.state();
        let outcome = close::outcome_of_unfinished(close);
        let acknowledged = now == state::FIN_WAIT2 && matches!(outcome, Outcome::LingerInterrupted);
        close.outcome = if acknowledged {
            Outcome::Lingered
        } else {
            outcome
        } as u8;
        close.stage = stage::DECIDED;
    }
    close::finish(&slot, close, &sk);
}
