//! Orphans that the kernel reset, and whose fate only what follows tells.
//!
//! Nothing before the end of a socket tells an RST of the peer from data for a closed socket but the arguments of
//! `tcp_reset`, which the plan `tracepoint` does not see, and others not where that hook is skipped. But data is
//! answered by an RST, next, in the same context (net/ipv4/tcp_ipv4.c `tcp_v4_do_rcv`): the orphan waits here until
//! that is sent, or would have been long ago. Then it was the peer: whoever needs the place says so, or who reads the
//! counts.

use linger_ebpf::{ANSWER_NS, Orphan, UNDECIDED_PLACES, UndecidedOrphan, hint};

use super::{
    maps::{self, UNDECIDED},
    shared::{paste, shared},
};

/// A place that is free, and one that someone is at work on; of others this is when the orphan ended.
const FREE: u64 = 0;
const TAKEN: u64 = 1;

/// An answer follows within microseconds, unless its thread is held up: after this long, a place may be given to
/// another, nanoseconds.
const SOON_NS: u64 = 5_000_000;

/// The places where a socket's orphan may be.
fn places(sk: u64) -> [u32; 4] {
    let first = hint(sk) % UNDECIDED_PLACES;
    [first, first ^ 1, first ^ 2, first ^ 3]
}

/// Keeps an orphan that ended now; those that waited for long enough are `settled`. Whether there was room.
pub(crate) fn put(
    orphan: &Orphan,
    lived_ns: u64,
    now_ns: u64,
    settled: impl Fn(&UndecidedOrphan),
) -> bool {
    let sk = orphan.sk;
    for index in places(sk) {
        let Some(place) = UNDECIDED.get_ptr_mut(index) else {
            continue;
        };
        let when = shared!(place, ended_ns);
        let found = when.get();
        // A socket at the same address ends after all that came of the one before.
        let is_waiting =
            shared!(place, orphan.sk).get() != sk && now_ns.saturating_sub(found) < SOON_NS;
        if found == TAKEN || found != FREE && is_waiting || !when.replace(found, TAKEN) {
            continue;
        }
        if found != FREE {
            settle(place, &settled);
        }
        paste(orphan, shared!(place, orphan));
        shared!(place, lived_ns).set(lived_ns);
        when.set(now_ns);
        maps::add_hint(sk, 1);
        return true;
    }
    false
}

/// The orphan in a place that this program has taken is `settled`.
fn settle(place: *mut UndecidedOrphan, settled: &impl Fn(&UndecidedOrphan)) {
    // SAFETY: a map value. But for its first word, no one else reads or writes it until it is given back, later.
    let ended = unsafe { &*place };
    settled(ended);
    maps::add_hint(ended.orphan.sk, u64::MAX);
}

/// If the orphan of a socket, which has a hint, is here, it is `settled`: of the one with this `write_seq`, or of any at
/// the address.
pub(crate) fn settle_of(sk: u64, write_seq: Option<u32>, settled: impl Fn(&UndecidedOrphan)) {
    for index in places(sk) {
        if let Some(place) = UNDECIDED.get_ptr_mut(index)
            && shared!(place, orphan.sk).get() == sk
            && write_seq.is_none_or(|seq| shared!(place, orphan.write_seq).get() == seq)
        {
            take(place, shared!(place, ended_ns).get(), &settled);
        }
    }
}

/// The orphan in a place, which ended then, has waited for long enough, if it is still there.
pub(crate) fn settle_at(
    index: u32,
    ended_ns: u64,
    now_ns: u64,
    settled: impl Fn(&UndecidedOrphan),
) {
    if let Some(place) = UNDECIDED.get_ptr_mut(index)
        && now_ns.saturating_sub(ended_ns) >= ANSWER_NS
    {
        take(place, ended_ns, &settled);
    }
}

fn take(place: *mut UndecidedOrphan, found: u64, settled: &impl Fn(&UndecidedOrphan)) {
    let when = shared!(place, ended_ns);
    if found != FREE && found != TAKEN && when.replace(found, TAKEN) {
        settle(place, settled);
        when.set(FREE);
    }
}
