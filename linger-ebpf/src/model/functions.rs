//! A close seen through the functions of the kernel, in the plans `fentry` and `kprobe`.

use linger_ebpf::{Close, Lost, Outcome, flag, stage};

use crate::kernel::{Memory, Sock, state};

use super::{again::is_hooked_again, close, closers, in_flight::ThreadSlot, maps, reset};

/// `tcp_close` begins, before the socket lock.
pub(crate) fn outer_enter(sk: u64) {
    if let Some(place) = ThreadSlot::current() {
        close::begin(&place, sk, 0);
    }
}

/// `__tcp_close` begins, under the socket lock: the inputs of its outcome no longer change.
pub(crate) fn inner_enter<M: Memory>(sk: &Sock<M>, timeout: u64) {
    let Some(place) = ThreadSlot::current() else {
        return;
    };
    // MPTCP closes its subflows without `tcp_close`.
    let begun = place
        .find(sk.address())
        .or_else(|| begin_again(&place, sk.address()));
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
    } else if reset::is_due(close, sk, state) {
        // The hook of the RST may be skipped.
        close.flags |= flag::RESET;
    } else if close.stage == stage::WAITING {
        closers::note_port(close, sk, state, head.port);
        close::wait(close, sk, state);
    }
}

/// Begins a close whose beginning was missed, or found no room. If there still is none, the close is lost;
/// its end counts that, because this may run several times.
fn begin_again(place: &ThreadSlot, sk: u64) -> Option<&'static mut Close> {
    let begun = close::begin(place, sk, 0);
    if is_hooked_again() {
        place.note_unkept(begun.is_none());
    }
    begun
}

/// `__tcp_close` ends, still under the lock, and with it the close. Afterwards `tcp_close` only processes
/// the segments that came in between and releases the socket.
pub(crate) fn inner_exit<M: Memory>(sk: Option<Sock<M>>) {
    let Some(place) = ThreadSlot::current() else {
        return;
    };
    let Some(close) = place.record() else {
        // Both beginnings were missed, there was no room, or another copy of this program ended it.
        if !is_hooked_again() || place.take_unkept() {
            maps::lose(Lost::Close);
        }
        return;
    };
    let sk = sk.unwrap_or_else(|| Sock::new(close.sk as *const u8));
    if close.stage == stage::BEGUN && close.state != 0 {
        close::decide_late(close, &sk);
    }
    close::waited(close, &sk);
    close::finish(&place, close, &sk);
}

/// The record of the close in flight on this thread.
pub(crate) fn current_close() -> Option<&'static mut Close> {
    ThreadSlot::current()?.record()
}
