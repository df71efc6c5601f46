//! A close seen through the functions of the kernel, in the plans `fentry` and `kprobe`.

use linger_ebpf::{Close, Lost, Outcome, flag, stage};

use crate::kernel::{Memory, ProbeRead, Sock, Tcp, state, ticks};

use super::{
    close, closers, copies::copies_may_run_at_ends, in_flight::ThreadSlot, maps, orphan, reset,
};

/// Begins a close at the entry of `tcp_close`, before the socket lock.
pub(crate) fn outer_enter(sk: u64) {
    if let Some(place) = ThreadSlot::current() {
        begin(&place, sk);
    }
}

/// Begins a close when a socket in this state is released by its last holder, before `tcp_close`.
pub(crate) fn released(sk: &Sock<ProbeRead>, state: u8) {
    if let Some(place) = ThreadSlot::current()
        && let Some(close) = begin(&place, sk.address())
    {
        close.state = state;
        close.deadline = sk.written();
        close.unread = ticks();
    }
}

/// Decides a close at the entry of `__tcp_close`, under the socket lock: the inputs of its outcome no longer change.
pub(crate) fn inner_enter<M: Memory>(sk: &Sock<M>, timeout: u64) {
    let Some(place) = ThreadSlot::current() else {
        return;
    };
    // MPTCP closes its subflows without `tcp_close`.
    let begun = place.find(sk.address()).or_else(|| {
        let begun = begin(&place, sk.address());
        if begun.is_some() {
            // An earlier attempt may have found no room.
            place.take_unkept();
        }
        begun
    });
    let Some(close) = begun else { return };
    // Another copy of this program has decided it.
    if close.stage != stage::BEGUN {
        return;
    }
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
        close::leave(close, sk, state);
    } else if close.stage == stage::WAITING {
        closers::note_port(close, sk, state, head.port);
        close::wait(close, sk, state);
    } else {
        reset::foresee(close, sk, state, Tcp::write_seq);
    }
}

/// Begins a close. If its record finds no room, its end counts the loss, because this may run several times.
fn begin(place: &ThreadSlot, sk: u64) -> Option<&'static mut Close> {
    let begun = close::begin(place, sk, 0);
    if begun.is_none() {
        place.note_unkept();
    }
    begun
}

/// Ends a close whose socket stays, under both of its locks.
pub(crate) fn stays<M: Memory>(sk: &Sock<M>) {
    let Some(place) = ThreadSlot::current() else {
        return;
    };
    if let Some(close) = place.find(sk.address()) {
        conclude(close, sk);
        close::finish(&place, close, sk);
    } else if is_closing(sk) && (place.take_unkept() || !copies_may_run_at_ends()) {
        // Its record found no room, or its beginning was missed.
        maps::lose(Lost::Close);
    }
}

/// Whether a close calls `tcp_check_oom` for this socket, and not a timer.
fn is_closing<M: Memory>(sk: &Sock<M>) -> bool {
    sk.is_owned()
        && sk
            .tcp()
            .is_some_and(|tcp| !tcp.is_timer_handled(sk.state()))
}

/// Handles the end of a socket; called once per socket, in any context.
pub(crate) fn destroyed<M: Memory>(sk: &Sock<M>) {
    let Some(place) = ThreadSlot::current() else {
        return;
    };
    if let Some(close) = place.find(sk.address()) {
        // Only this close ends the socket: until it is over, soft interrupts leave their segments to it.
        conclude(close, sk);
        if close.flags & flag::LEAVES != 0 {
            orphan::end(sk);
        }
        return close::finish(&place, close, sk);
    }
    // A soft interrupt on this thread, which does not own its socket, leaves the note to the close.
    if sk.is_owned() && place.take_unkept() {
        maps::lose(Lost::Close);
    }
    if maps::is_hinted(sk.address()) {
        orphan::end(sk);
    }
}

/// Decides the outcome of a close that is about to end, if it is still undecided.
fn conclude<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    if close.stage == stage::BEGUN && close.state != 0 {
        close::decide_late(close, sk);
    }
    close::waited(close, sk);
}

/// Ends a close at the end of `__tcp_close`, still under the lock, unless it has ended with its socket. Afterwards
/// `tcp_close` only processes the segments that came in between and releases the socket.
pub(crate) fn inner_exit() {
    let Some(place) = ThreadSlot::current() else {
        return;
    };
    if let Some(close) = place.record() {
        let sk = Sock::<ProbeRead>::new(close.sk as *const u8);
        conclude(close, &sk);
        close::finish(&place, close, &sk);
    } else if place.take_unkept() {
        maps::lose(Lost::Close);
    }
}

/// The record of the close in flight on this thread.
pub(crate) fn current_close() -> Option<&'static mut Close> {
    ThreadSlot::current()?.record()
}
