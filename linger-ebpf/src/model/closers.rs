//! Who closed last at each local port: what comes for a connection that is closed is for them.
//!
//! A close that ends a connection leaves no record behind, unless it leaves payload: who sends data to it later
//! meets at most what `TIME_WAIT` keeps of a socket. So each close that sends its FIN before the peer's has come leaves
//! its group at its local port, as one word, which costs a load and two comparisons as long as the same group closes
//! there.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{Close, Closer, Counters, Group, Orphan};

use super::{
    group, ledger,
    maps::{CLOSERS, NUMBERS, lower_half},
    shared::{copy, shared},
};
use crate::kernel::{Memory, ProbeRead, Sock, Tcp, state};

/// What stands for a group whose number is another's.
const NONE: u64 = u64::MAX;

/// A close sends its FIN, in this state of its connection and from this port: data may come for it as long as the
/// peer's FIN has not.
pub(crate) fn note_port<M: Memory>(close: &mut Close, sk: &Sock<M>, state: u8, port: u16) {
    if matches!(
        state,
        state::ESTABLISHED | state::SYN_RECV | state::FIN_WAIT1 | state::FIN_WAIT2
    ) {
        close.port_key = key(sk, port);
    }
}

/// What stands for a local port: its number, and the lower half of its network namespace's address.
fn key<M: Memory>(sk: &Sock<M>, port: u16) -> u64 {
    lower_half(sk.net()) << 16 | u64::from(port)
}

/// A close of this group, with these counters, leaves it at its local port.
pub(crate) fn mark(counters: *mut Counters, group: &Group, key: u64) {
    let mut number = shared!(counters, number).get();
    if number == 0 {
        write_down(counters, group);
        number = shared!(counters, number).get();
    }
    let Some(closer) = CLOSERS.get_ptr_mut(Closer::index(key)) else {
        return;
    };
    let (check, last) = (shared!(closer, check), shared!(closer, number));
    if last.get() != number || check.get() != number ^ key {
        last.set(number);
        check.set(number ^ key);
    }
}

/// As [`mark`], for a close that waits, and is counted long after its FIN.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_mark_early")]
pub(crate) extern "C" fn mark_early(close: *mut Close) -> u32 {
    // SAFETY: what callers have is a record.
    if let Some(close) = unsafe { close.as_mut() }
        && close.port_key != 0
    {
        mark_group(&group::of_close(close), close.port_key);
        close.port_key = 0;
    }
    0
}

/// As [`mark`], for an orphan whose end is about to be answered.
pub(crate) fn mark_for<M: Memory>(sk: &Sock<M>, tcp: &Tcp<M>, orphan: *const Orphan) {
    mark_orphans(orphan, key(sk, tcp.local_port()));
}

/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_mark_orphans")]
extern "C" fn mark_orphans(orphan: *const Orphan, key: u64) -> u32 {
    // SAFETY: what callers have is a record.
    if let Some(orphan) = unsafe { orphan.as_ref() } {
        let group = orphan.group;
        mark_group(&group, key);
    }
    0
}

/// As [`mark`], for a group whose counters are yet to be found.
fn mark_group(group: &Group, key: u64) {
    if let Some(counters) = ledger::counters(group) {
        mark(counters, group, key);
    }
}

/// Writes down the number of a group, which these counters are of.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_write_down_number")]
extern "C" fn write_down(counters: *mut Counters, group: *const Group) -> u32 {
    if counters.is_null() || group.is_null() {
        return 0;
    }
    let group = copy(shared!(group.cast_mut()));
    let mut number = group.number();
    if NUMBERS
        .insert(number, group, u64::from(BPF_NOEXIST))
        .is_err()
        && of(number) != Some(group)
    {
        // Another's, or there is no room.
        number = NONE;
    }
    shared!(counters, number).set(number);
    0
}

/// The group with a number.
fn of(number: u64) -> Option<Group> {
    NUMBERS
        .get_ptr_mut(number)
        .map(|group| copy(shared!(group)))
}

/// Who closed last at the local port of a socket, or of what `TIME_WAIT` keeps of one.
pub(crate) fn last_of(sk: &Sock<ProbeRead>) -> Option<Group> {
    let head = sk.head();
    let port = if head.state == state::TIME_WAIT {
        head.port
    } else {
        sk.tcp()?.local_port()
    };
    let key = key(sk, port);
    let closer = CLOSERS.get_ptr_mut(Closer::index(key))?;
    let number = shared!(closer, number).get();
    if shared!(closer, check).get() != number ^ key {
        return None;
    }
    of(number)
}
