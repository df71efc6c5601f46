//! The plan `tracepoint`: a close seen through the events it causes.
//!
//! `cgroup/sock_release` begins it, without the lock. Under the lock the first change of state shows
//! what the kernel decided; a socket that was closed before changes no more, and is decided at its
//! end. A close that leaves its connection in `CLOSE` is counted at the socket's end, within the
//! close; one that leaves a FIN behind at once; one that waits, at its end or at its return.
//!
//! Where the release does not run inside close(2), nothing shows the return: a close that waits is
//! then parked under its socket's address until the socket's end.

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns, helpers::generated::bpf_jiffies64,
};
use linger_ebpf::{Close, Group, Lost, Outcome, flag, stage};

use crate::{
    atomic,
    close::{self, abandon, find, record, remove, unfinished},
    kernel::{Memory as _, Probed, Sock, Task, current_tid, state},
    maps::{self, CLOSES},
    reset,
};

/// Whether close(2) releases its socket before it returns, so that its return ends the close.
#[unsafe(no_mangle)]
static RELEASE_IN_CLOSE: u8 = 0;

fn current() -> Task<Probed> {
    Task::current()
}

/// A socket is released.
#[inline(always)]
pub fn release(sk: &Sock<Probed>) {
    if !sk.is_tcp() {
        return;
    }
    // SAFETY: reads a static; volatile because the value is replaced at load.
    let release_in_close = unsafe { core::ptr::read_volatile(&raw const RELEASE_IN_CLOSE) } != 0;
    let timed = release_in_close && !current().is_exiting();
    let flags = if timed { 0 } else { flag::UNTIMED };
    close::begin::<Probed>(current_tid(), sk.address(), flags);
}

/// A socket's state changes.
#[inline(always)]
pub fn set_state(sk: &Sock<Probed>, old: u8, new: u8) {
    // Only these follow a close, and only after both directions were shut down.
    if !matches!(
        new,
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSE | state::LAST_ACK | state::CLOSING
    ) || !sk.is_shut_down()
    {
        return;
    }
    let tid = current_tid();
    let Some(close) = find(tid, sk.address()) else {
        return;
    };
    // A soft interrupt may come before the close has taken the lock: that is not its doing.
    if close.stage != stage::BEGUN || !sk.is_owned() {
        return;
    }
    // The receive queue is flushed, its sequence numbers still stand. A FIN means it was empty.
    let unread = if new == state::CLOSE { unread(sk) } else { 0 };
    close::decide(close, sk, old, unread, timeout(sk));
    if new == state::CLOSE {
        return;
    }
    let group = current().group();
    if close.stage == stage::WAITING {
        if close.flags & flag::UNTIMED != 0 {
            park(tid, close, group);
        }
        return;
    }
    count(tid, close, &group);
}

/// Received payload that no one read.
#[inline(always)]
fn unread(sk: &Sock<Probed>) -> u32 {
    sk.tcp().map_or(0, |tcp| tcp.unread(sk.flags()))
}

/// The time that `inet_release` lets this close wait.
#[inline(always)]
fn timeout(sk: &Sock<Probed>) -> u64 {
    if sk.flags().linger() && !current().is_exiting() {
        sk.lingertime()
    } else {
        0
    }
}

/// Counts a close whose outcome is known; its time may follow.
#[inline(always)]
fn count(key: u64, close: &mut Close, group: &Group) {
    close::count(close, group, None);
    close.stage = stage::COUNTED;
    if close.flags & flag::UNTIMED != 0 {
        maps::lose(Lost::Return);
        remove(key);
    }
}

/// Keeps a close that waits under its socket's address.
#[inline(always)]
fn park(tid: u64, close: &Close, group: Group) {
    let parked = Close { group, ..*close };
    if CLOSES
        .insert(close.sk, parked, u64::from(BPF_NOEXIST))
        .is_err()
    {
        maps::lose(Lost::Close);
    }
    remove(tid);
}

