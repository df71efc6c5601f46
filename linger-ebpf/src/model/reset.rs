//! RSTs that this host sends on its own initiative, within a close or without one.
//!
//! The lock and the state identify the caller of `tcp_send_active_reset` on every kernel. The reason
//! argument, whose position and values differ between versions, is not needed.

use linger_ebpf::{Cause, Close, Outcome, flag, stage};

use super::copies::copies_may_run;
use super::{close, group, ledger, maps, orphan, shared::shared};
use crate::kernel::{Memory, ProbeRead, Sock, Tcp, state};

/// This host sends an RST on its own initiative: notes it for its close, or counts it. `close` is the record of the
/// close in flight on this thread, for whatever socket. `number` returns the socket's address as a number, without a
/// type known to the verifier; it is called only if needed, because reading it costs.
pub(crate) fn sent<M: Memory>(
    close: Option<&mut Close>,
    sk: &Sock<M>,
    number: impl FnOnce() -> u64,
) {
    let Some(close) = close.filter(|close| close.sk == sk.address()) else {
        count_outside_close(number());
        return;
    };
    if close::is_counted(close) {
        if close.flags & flag::RESET == 0 {
            count_outside_close(number());
        }
        // Another program has seen the RST of this close. The next RST is that of another socket at this address.
        close.flags &= !flag::RESET;
    } else if close.outcome == Outcome::LingerAborted as u8
        || close.outcome == Outcome::UnreadAborted as u8
    {
        // The close holds the lock: nothing else can abort this connection.
        close.flags |= flag::RESET;
    } else if sk.state() != state::CLOSE {
        count_outside_close(number());
    } else if sk.flags().dead() {
        after_fin(close, sk);
    } else {
        before_fin(close, sk);
    }
}

/// Notes that a close will send an RST, if one [is due](is_due): the hook of the RST may be skipped. `write_seq` is
/// called only in the states in which it matters.
pub(crate) fn note_expected<M: Memory>(
    close: &mut Close,
    sk: &Sock<M>,
    state: u8,
    write_seq: impl FnOnce(&Tcp<M>) -> u32,
) {
    if is_due(close, sk, state, write_seq) {
        close.flags |= flag::RESET;
    }
}

/// Whether a close with this outcome sends an RST in this state, and with this `write_seq`: `tcp_disconnect` omits it
/// when the peer would miss nothing.
fn is_due<M: Memory>(
    close: &Close,
    sk: &Sock<M>,
    state: u8,
    write_seq: impl FnOnce(&Tcp<M>) -> u32,
) -> bool {
    if close.outcome == Outcome::UnreadAborted as u8 {
        return true;
    }
    close.outcome == Outcome::LingerAborted as u8
        && match state {
            // tcp_need_reset
            state::ESTABLISHED
            | state::SYN_RECV
            | state::FIN_WAIT1
            | state::FIN_WAIT2
            | state::CLOSE_WAIT => true,
            state::LAST_ACK | state::CLOSING => {
                sk.tcp().is_some_and(|tcp| tcp.has_unsent(write_seq(&tcp)))
            }
            _ => false,
        }
}

/// Decides a close that aborts instead of sending its FIN: that was not foreseen, or the decision was missed.
fn before_fin<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    let Some(tcp) = sk.tcp() else { return };
    let flags = sk.flags();
    close.unread = tcp.unread(flags);
    // `__tcp_close` checks for unread data first.
    let outcome = if close.unread == 0 && sk.aborts_by_linger(flags) {
        Outcome::LingerAborted
    } else {
        Outcome::UnreadAborted
    };
    if close.stage == stage::BEGUN {
        group::record_connection(close, sk);
    }
    // The send queue is purged later. The state before is known where a program that is never skipped began this; where
    // it is 0, nothing is taken off for a SYN or FIN.
    close::record_discarded(close, tcp.queued(close.state));
    orphan::forget(close);
    close.outcome = outcome as u8;
    close.stage = stage::DECIDED;
    close.flags |= flag::RESET;
}

