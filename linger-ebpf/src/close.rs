//! One close, from entry to return. Every plan translates its hooks into these calls.
//!
//! `begin` → `decide` → (`crate::reset::sent`, `waited`) → `finish`. A record of the close is kept
//! from `begin` to `finish`; what it did is added to the counters of its group once, at its end,
//! or, where a plan may not see the end, as soon as the outcome is decided.

use linger_ebpf::{
    BUCKET_BOUNDS_NS, Close, Closes, Counters, Group, Lost, Outcome, QueueBytes, flag, stage,
};

use crate::{
    atomic,
    in_flight::Place,
    kernel::{Flags, Memory, Probed, Sock, Task, jiffies, now_ns, state},
    maps, orphan,
};

/// A close begins on this thread.
#[inline(always)]
pub(crate) fn begin(place: &Place, sk: u64, flags: u8) -> Option<&'static mut Close> {
    if place.record().is_some() {
        // The end of this thread's previous close was missed.
        abandon(place);
    }
    let kept = place.keep(sk, now_ns(), flags);
    if kept.is_none() {
        maps::lose(Lost::Close);
    }
    kept
}

/// Gives up waiting for the end of a close, keeping what is known of it.
#[cold]
#[inline(never)]
fn abandon(place: &Place) {
    let Some(close) = place.record() else {
        return;
    };
    if close.stage == stage::DECIDED {
        maps::lose(Lost::Return);
        count(close, &Task::current().group(), None);
        orphan::leave_unseen(close);
    } else {
        maps::lose(Lost::Close);
    }
    place.clear();
}

/// The kernel decides what this close does, in the order of `__tcp_close`, under the socket lock.
///
/// `timeout` is the time it may wait, in jiffies.
#[inline(always)]
pub(crate) fn decide<M: Memory>(
    close: &mut Close,
    sk: &Sock<M>,
    flags: Flags,
    state: u8,
    unread: u32,
    timeout: u64,
) {
    close.stage = stage::DECIDED;
    close.unread = unread;
    let (outcome, queued) = outcome(sk, flags, state, unread, timeout);
    close.outcome = outcome as u8;
    keep(close, queued);
    if matches!(outcome, Outcome::Repaired) {
        close.unread = 0;
    }
    if matches!(outcome, Outcome::Lingered) {
        close.stage = stage::WAITING;
        close.deadline = jiffies().saturating_add(timeout);
    }
}

