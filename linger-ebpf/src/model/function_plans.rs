//! The plans `fentry` and `kprobe`: a close seen through functions of the kernel.
//!
//! In the order of a close: [`on_tcp_close`] or, on kernels that preempt, [`on_release`] begins it; [`on_inner_close`]
//! decides it under the socket lock. If the socket ends with the close, [`on_destroy`] ends both. Otherwise
//! [`on_check_oom_passed`] (`fentry`) or [`on_inner_close_return`] (`kprobe`) ends the close.

use linger_ebpf::{Close, Lost, Outcome, flag, stage};

use crate::kernel::{Memory, ProbeRead, Sock, Tcp, state, ticks};

use super::{
    close, closers, copies::copies_may_run_at_ends, in_flight::ThreadSlot, maps, orphan, reset,
};

/// `tcp_close` is entered, before the socket lock: begins a close.
pub(crate) fn on_tcp_close(sk: u64) {
    if let Some(slot) = ThreadSlot::current() {
        begin(&slot, sk);
    }
}

/// The last holder of a socket in this state releases it (`inet_release`), before `tcp_close`: begins a close, and
/// records what [`close::decide_late`] needs if the program that decides the close is skipped.
pub(crate) fn on_release(sk: &Sock<ProbeRead>, state: u8) {
    if let Some(slot) = ThreadSlot::current()
        && let Some(close) = begin(&slot, sk.address())
    {
        close.state = state;
        // Until the decision, these fields hold the `write_seq` and the jiffy of the release.
        close.deadline = sk.write_seq();
        close.unread = ticks();
    }
}

/// `__tcp_close` is entered, under the socket lock: decides the close, because the inputs of its outcome no longer
/// change. `timeout` is in jiffies.
pub(crate) fn on_inner_close<M: Memory>(sk: &Sock<M>, timeout: u64) {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    let begun = match slot.find(sk.address()) {
        // Another copy of this program has decided it.
        Some(close) if close.stage != stage::BEGUN && copies_may_run_at_ends() => return,
        // It is that of an earlier socket at this address, and its end was missed.
        Some(close) if close.stage != stage::BEGUN => None,
        found => found,
    };
    // MPTCP closes its subflows without `tcp_close`.
    let begun = begun.or_else(|| {
        let begun = begin(&slot, sk.address());
        if begun.is_some() {
            // An earlier attempt may have found no room.
            slot.take_unrecorded();
        }
        begun
    });
    let Some(close) = begun else { return };
    let head = sk.head();
    let state = head.state;
    if state == state::CLOSE {
        let unread = sk.queued_unread(|| sk.flags());
        return close::decide_closed(close, sk, sk.has_peer(), unread);
    }
    let flags = sk.flags();
    // A listener's queue holds no data of its own.
    let unread = if state == state::LISTEN {
        0
    } else {
        sk.queued_unread(|| flags)
    };
    close::decide(close, sk, flags, state, unread, timeout);
    if close.outcome == Outcome::Graceful as u8 {
        closers::note_port(close, sk, state, head.port);
        close::expect_orphan(close, sk, state);
    } else if close.stage == stage::WAITING {
        closers::note_port(close, sk, state, head.port);
        close::wait(close, sk, state);
    } else {
        reset::note_expected(close, sk, state, Tcp::write_seq);
    }
}

/// Begins a close. If its record finds no room, the end of the close counts the loss: this may run several times for
/// it.
fn begin(slot: &ThreadSlot, sk: u64) -> Option<&'static mut Close> {
    let begun = close::begin(slot, sk);
    if begun.is_none() {
        slot.note_unrecorded();
    }
    begun
}

/// `tcp_check_oom` finds enough memory: the socket outlives its close, which is over. Both locks of the socket are
/// held, that of its owner (`lock_sock`) and the spinlock.
pub(crate) fn on_check_oom_passed<M: Memory>(sk: &Sock<M>) {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    if let Some(close) = slot.find(sk.address()) {
        complete(close, sk);
        close::finish(&slot, close, sk);
    } else if is_closing(sk) && (slot.take_unrecorded() || !copies_may_run_at_ends()) {
        // Its record found no room, or its beginning was missed.
        maps::lose(Lost::Close);
    }
}

/// Whether `tcp_check_oom` is called by a close of this socket, and not by a timer.
fn is_closing<M: Memory>(sk: &Sock<M>) -> bool {
    sk.is_owned()
        && sk
            .tcp()
            .is_some_and(|tcp| !tcp.is_timer_handled(sk.state()))
}

/// A socket ends (`tcp_destroy_sock`), once and in any context: ends its close if that is in flight, or its orphan.
pub(crate) fn on_destroy<M: Memory>(sk: &Sock<M>) {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    // Only this close ends the socket: until it is over, soft interrupts leave their segments to it. One that ends the
    // socket, which it does not own, comes later: the end of the close was missed, and the thread's next close counts it.
    if let Some(close) = slot.find(sk.address())
        && sk.is_owned()
    {
        complete(close, sk);
        if close.flags & flag::HAS_ORPHAN != 0 {
            orphan::end(sk);
        }
        return close::finish(&slot, close, sk);
    }
    // A soft interrupt on this thread, which does not own its socket, leaves the note to the close.
    if sk.is_owned() && slot.take_unrecorded() {
        maps::lose(Lost::Close);
    }
    if maps::is_hinted(sk.address()) {
        orphan::end(sk);
    }
}

/// Decides the outcome of a close that is about to end, if it is still undecided.
fn complete<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    if close.stage == stage::BEGUN && close.state != 0 {
        close::decide_late(close, sk);
    }
    close::decide_wait(close, sk);
}

/// `__tcp_close` returns, still under the lock: ends the close, unless it has ended with its socket. Afterwards
/// `tcp_close` only processes the segments that came in between and releases the socket.
pub(crate) fn on_inner_close_return() {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    if let Some(close) = slot.record() {
        let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
        complete(close, &sk);
        close::finish(&slot, close, &sk);
    } else if slot.take_unrecorded() {
        maps::lose(Lost::Close);
    }
}

/// The record of the close in flight on this thread.
pub(crate) fn current_close() -> Option<&'static mut Close> {
    ThreadSlot::current()?.record()
}