/// Decides a close that aborts after its FIN: this outcome replaces the foreseen one.
pub(crate) fn after_fin<M: Memory>(close: &mut Close, sk: &Sock<M>) {
    let Some(tcp) = sk.tcp() else { return };
    if close.stage == stage::BEGUN {
        // It would have aborted instead of sending its FIN.
        close.unread = 0;
        group::record_connection(close, sk);
    }
    close::record_discarded(close, tcp.queued_before_fin());
    orphan::forget(close);
    let cause = late_abort(tcp.linger2(), tcp.all_acknowledged());
    let outcome = if matches!(cause, Cause::Linger2Aborted) {
        Outcome::Linger2Aborted
    } else {
        Outcome::MemoryAborted
    };
    close.outcome = outcome as u8;
    close.stage = stage::DECIDED;
    close.flags |= flag::RESET;
}

/// The cause of an abort by `__tcp_close` after the FIN.
fn late_abort(linger2: i32, all_acknowledged: bool) -> Cause {
    if linger2 < 0 && all_acknowledged {
        Cause::Linger2Aborted
    } else {
        Cause::MemoryAborted
    }
}

/// Handles an RST that no recorded close caused.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_count_outside_close")]
extern "C" fn count_outside_close(sk: u64) -> u32 {
    let sk = Sock::<ProbeRead>::new(sk as *const u8);
    if let Some(tcp) = sk.tcp()
        && is_new(&sk, &tcp)
    {
        count_by_cause(&sk, &tcp);
    }
    0
}

/// Whether no other copy of this program has counted this RST.
pub(crate) fn is_new(sk: &Sock<ProbeRead>, tcp: &Tcp<ProbeRead>) -> bool {
    if !copies_may_run() {
        return true;
    }
    // A connection sends no two RSTs with the same `write_seq`, and no two connections share both words.
    let reset = u64::from(tcp.write_seq()) << 32 | sk.address() & u64::from(u32::MAX);
    maps::is_new_reset(sk.address(), reset)
}

/// Counts an RST that no close caused. The lock and the state of its socket show the cause.
fn count_by_cause(sk: &Sock<ProbeRead>, tcp: &Tcp<ProbeRead>) {
    let state = sk.state();
    let flags = sk.flags();
    let mut by_timer = false;
    let cause = if tcp.is_mptcp() {
        Cause::Mptcp
    } else if state == state::CLOSE {
        if flags.dead() {
            late_abort(tcp.linger2(), tcp.all_acknowledged())
        } else if sk.has_no_file() {
            Cause::ListenerClosed
        } else {
            Cause::Disconnected
        }
    } else if sk.is_owned() && !tcp.is_timer_handled(state) {
        // tcp_abort runs under lock_sock; the timers below do not.
        Cause::Destroyed
    } else {
        by_timer = true;
        match (flags.dead(), state) {
            (false, _) => Cause::Keepalive,
            (true, state::FIN_WAIT2) => Cause::FinWait2Expired,
            (true, _) => Cause::OrphanResources,
        }
    };
    // A timer interrupts any thread: its RST belongs to the socket's cgroup, not to a process.
    let group = group::of_actor(sk, !by_timer);
    let mut index = cause as usize;
    // SAFETY: a local; volatile so that the code below is compiled and verified once, not for each cause.
    let index = unsafe { (&raw mut index).read_volatile() };
    let (Some(counters), 0..Cause::COUNT) = (ledger::counters(&group), index) else {
        return;
    };
    shared!(counters, resets[index]).add(1);
    // A connection that was never accepted takes its received data with it.
    if matches!(cause, Cause::ListenerClosed) && sk.has_receive_queue() {
        shared!(counters, unread_bytes).add(u64::from(tcp.unread(flags)));
    }
}