/// The outcome as it looks before the kernel acts, and the send queue that an abort throws away.
#[inline(always)]
fn outcome<M: Memory>(
    sk: &Sock<M>,
    flags: Flags,
    state: u8,
    unread: u32,
    timeout: u64,
) -> (Outcome, QueueBytes) {
    match state {
        state::LISTEN => return (Outcome::Listener, QueueBytes::NONE),
        state::CLOSE if sk.has_peer() => return (Outcome::AlreadyClosed, QueueBytes::NONE),
        state::CLOSE => return (Outcome::NotConnected, QueueBytes::NONE),
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
    if flags.linger() && sk.lingertime() == 0 {
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

/// Keeps what an abort throws away.
#[inline(always)]
pub(crate) fn keep(close: &mut Close, queued: QueueBytes) {
    close.unsent = narrow(queued.unsent);
    close.unacked = narrow(queued.unacked);
}

/// A number of bytes in a send queue, which never holds 4 GiB: sequence numbers are its measure.
#[inline(always)]
pub(crate) fn narrow(bytes: u64) -> u32 {
    bytes.try_into().unwrap_or(u32::MAX)
}

/// The wait under `SO_LINGER` is over.
#[inline(always)]
pub(crate) fn waited<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    if close.stage != stage::WAITING {
        return;
    }
    let Some(tcp) = sk.tcp() else { return };
    let outcome = match sk.state() {
        state::FIN_WAIT1 | state::LAST_ACK | state::CLOSING => unfinished(close),
        state::CLOSE if sk.err() != 0 || !tcp.all_acknowledged() => Outcome::LingerFailed,
        _ => Outcome::Lingered,
    };
    if matches!(outcome, Outcome::LingerFailed) {
        keep(close, tcp.queued_before_fin());
    }
    close.outcome = outcome as u8;
    close.stage = stage::DECIDED;
    if matches!(outcome, Outcome::LingerTimeout | Outcome::LingerInterrupted) {
        leave(close, sk, sk.state());
    }
}

/// The close sends, or has sent, its FIN: what was queued before it is left to the kernel. The state
/// is that before.
#[inline(always)]
pub(crate) fn leave<M: Memory>(close: &mut Close, sk: &Sock<M>, state: u8) {
    let Some(tcp) = sk.tcp() else { return };
    let bytes = tcp.outstanding(state);
    if bytes > 0 {
        orphan::expect(close, &tcp, bytes);
    }
}

/// Why the wait ended although not all was acknowledged.
#[inline(always)]
pub(crate) fn unfinished(close: &Close) -> Outcome {
    if jiffies() >= close.deadline {
        Outcome::LingerTimeout
    } else {
        Outcome::LingerInterrupted
    }
}

/// The close on this thread returns to its caller. The socket may be gone.
#[inline(always)]
pub(crate) fn finish(place: &Place, close: &Close) {
    if close.flags & flag::LEAVES != 0 {
        orphan::returned(close, &Sock::<Probed>::new(close.sk as *const u8));
    }
    if close.stage == stage::DECIDED {
        let blocked_ns = now_ns().saturating_sub(close.start_ns);
        count(close, &Task::current().group(), Some(blocked_ns));
    } else {
        maps::lose(Lost::Close);
    }
    place.clear();
}

/// Adds a close to the counters of a group; without its time if that is not known.
#[inline(always)]
pub(crate) fn count(close: &Close, group: &Group, blocked_ns: Option<u64>) {
    let Some(counters) = maps::counters(group) else {
        return;
    };
    let Some(closes) = closes(counters, close.outcome) else {
        return;
    };
    match blocked_ns {
        // SAFETY: fields of a map value.
        Some(blocked_ns) => unsafe {
            add_time(
                (&raw mut (*closes).buckets).cast(),
                &raw mut (*closes).blocked_ns,
                blocked_ns,
            );
        },
        // SAFETY: a field of a map value.
        None => atomic::add(unsafe { &raw mut (*closes).undated }, 1),
    }
    let discarded = QueueBytes {
        unsent: close.unsent.into(),
        unacked: close.unacked.into(),
    };
    // SAFETY: as above.
    add_discarded(unsafe { &raw mut (*closes).discarded }, discarded);
    if close.unread > 0 {
        // SAFETY: as above.
        atomic::add(
            unsafe { &raw mut (*counters).unread_bytes },
            u64::from(close.unread),
        );
    }
    crate::reset::count(counters, close.reset);
}

/// Adds payload that was thrown away to a map's field.
#[inline(always)]
pub(crate) fn add_discarded(sum: *mut QueueBytes, discarded: QueueBytes) {
    // SAFETY: fields of a map value.
    let (unsent, unacked) = unsafe { (&raw mut (*sum).unsent, &raw mut (*sum).unacked) };
    if discarded.unsent > 0 {
        atomic::add(unsent, discarded.unsent);
    }
    if discarded.unacked > 0 {
        atomic::add(unacked, discarded.unacked);
    }
}

/// The counters of one outcome.
#[inline(always)]
pub(crate) fn closes(counters: *mut Counters, outcome: u8) -> Option<*mut Closes> {
    if usize::from(outcome) >= Outcome::COUNT {
        return None;
    }
    // SAFETY: a field of a map value; the index is within bounds.
    Some(unsafe {
        (&raw mut (*counters).closes)
            .cast::<Closes>()
            .add(usize::from(outcome))
    })
}

/// Adds a time to a histogram and to the sum of times.
#[inline(always)]
pub(crate) fn add_time(buckets: *mut u64, sum_ns: *mut u64, time_ns: u64) {
    let mut bucket = 0;
    while bucket < BUCKET_BOUNDS_NS.len() && time_ns > BUCKET_BOUNDS_NS[bucket] {
        bucket += 1;
    }
    // SAFETY: there is one bucket more than bounds.
    atomic::add(unsafe { buckets.add(bucket) }, 1);
    atomic::add(sum_ns, time_ns);
}
