//! The group that closed last at each local port, for data that arrives after the close.
//!
//! A close leaves no record behind, unless it leaves payload: late data meets at most a `TIME_WAIT`
//! socket. So each close that sends its FIN before the peer's has come marks its local port with its
//! group, in one word. That costs a load and a comparison as long as the same group closes there.

use aya_ebpf::bindings::BPF_NOEXIST;
use linger_ebpf::{Close, Counters, Group, Orphan};

use super::{
    group, ledger,
    maps::{E2BIG, NUMBERS, closer, lower_half},
    shared::{copy_words, shared},
};
use crate::kernel::{Memory, ProbeRead, Sock, Tcp, state};

/// The number of a group that gets none: its own is in use by another, or the map is full.
const NONE: u64 = u64::MAX;

/// Notes the local port of a close that sends its FIN in this state: until the peer's FIN has come, data may arrive for
/// it. `port` returns the port, and is called only if needed.
pub(crate) fn note_port<M: Memory>(
    close: &mut Close,
    sk: &Sock<M>,
    state: u8,
    port: impl FnOnce() -> u16,
) {
    // Nearly always the first state: comparing it alone avoids a test of bits.
    if state == state::ESTABLISHED
        || matches!(
            core::hint::black_box(state),
            state::SYN_RECV | state::FIN_WAIT1 | state::FIN_WAIT2
        )
    {
        close.port_key = key(sk, port());
    }
}

/// The key of a local port: its number, and the lower half of its network namespace's address.
fn key<M: Memory>(sk: &Sock<M>, port: u16) -> u64 {
    lower_half(sk.net()) << 16 | u64::from(port)
}

/// Marks a local port with the group that closed there. `counters` are the group's.
pub(crate) fn mark(counters: *mut Counters, group: &Group, key: u64) {
    let mut number = shared!(counters, number).get();
    if number == 0 {
        number_group(counters, group);
        number = shared!(counters, number).get();
    }
    let last = shared!(closer(key), mark);
    if last.get() != number ^ key {
        last.set(number ^ key);
    }
}

/// [`mark`] for a close that waits, and is counted long after its FIN.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_mark_early")]
pub(crate) extern "C" fn mark_early(close: *mut Close) -> u32 {
    // SAFETY: callers pass a record.
    if let Some(close) = unsafe { close.as_mut() }
        && close.port_key != 0
    {
        mark_group(&group::of_close(close), close.port_key);
        close.port_key = 0;
    }
    0
}

/// [`mark`] for an orphan that ends on a packet about to be answered.
pub(crate) fn mark_of_orphan<M: Memory>(sk: &Sock<M>, tcp: &Tcp<M>, orphan: *const Orphan) {
    mark_group_of_orphan(orphan, key(sk, tcp.local_port()));
}

/// [`mark`] with the group of an orphan.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_mark_group_of_orphan")]
extern "C" fn mark_group_of_orphan(orphan: *const Orphan, key: u64) -> u32 {
    // SAFETY: callers pass a record.
    if let Some(orphan) = unsafe { orphan.as_ref() } {
        let group = orphan.group;
        mark_group(&group, key);
    }
    0
}

/// [`mark`] for a group whose counters are not looked up yet.
fn mark_group(group: &Group, key: u64) {
    if let Some(counters) = ledger::counters(group) {
        mark(counters, group, key);
    }
}

/// Gives a group its number, or [`NONE`], in the map of numbers and in its `counters`.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_number_group")]
extern "C" fn number_group(counters: *mut Counters, group: *const Group) -> u32 {
    if counters.is_null() || group.is_null() {
        return 0;
    }
    let mut group = copy_words(shared!(group.cast_mut()));
    if !ledger::has_own(&group) {
        group = Group::OTHER;
    }
    let mut number = group.number();
    if let Err(why) = NUMBERS.insert(number, group, u64::from(BPF_NOEXIST)) {
        match group_with(number) {
            Some(known) if known == group => {}
            // There is no memory, or the map's lock cannot be taken: the next close tries again.
            None if why != E2BIG => return 0,
            // The number is taken, or the map is full.
            _ => number = NONE,
        }
    }
    shared!(counters, number).set(number);
    0
}

/// The group with this number, if any.
fn group_with(number: u64) -> Option<Group> {
    NUMBERS
        .get_ptr_mut(number)
        .map(|group| copy_words(shared!(group)))
}

/// The group that closed last at the local port of a socket, which may be in `TIME_WAIT`.
pub(crate) fn last_closer(sk: &Sock<ProbeRead>) -> Option<Group> {
    let head = sk.head();
    let port = if head.state == state::TIME_WAIT {
        (head.port)()
    } else {
        sk.tcp()?.local_port()
    };
    let key = key(sk, port);
    group_with(shared!(closer(key), mark).get() ^ key)
}