/// A socket sends an RST of its own will.
#[inline(always)]
pub fn reset(sk: &Sock<Probed>) {
    let address = sk.address();
    if let Some(close) = find(current_tid(), address) {
        return reset_in_close(close, sk, &current().group());
    }
    if let Some(close) = find(address, address) {
        let group = close.group;
        return reset_in_close(close, sk, &group);
    }
    if sk.state() == state::CLOSE && sk.flags().dead() {
        // Only a close does this, after its FIN; it was counted and forgotten.
        let mut close = Close {
            sk: address,
            outcome: Outcome::Graceful as u8,
            stage: stage::COUNTED,
            ..Close::ZERO
        };
        return reset_in_close(&mut close, sk, &current().group());
    }
    reset::sent(None, sk);
}

/// As [`reset`], for a socket whose close may be in flight.
#[inline(always)]
fn reset_in_close(close: &mut Close, sk: &Sock<Probed>, group: &Group) {
    let before = close.outcome;
    let counted = close.stage == stage::COUNTED;
    reset::sent(Some(close), sk);
    if counted && close.stage == stage::DECIDED {
        // It seemed to end gracefully: count it anew.
        if let Some(closes) = maps::counters(group).and_then(|all| close::closes(all, before)) {
            // SAFETY: a field of a map value.
            atomic::add(unsafe { &raw mut (*closes).undated }, u64::MAX);
        }
        close::count(close, group, None);
        close.stage = stage::COUNTED;
    }
}

/// A socket comes to its end, once, in whatever context.
#[inline(always)]
pub fn destroy(sk: &Sock<Probed>) {
    let address = sk.address();
    let tid = current_tid();
    if let Some(close) = find(tid, address) {
        let group = current().group();
        return end(tid, close, sk, &group);
    }
    // One that waited, and whose return was not seen.
    if sk.flags().linger()
        && sk.lingertime() > 0
        && let Some(close) = find(address, address)
    {
        let group = close.group;
        end(address, close, sk, &group);
    }
}

/// The socket of this close has come to its end.
#[inline(always)]
fn end(key: u64, close: &mut Close, sk: &Sock<Probed>, group: &Group) {
    match close.stage {
        // No change of state came before: it was closed when the close took the lock.
        stage::BEGUN => close::decide(close, sk, state::CLOSE, unread(sk), 0),
        stage::WAITING => judge(close, sk),
        stage::DECIDED => {}
        _ => return,
    }
    count(key, close, group);
}

/// What became of a wait, at the end of the socket.
#[inline(always)]
fn judge(close: &mut Close, sk: &Sock<Probed>) {
    let Some(tcp) = sk.tcp() else { return };
    // SAFETY: has no preconditions.
    let outcome = if unsafe { bpf_jiffies64() } >= close.deadline {
        Outcome::LingerTimeout
    } else if sk.err() == 0 && tcp.all_acknowledged() {
        Outcome::Lingered
    } else {
        close::keep(close, tcp.queued_before_fin());
        Outcome::LingerFailed
    };
    close.outcome = outcome as u8;
}

/// The thread enters close(2): what it did before is over.
#[inline(always)]
pub fn enter_close() {
    let tid = current_tid();
    if let Some(close) = record(tid) {
        if close.stage == stage::WAITING {
            close.outcome = unfinished(close) as u8;
            close.stage = stage::DECIDED;
        }
        abandon(tid, &current().group());
    }
}

/// The thread leaves close(2), having released its socket inside.
#[inline(always)]
pub fn exit_close() {
    let tid = current_tid();
    let Some(close) = record(tid) else { return };
    let group = current().group();
    if close.stage == stage::WAITING {
        // Its socket lives: not all was acknowledged, unless it waits long for the peer's FIN.
        let acknowledged = Probed::read::<u8>(close.sk as *const u8, crate::kernel::state_offset())
            == state::FIN_WAIT2;
        let outcome = unfinished(close);
        close.outcome = if acknowledged && matches!(outcome, Outcome::LingerInterrupted) {
            Outcome::Lingered as u8
        } else {
            outcome as u8
        };
        close::count(close, &group, None);
        close.stage = stage::COUNTED;
    }
    if close.stage == stage::COUNTED {
        // SAFETY: has no preconditions.
        let blocked_ns = unsafe { bpf_ktime_get_ns() }.saturating_sub(close.start_ns);
        if let Some(closes) =
            maps::counters(&group).and_then(|all| close::closes(all, close.outcome))
        {
            close::add_time(closes, blocked_ns);
        }
    } else {
        maps::lose(Lost::Close);
    }
    remove(tid);
}
