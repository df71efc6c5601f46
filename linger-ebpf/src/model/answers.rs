//! RSTs that answer a packet.

use linger_ebpf::{Cause, Counters, Group};

use super::{close, closers, group, in_flight::ThreadSlot, ledger, orphan, shared::shared};
use crate::kernel::{ProbeRead, Segment, Sock, state};

/// This host answers a packet (`struct sk_buff`) with an RST: counts it. `sk` is the socket, possibly a request or
/// `TIME_WAIT` socket, or 0 if there is none.
pub(crate) fn sent(sk: u64, skb: *const u8) {
    if sk == 0 {
        return count(ledger::counters_of_nobody(), Cause::NoSocket);
    }
    orphan::settle_answered(sk);
    count_answer(sk, skb as u64);
}

/// Like [`sent`], at the entry of `tcp_v4_send_reset` or `tcp_v6_send_reset`, which send no RST in answer to another
/// RST, nor for no socket unless the packet `is_local`.
pub(crate) fn about_to_send(sk: u64, skb: *const u8, is_local: impl FnOnce(&Segment) -> bool) {
    let segment = Segment::new(skb);
    if !segment.is_rst() && (sk != 0 || is_local(&segment)) {
        sent(sk, skb);
    }
}

/// Whether this is a full socket (`sk_fullsock`): not 0, and neither a request nor a `TIME_WAIT` socket.
pub(crate) fn is_full(sk: u64) -> bool {
    let sk = Sock::<ProbeRead>::new(sk as *const u8);
    sk.address() != 0 && !matches!(sk.state(), state::TIME_WAIT | state::NEW_SYN_RECV)
}

/// Counts an RST by what it answers: late data, or anything else that is refused.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count_answer")]
extern "C" fn count_answer(sk: u64, skb: u64) -> u32 {
    let sk = Sock::<ProbeRead>::new(sk as *const u8);
    let segment = Segment::new(skb as *const u8);
    if !is_closed(&sk) || segment.payload() == 0 {
        count(ledger::counters_of_nobody(), Cause::Refused);
        return 0;
    }
    let counters = match group(&sk) {
        Some(group) => ledger::counters(&group),
        None => ledger::counters_of_nobody(),
    };
    count(counters, Cause::LateData);
    0
}

/// The group that closed, if still known.
fn group(sk: &Sock<ProbeRead>) -> Option<Group> {
    // A packet that came while the close held the lock is answered before the close is counted.
    let in_flight = ThreadSlot::current().and_then(|slot| slot.find(sk.address()));
    // One that was counted may be that of an earlier socket at this address.
    match in_flight.filter(|close| !close::is_counted(close)) {
        Some(close) => Some(group::of_close(close)),
        None => closers::last_closer(sk),
    }
}

/// Whether this is the remnant of a closed connection.
fn is_closed(sk: &Sock<ProbeRead>) -> bool {
    match sk.state() {
        // Only TIME_WAIT sockets in substate FIN_WAIT2 answer with an RST, and only a close leaves these.
        state::TIME_WAIT => true,
        // A connection request is not a full socket yet.
        state::LISTEN | state::NEW_SYN_RECV => false,
        // A waiting close has not released it yet.
        _ => sk.flags().dead() || orphan::is_expected(sk.address()),
    }
}

fn count(counters: Option<*mut Counters>, cause: Cause) {
    if let Some(counters) = counters {
        shared!(counters, resets[cause as usize]).add(1);
    }
}
