//! Orphans that the kernel reset, whose fate is not known yet.
//!
//! Before the end of a socket, only the arguments of `tcp_reset` distinguish an RST from the peer from
//! data for a closed socket. The plan `tracepoint` does not see them, nor do the others where that hook
//! is skipped. But data is answered with an RST, next, in the same context (net/ipv4/tcp_ipv4.c
//! `tcp_v4_do_rcv`). The orphan waits here until that RST is sent, or would have been long ago. In that case an RST
//! from the peer ended it, and the next orphan that needs the place, or a reader of the counts, settles it.

use linger_ebpf::{ANSWER_NS, Orphan, UNDECIDED_PLACES, UndecidedOrphan, hint};

use super::{
    maps::{self, UNDECIDED},
    shared::{shared, write_words},
};
use crate::kernel::now_ns;

/// Values of `ended_ns` for a free place and for one in use by a program; any other is the time of the end.
const FREE: u64 = 0;
const TAKEN: u64 = 1;

/// Time after which a place may be reused, nanoseconds. An answer follows within microseconds, unless its thread
/// is held up.
const REUSE_AFTER_NS: u64 = 5_000_000;

/// Number of places in which the orphan of a socket may be; a power of two. So many because a listener's close may reset
/// thousands of orphans within [`REUSE_AFTER_NS`]: with a quarter of all places in use, one in 200,000 finds none (of four
/// places, one in 50).
const CHOICES: u32 = 16;

/// The places in which the orphan of a socket may be.
fn places(sk: u64) -> impl Iterator<Item = u32> {
    let first = hint(sk) % UNDECIDED_PLACES;
    (0..CHOICES).map(move |choice| first ^ choice)
}

/// In the result of [`take_place`]: an orphan that has waited long enough is there, and must be settled first.
const SETTLE: u32 = 1 << 31;
/// The result of [`take_place`] if all places are in use: no index.
const NO_PLACE: u32 = !SETTLE;

/// Keeps an orphan that ended now, in a free place or in that of one that waited long enough, for which it calls
/// `count`. Returns whether it found a place.
pub(crate) fn put(orphan: &Orphan, lived_ns: u64, count: impl Fn(&UndecidedOrphan)) -> bool {
    let (sk, now_ns) = (orphan.sk, now_ns());
    let taken = take_place(sk, now_ns);
    let Some(place) = UNDECIDED.get_ptr_mut(taken & !SETTLE) else {
        return false;
    };
    if taken & SETTLE != 0 {
        settle(place, &count);
    }
    write_words(orphan, shared!(place, orphan));
    shared!(place, lived_ns).set(lived_ns);
    // First, because whoever settles it subtracts one.
    maps::add_hint(sk, 1);
    shared!(place, ended_ns).set(now_ns);
    true
}

/// Takes a place for the orphan of this socket, and returns its index, with [`SETTLE`] if that is due, or [`NO_PLACE`].
///
/// A [global function](super): inside [`put`], the loop would take more stack than Linux 6.1 leaves there.
#[inline(never)]
#[unsafe(export_name = "linger_take_place")]
extern "C" fn take_place(sk: u64, now_ns: u64) -> u32 {
    for index in places(sk) {
        let Some(place) = UNDECIDED.get_ptr_mut(index) else {
            continue;
        };
        let when = shared!(place, ended_ns);
        let found = when.get();
        // When another socket at the same address ends, nothing more happens to the previous one.
        let is_waiting =
            shared!(place, orphan.sk).get() != sk && now_ns.saturating_sub(found) < REUSE_AFTER_NS;
        if found == TAKEN || found != FREE && is_waiting || !when.replace(found, TAKEN) {
            continue;
        }
        return if found == FREE { index } else { index | SETTLE };
    }
    NO_PLACE
}

/// Calls `count` for the orphan in a place that this program has taken.
fn settle(place: *mut UndecidedOrphan, count: &impl Fn(&UndecidedOrphan)) {
    // SAFETY: a map value. Until it is released, later, nothing else accesses it except for its first word.
    let ended = unsafe { &*place };
    count(ended);
    maps::add_hint(ended.orphan.sk, u64::MAX);
}

/// Calls `count` for the orphan of a socket, if it is here: the one with this `write_seq`, or any at that
/// address. The socket has a hint.
pub(crate) fn settle_of(sk: u64, write_seq: Option<u32>, count: impl Fn(&UndecidedOrphan)) {
    for index in places(sk) {
        let Some(place) = UNDECIDED.get_ptr_mut(index) else {
            continue;
        };
        // First, so that nothing is taken if another orphan has come to this place in between.
        let found = shared!(place, ended_ns).get();
        if shared!(place, orphan.sk).get() == sk
            && write_seq.is_none_or(|seq| shared!(place, orphan.write_seq).get() == seq)
        {
            take(place, found, &count);
        }
    }
}

/// Calls `count` for the orphan at this index that ended at `ended_ns`, if it is still there and has waited
/// for [`ANSWER_NS`].
pub(crate) fn settle_at(index: u32, ended_ns: u64, now_ns: u64, count: impl Fn(&UndecidedOrphan)) {
    if let Some(place) = UNDECIDED.get_ptr_mut(index)
        && now_ns.saturating_sub(ended_ns) >= ANSWER_NS
    {
        take(place, ended_ns, &count);
    }
}

fn take(place: *mut UndecidedOrphan, found: u64, count: &impl Fn(&UndecidedOrphan)) {
    let when = shared!(place, ended_ns);
    if found != FREE && found != TAKEN && when.replace(found, TAKEN) {
        settle(place, count);
        when.set(FREE);
    }
}
