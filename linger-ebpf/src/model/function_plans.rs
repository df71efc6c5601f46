//! The plans `fentry` and `kprobe`: a close seen through functions of the kernel.
//!
//! In the order of a close: [`on_tcp_close`] or, on kernels that preempt, [`on_release`] begins it; [`on_inner_close`]
//! decides it under the socket lock. If the socket ends with the close, [`on_destroy`] ends both. Otherwise
//! [`on_check_oom_passed`] (`fentry`) or [`on_inner_close_return`] (`kprobe`) ends the close.
//!
//! Where the program at the end of the socket may be skipped ([`ends_are_early`]), the plan `fentry` does not wait for it:
//! [`on_inner_close`], [`on_active_reset`] or [`on_listen_stop`] counts a close once nothing else can happen to it, and
//! [`on_orderly_end`] and [`on_reset`] end a close and its orphan with the connection. [`on_destroy`] then only drops the
//! record, and makes up for these if they were skipped. If the connection ends while its close waits, only [`on_destroy`]
//! ends that; where it is skipped, the next close of the thread does.

use linger_ebpf::{Close, Lost, Outcome, flag, stage};

use crate::kernel::{Memory, ProbeRead, Segment, Sock, Tcp, state, ticks};

use super::{
    close, closers,
    copies::{copies_may_run_at_ends, ends_are_early},
    in_flight::ThreadSlot,
    maps, orphan, reset,
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
        close::decide_closed(close, sk, sk.has_peer(), unread);
        if ends_are_early() {
            close::count_before_end(close);
        }
        return;
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
        // An RST counts with its close when it is sent. What becomes of a listener's queue comes first, too.
        let is_last = close.flags & flag::RESET == 0 && state != state::LISTEN;
        if ends_are_early() && is_last {
            close::count_before_end(close);
        }
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

/// This host sends an RST on its own initiative (`tcp_send_active_reset`). `number` is that of [`reset::sent`].
pub(crate) fn on_active_reset<M: Memory>(sk: &Sock<M>, number: impl FnOnce() -> u64) {
    let mut close = current_close();
    reset::sent(close.as_deref_mut(), sk, number);
    if ends_are_early()
        && let Some(close) = close
        && close.sk == sk.address()
        && close.stage == stage::DECIDED
        && close.flags & flag::RESET != 0
    {
        close::count_before_end(close);
    }
}

/// The queue of a closed listener is empty (`inet_csk_listen_stop`): only its end follows.
pub(crate) fn on_listen_stop<M: Memory>(sk: &Sock<M>) {
    if let Some(slot) = ThreadSlot::current()
        && let Some(close) = slot.find(sk.address())
    {
        complete(close, false);
        if close.stage == stage::DECIDED {
            close::count_before_end(close);
        }
    }
}

/// A connection ends in the regular way (`tcp_update_metrics`). If its close does not wait any more, its socket ends next.
pub(crate) fn on_orderly_end<M: Memory>(sk: &Sock<M>) {
    if sk.flags().dead() {
        on_destroy(sk);
    } else {
        orphan::note_acknowledged(sk.address());
    }
}

/// The kernel resets a connection (`tcp_reset`): ends its orphan. If the segment was in the backlog of a close, whose wait
/// is over, the close ends too.
pub(crate) fn on_reset<M: Memory>(sk: &Sock<M>, segment: &Segment<M>) {
    let is_in_close = ends_are_early() && sk.flags().dead() && sk.is_owned();
    // Without its slot: the compiler would keep that across the calls below even where it is uninitialized, which the
    // verifier rejects.
    let mut close = if is_in_close {
        current_close().filter(|close| close.sk == sk.address())
    } else {
        None
    };
    if let Some(close) = &mut close
        && close.stage == stage::BEGUN
    {
        complete(close, true);
    }
    orphan::reset(sk, segment);
    if let Some(close) = close
        && let Some(slot) = ThreadSlot::current()
    {
        complete(close, true);
        if close.stage == stage::DECIDED {
            close::finish(&slot, close, sk);
        }
    }
}

/// `tcp_check_oom` finds enough memory: the socket outlives its close, which is over. Both locks of the socket are
/// held, that of its owner (`lock_sock`) and the spinlock.
pub(crate) fn on_check_oom_passed<M: Memory>(sk: &Sock<M>) {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    // A close that was counted ended its socket: its record is that of an earlier socket at this address.
    let close = slot
        .find(sk.address())
        .filter(|close| !ends_are_early() || !close::is_counted(close));
    if let Some(close) = close {
        complete(close, false);
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
    let is_owned = sk.is_owned();
    // Only this close ends the socket: until it is over, soft interrupts leave their segments to it. One that ends the
    // socket, which it does not own, comes later: the end of the close was missed, and the thread's next close counts it.
    let mut close = slot.find(sk.address()).filter(|_| is_owned);
    if let Some(counted) = &close
        && close::is_counted(counted)
    {
        close::forget(&slot, counted);
        close = None;
    }
    let has_orphan = if let Some(close) = &mut close {
        complete(close, false);
        close.flags & flag::HAS_ORPHAN != 0
    } else {
        // A soft interrupt on this thread, which does not own its socket, leaves the note to the close.
        if is_owned && slot.take_unrecorded() {
            maps::lose(Lost::Close);
        }
        maps::is_hinted(sk.address())
    };
    if has_orphan {
        orphan::end(sk);
    }
    if let Some(close) = close {
        close::finish(&slot, close, sk);
    }
}

/// Decides the outcome of a close that is about to end, if it is still undecided: the program that should have decided it
/// was skipped, or the close waits. `is_reset`: its connection is being reset.
fn complete(close: &mut Close, is_reset: bool) {
    if close.stage != stage::DECIDED {
        complete_undecided(close, is_reset.into());
    }
}

/// [`complete`] for a close that is undecided.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_complete_undecided")]
extern "C" fn complete_undecided(close: *mut Close, is_reset: u32) -> u32 {
    // SAFETY: callers pass a record.
    if let Some(close) = unsafe { close.as_mut() } {
        let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
        if close.stage == stage::BEGUN && close.state != 0 {
            close::decide_late(close, &sk);
        }
        close::decide_wait(close, &sk, is_reset != 0);
    }
    0
}

/// `__tcp_close` returns, still under the lock: ends the close, unless it has ended with its socket. Afterwards
/// `tcp_close` only processes the segments that came in between and releases the socket.
pub(crate) fn on_inner_close_return() {
    let Some(slot) = ThreadSlot::current() else {
        return;
    };
    if let Some(close) = slot.record() {
        let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
        complete(close, false);
        close::finish(&slot, close, &sk);
    } else if slot.take_unrecorded() {
        maps::lose(Lost::Close);
    }
}

/// The record of the close in flight on this thread.
pub(crate) fn current_close() -> Option<&'static mut Close> {
    ThreadSlot::current()?.record()
}
