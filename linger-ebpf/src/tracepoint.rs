//! The plan `tracepoint`: a close seen through the events it causes.
//!
//! `cgroup/sock_release` begins it, without the lock. Under the lock the first change of state shows
//! what the kernel decided; a socket that was closed before changes no more, and is decided at its
//! end. Inside close(2), its return ends the close; elsewhere (at exit, by dup2(2), on kernels that
//! release files after close(2)) no one sees the return, and the close is counted without its time:
//! at the decision, or at the socket's end if that comes within the close. One that waits is parked
//! until then under its socket's address.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::{bpf_get_current_task_btf, bpf_jiffies64, bpf_task_pt_regs},
};
use linger_ebpf::{Close, Group, Lost, Outcome, stage};

use crate::{
    atomic,
    close::{self, find, record, remove, unfinished},
    kernel::{
        Memory as _, Probed, Sock, Task, current_tid, result_offset, state, state_offset,
        syscall_offset,
    },
    maps::{self, CLOSES},
    reset,
};

/// Number of the system call inside which a release ends with the call's return; -1 if there is none.
#[unsafe(no_mangle)]
static CLOSE_SYSCALL: i32 = -1;

fn current() -> Task<Probed> {
    Task::current()
}

/// Whether these are the registers of a thread that called close(2), where its return is the end of
/// the release.
#[inline(always)]
pub(crate) fn is_close(registers: *const u8) -> bool {
    // SAFETY: reads a static; volatile because the value is replaced at load.
    let close = unsafe { core::ptr::read_volatile(&raw const CLOSE_SYSCALL) };
    close >= 0 && Probed::read::<u32>(registers, syscall_offset()) == close.cast_unsigned()
}

/// Whether the current thread is inside close(2), so that its return will be seen.
#[inline(always)]
fn in_close_syscall() -> bool {
    // SAFETY: the registers that the current task entered the kernel with.
    let registers = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8;
    // Work that is left to the way out of a system call runs when its return has been seen: by
    // then its result stands where -ENOSYS did.
    is_close(registers) && Probed::read::<u32>(registers, result_offset()) == ENOSYS.wrapping_neg()
}

const ENOSYS: u32 = 38;

/// A socket is released.
#[inline(always)]
pub(crate) fn release(sk: &Sock<Probed>) {
    close::begin::<Probed>(current_tid(), sk.address(), 0);
}

/// A socket's state changes.
#[inline(always)]
pub(crate) fn set_state(sk: &Sock<Probed>, old: u8, new: u8) {
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
    // One that ends in CLOSE does not wait.
    let (unread, timeout) = match new {
        state::CLOSE => (unread(sk), 0),
        _ => (0, timeout(sk)),
    };
    close::decide(close, sk, old, unread, timeout);
    // A socket in CLOSE ends within the close.
    if new != state::CLOSE && !in_close_syscall() {
        if close.stage == stage::WAITING {
            park(tid, close);
        } else {
            count(tid, close, &current().group());
        }
    }
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

/// Counts a close whose return no one sees.
#[inline(always)]
fn count(key: u64, close: &Close, group: &Group) {
    close::count(close, group, None);
    maps::lose(Lost::Return);
    remove(key);
}

/// Keeps a close that waits, and whose return no one sees, under its socket's address.
#[inline(always)]
fn park(tid: u64, close: &Close) {
    let parked = Close {
        group: current().group(),
        ..*close
    };
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
pub(crate) fn reset(sk: &Sock<Probed>) {
    let address = sk.address();
    let close = find(current_tid(), address).or_else(|| find(address, address));
    if close.is_none() && sk.state() == state::CLOSE && sk.flags().dead() {
        // Only a close does this, after its FIN; it was counted and forgotten.
        return recount(sk);
    }
    reset::sent(close, sk);
}

/// A close that was counted as graceful aborts after all.
#[inline(always)]
fn recount(sk: &Sock<Probed>) {
    let mut close = Close {
        sk: sk.address(),
        stage: stage::DECIDED,
        ..Close::ZERO
    };
    reset::sent(Some(&mut close), sk);
    let group = current().group();
    let graceful = Outcome::Graceful as u8;
    if let Some(closes) = maps::counters(&group).and_then(|all| close::closes(all, graceful)) {
        // SAFETY: a field of a map value.
        atomic::add(unsafe { &raw mut (*closes).undated }, u64::MAX);
    }
    close::count(&close, &group, None);
}

/// A socket comes to its end, once, in whatever context.
#[inline(always)]
pub(crate) fn destroy(sk: &Sock<Probed>) {
    let address = sk.address();
    let tid = current_tid();
    if let Some(close) = find(tid, address) {
        // Under the lock it is the close that ends it. Without, it is a soft interrupt that came
        // upon this thread after its close let go: the close ends as it would have.
        if sk.is_owned() {
            settle(close, sk);
            if !in_close_syscall() {
                count(tid, close, &current().group());
            }
        }
        return;
    }
    if sk.flags().linger()
        && sk.lingertime() > 0
        && let Some(close) = find(address, address)
    {
        settle(close, sk);
        let group = close.group;
        count(address, close, &group);
    }
}

/// What a close was, at the end of its socket.
#[inline(always)]
fn settle(close: &mut Close, sk: &Sock<Probed>) {
    match close.stage {
        // No change of state came before: it was closed when the close took the lock.
        stage::BEGUN => close::decide(close, sk, state::CLOSE, unread(sk), 0),
        stage::WAITING => judge(close, sk),
        _ => {}
    }
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
    close.stage = stage::DECIDED;
}

/// The thread leaves close(2), perhaps having released a socket inside.
#[inline(always)]
pub(crate) fn exit_close() {
    let tid = current_tid();
    let Some(close) = record(tid) else { return };
    if close.stage == stage::WAITING {
        // Its socket lives: not all was acknowledged, unless it waits long for the peer's FIN.
        let now: u8 = Probed::read(close.sk as *const u8, state_offset());
        let outcome = unfinished(close);
        let acknowledged = now == state::FIN_WAIT2 && matches!(outcome, Outcome::LingerInterrupted);
        close.outcome = if acknowledged {
            Outcome::Lingered
        } else {
            outcome
        } as u8;
        close.stage = stage::DECIDED;
    }
    close::finish::<Probed>(tid, close);
}
