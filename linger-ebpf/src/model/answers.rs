//! RSTs that answer a packet.

use linger_ebpf::{Cause, Counters, Group};

use super::{closers, group, in_flight::ThreadSlot, ledger, orphan, shared::shared};
use crate::kernel::{ProbeRead, Segment, Sock, state};

/// Counts an RST that answers a packet (`struct sk_buff`) for this socket (possibly a request or `TIME_WAIT` socket),
/// or for none if `sk` is 0.
pub(crate) fn sent(sk: u64, skb: *const u8) {
    if sk == 0 {
        return count(ledger::nobodys(), Cause::NoSocket);
    }
    orphan::answered(sk);
    answered(sk, skb as u64);
}

/// Like [`sent`], from the hook of a function that may decide not to send the RST.
pub(crate) fn asked(sk: u64, skb: *const u8, is_local: impl FnOnce(&Segment) -> bool) {
    let segment = Segment::new(skb);
    if !segment.is_rst() && (sk != 0 || is_local(&segment)) {
        sent(sk, skb);
    }
}

/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_answered")]
extern "C" fn answered(sk: u64, skb: u64) -> u32 {
    let sk = Sock::<ProbeRead>::new(sk as *const u8);
    let segment = Segment::new(skb as *const u8);
    if !is_closed(&sk) || segment.payload() == 0 {
        count(ledger::nobodys(), Cause::Refused);
        return 0;
    }
    let counters = match group(&sk) {
        Some(group) => ledger::counters(&group),
        None => ledger::nobodys(),
    };
    count(counters, Cause::LateData);
    0
}

/// The group that closed, if still known.
fn group(sk: &Sock<ProbeRead>) -> Option<Group> {
    // A packet that came while the close held the lock is answered before the close is counted.
    let in_flight = ThreadSlot::current().and_then(|slot| slot.find(sk.address()));
    match in_flight {
        Some(close) => Some(group::of_close(close)),
        None => closers::last_of(sk),
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
