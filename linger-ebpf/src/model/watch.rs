//! Events of single closes for watchers. No count depends on them.
//!
//! [`record`] → [`report`] → [`report_end`]. A close is recorded at its decision if a watcher may want it. It is
//! reported at its return to those that do and, if it left an orphan, again at the end of that. Without watchers this
//! costs a load and a comparison.

use core::{
    ffi::c_void,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP},
    helpers::generated::{
        bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_ringbuf_output,
    },
};
use linger_ebpf::{
    COSTLY_NS, Close, DAEMON, Event, Fate, Filter, Lost, Orphan, WATCHERS, delivery, event_kind,
    filter_flag, flag, stage,
};

use super::{
    ledger::UNSEEN,
    maps::{self, FILTERS, RINGS, WATCH, WATCHED},
    orphan,
    shared::shared,
};
use crate::kernel::{Memory, ProbeRead, Sock, Task, current_tgid, current_tid, now_ns};

/// The initial value of an event.
static ZERO: Event = Event::ZERO;

/// Records a close at its decision if a watcher may want it. `state` is the socket's state before the decision.
pub(crate) fn record<M: Memory>(close: &mut Close, sk: &Sock<M>, state: u8) {
    if close.start_ns < watched_until() || may_be_costly(close) && take_from_budget(close.start_ns)
    {
        // The end of the previous socket at this address must find its own event. The address is read as a number,
        // because it may equal a typed pointer.
        orphan::displace(read_untracked(&raw const close.sk));
        if insert_event(&raw const *close, linger(sk), state) != 0 {
            close.flags |= flag::WATCHED;
        }
    }
}

/// The value of [`Event::linger`] for this socket.
fn linger<M: Memory>(sk: &Sock<M>) -> u64 {
    if sk.flags().linger() {
        sk.lingertime()
    } else {
        u64::MAX
    }
}

/// The time until which any watcher except the daemon watches.
fn watched_until() -> u64 {
    let Some(watch) = WATCH.get_ptr(0) else {
        return 0;
    };
    // SAFETY: a field of a map value.
    read_untracked(unsafe { &raw const (*watch).until })
}

/// Whether the daemon wants another close recorded for it. Takes one from its budget.
fn take_from_budget(now_ns: u64) -> bool {
    let Some(watch) = WATCH.get_ptr_mut(0) else {
        return false;
    };
    let is_wanted = shared!(watch, leases[DAEMON as usize]).get() > now_ns
        && shared!(watch, budget).get().cast_signed() > 0;
    if is_wanted {
        shared!(watch, budget).add(u64::MAX);
    }
    is_wanted
}

/// Returns the budget of a close that was recorded for the daemon and not reported to it.
fn return_to_budget(close: &Close) {
    if close.start_ns >= watched_until()
        && let Some(watch) = WATCH.get_ptr_mut(0)
    {
        shared!(watch, budget).add(1);
    }
}

/// Whether the close discards payload, or waits.
fn may_be_costly(close: &Close) -> bool {
    close.unsent | close.unacked | close.unread != 0 || close.stage == stage::WAITING
}

/// Records a close. Returns 0 if it is not recorded.
///
/// Values that depend on the path taken are kept in memory and read again where needed: the verifier would
/// follow values in registers through every combination.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_insert_event")]
extern "C" fn insert_event(close: *const Close, linger: u64, state: u8) -> u32 {
    // SAFETY: callers pass a record.
    let Some(close) = (unsafe { close.as_ref() }) else {
        return 0;
    };
    let key = close.sk;
    // The end of an earlier socket at this address may have been missed: this event replaces its own.
    let inserted = WATCHED.insert(key, &ZERO, u64::from(BPF_ANY)).is_ok();
    let Some(event) = event_of(key).filter(|_| inserted) else {
        lose_event(close.start_ns);
        return 0;
    };
    event.start_ns = close.start_ns;
    event.linger = linger;
    event.state = state;
    write_who(event);
    Sock::<ProbeRead>::new(key as *const u8).write_addresses(event);
    let mut watcher = 0;
    while watcher < WATCHERS {
        if may_match(watcher, event) {
            let asked = read_untracked(&raw const event.delivery) | delivery::CANDIDATE << watcher;
            write_untracked(&raw mut event.delivery, asked);
        }
        watcher += 1;
    }
    if read_untracked(&raw const event.delivery) == 0 {
        forget(key);
        return 0;
    }
    1
}

/// Records which thread closes.
fn write_who(event: &mut Event) {
    // SAFETY: has no preconditions.
    event.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    event.tgid = current_tgid();
    event.tid = current_tid();
    let task = Task::current();
    if !task.is_kernel_thread() {
        event.comm = task.comm();
    }
}

/// Whether a watcher may want this close, by what is known at the decision.
fn may_match(watcher: u32, event: &Event) -> bool {
    let Some(filter) = filter(watcher, read_untracked(&raw const event.start_ns)) else {
        return false;
    };
    let other = filter.comm[0] ^ read_untracked(&raw const event.comm[0])
        | filter.comm[1] ^ read_untracked(&raw const event.comm[1]);
    if filter.comm[0] != 0 && other != 0 {
        return false;
    }
    let local = u32::from(read_untracked(&raw const event.local_port));
    let remote = u32::from(read_untracked(&raw const event.remote_port));
    if filter.port != 0 && filter.port != local && filter.port != remote {
        return false;
    }
    if filter.flags & filter_flag::CGROUP == 0 {
        return true;
    }
    // SAFETY: has no preconditions; 0 where there is no such level.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(filter.cgroup_level) };
    id == filter.cgroup_id
}

/// Writes a value to a map, and keeps it out of registers, where the verifier would follow it through every path.
fn write_untracked<T>(place: *mut T, value: T) {
    // SAFETY: a field of a map value.
    unsafe { write_volatile(place, value) };
}

/// Reads a value from a map again, instead of keeping it in a register.
fn read_untracked<T>(place: *const T) -> T {
    // SAFETY: a field of a map value; volatile so that it is read again.
    unsafe { read_volatile(place) }
}

/// The filter of a watcher; `None` if it does not watch.
fn filter(watcher: u32, now_ns: u64) -> Option<&'static Filter> {
    let watch = WATCH.get_ptr(0)?;
    // SAFETY: a field of a map value; volatile because watchers write to it.
    let lease = unsafe {
        read_volatile(
            (&raw const (*watch).leases)
                .cast::<u64>()
                .add(watcher as usize),
        )
    };
    if now_ns >= lease {
        return None;
    }
    FILTERS.get(watcher)
}

/// Whether the user stack is available where a close is reported.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    /// On the closing thread, in a program that may read it.
    Here,
    /// On another thread, or in a program that may not.
    Elsewhere,
}

/// Reports a close to the watchers that want it, at its return after `blocked_ns`, with `left` bytes left
/// behind.
pub(crate) fn report(close: &Close, left: u32, blocked_ns: u64, stack: Stack) {
    let is_late = blocked_ns >= COSTLY_NS && blocked_ns != UNSEEN;
    if close.flags & flag::WATCHED != 0 || is_late {
        report_global(
            &raw const *close,
            left,
            blocked_ns,
            (stack == Stack::Here).into(),
        );
    }
}

/// [`report_to_watchers`] as a [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_report")]
extern "C" fn report_global(
    close: *const Close,
    left: u32,
    blocked_ns: u64,
    has_stack: u32,
) -> u32 {
    // SAFETY: callers pass a record.
    if let Some(close) = unsafe { close.as_ref() } {
        report_to_watchers(close, left, blocked_ns, has_stack != 0);
    }
    0
}

/// [`report`] for a close that was recorded, or that blocked for long.
fn report_to_watchers(close: &Close, left: u32, blocked_ns: u64, has_stack: bool) {
    let key = close.sk;
    if !was_recorded(close) && !insert_late_event(close, key) {
        return;
    }
    let Some(event) = event_of(key).filter(|event| event.start_ns == close.start_ns) else {
        // Its socket is gone, and the event belongs to another one at this address.
        lose_event(close.start_ns);
        return;
    };
    event.kind = event_kind::CLOSE;
    event.outcome = close.outcome;
    event.blocked_ns = blocked_ns;
    event.unsent = close.unsent;
    event.unacked = close.unacked;
    event.unread = close.unread;
    if read_untracked(&raw const event.delivery) & delivery::ENDED == 0 {
        event.left = left;
    }
    choose_recipients(event);
    if has_stack && read_untracked(&raw const event.recipients) & delivery::STACKS != 0 {
        event.stack_bytes = Task::current().user_stack(&mut event.stack);
    }
    send_to(event, delivery::SENT);
    let stands = read_untracked(&raw const event.delivery);
    let sent = read_untracked(&raw const event.recipients);
    if sent == 0 && was_recorded(close) {
        return_to_budget(close);
    }
    let is_over =
        sent == 0 || event.left == 0 || stands & delivery::ENDED != 0 || !was_recorded(close);
    if is_over
        || !shared!(&raw mut *event, delivery).replace(stands, stands | sent | delivery::RETURNED)
    {
        // If there was an orphan, it has ended in between.
        if read_untracked(&raw const event.delivery) & delivery::ENDED != 0 {
            send_end(event);
        }
        forget(key);
    }
}

/// Chooses the watchers to report a close to.
fn choose_recipients(event: &mut Event) {
    let mut watcher = 0;
    while watcher < WATCHERS {
        if read_untracked(&raw const event.delivery) & delivery::CANDIDATE << watcher != 0
            && let Some(filter) = filter(watcher, read_untracked(&raw const event.start_ns))
        {
            let sent = read_untracked(&raw const event.recipients)
                | recipient_bits(filter, event) << watcher;
            write_untracked(&raw mut event.recipients, sent);
        }
        watcher += 1;
    }
}

/// Whether the close was recorded at its decision.
fn was_recorded(close: &Close) -> bool {
    read_untracked(&raw const close.flags) & flag::WATCHED != 0
}

/// Records a close that blocked for long without a sign of it at the decision: it waited for its socket's
/// lock. The addresses and state of the socket are no longer known.
fn insert_late_event(close: &Close, key: u64) -> bool {
    if filter(DAEMON, close.start_ns).is_none()
        || WATCHED.insert(key, &ZERO, u64::from(BPF_ANY)).is_err()
    {
        return false;
    }
    let Some(event) = event_of(key) else {
        return false;
    };
    event.delivery = delivery::CANDIDATE << DAEMON;
    event.start_ns = close.start_ns;
    event.linger = u64::MAX;
    write_who(event);
    true
}

/// The [`delivery`] bits of the first watcher for this close, to be shifted for another one: it wants the close now,
/// only if its orphan loses data, or not at all.
fn recipient_bits(filter: &Filter, event: &Event) -> u64 {
    let lost = event.unsent | event.unacked | event.unread != 0;
    if filter.outcomes & 1 << (event.outcome & 63) == 0 {
        return 0;
    }
    let seen = event.blocked_ns != UNSEEN;
    let long = seen && event.blocked_ns >= filter.blocked_ns;
    if filter.flags & filter_flag::COSTLY != 0 {
        return if lost || long { delivery::SENT } else { 0 };
    }
    let stack = if filter.flags & filter_flag::STACK != 0 {
        delivery::STACK
    } else {
        0
    };
    if !long && filter.blocked_ns > 0 {
        return 0;
    }
    if filter.flags & filter_flag::LOST != 0 && !lost {
        return if event.left > 0 {
            delivery::PENDING | stack
        } else {
            0
        };
    }
    delivery::SENT | stack
}

/// Sends an event to the watchers whose bit is set in [`Event::recipients`]; `first` is the bit of the first.
fn send_to(event: &mut Event, first: u64) {
    let mut watcher = 0;
    while watcher < WATCHERS {
        if read_untracked(&raw const event.recipients) & first << watcher != 0 {
            send(event, watcher);
        }
        watcher += 1;
    }
}

#[inline(never)]
fn send(event: &mut Event, watcher: u32) {
    let Some(watch) = WATCH.get_ptr_mut(0) else {
        return;
    };
    if watcher >= WATCHERS {
        return;
    }
    // The daemon polls its ring.
    let flags = if watcher == DAEMON {
        u64::from(BPF_RB_NO_WAKEUP)
    } else {
        0
    };
    let wants_stack = read_untracked(&raw const event.recipients) & delivery::STACK << watcher != 0;
    let size = if wants_stack && event.stack_bytes > 0 && event.kind == event_kind::CLOSE {
        size_of::<Event>()
    } else {
        Event::HEAD
    };
    let sent = RINGS.get(watcher).is_some_and(|ring| {
        let ring = core::ptr::from_ref(ring).cast_mut().cast::<c_void>();
        let data = core::ptr::from_mut(event).cast::<c_void>();
        // SAFETY: the event is at least that long.
        unsafe { bpf_ringbuf_output(ring, data, size as u64, flags) == 0 }
    });
    if !sent {
        shared!(watch, missed[watcher as usize]).add(1);
        if watcher != DAEMON {
            maps::lose(Lost::Event);
        }
    }
}

/// Reports the end of an orphan, with this fate, to the watchers of its close, which was recorded.
#[inline(never)]
pub(crate) fn report_end(orphan: &Orphan, fate: u32, lived_ns: u64) {
    let key = orphan.sk;
    // The event may belong to another close of a socket at this address.
    let Some(event) = event_of(key).filter(|event| event.start_ns == orphan.close_start_ns())
    else {
        return;
    };
    event.left = orphan.bytes;
    event.fate = u8::try_from(fate).unwrap_or(u8::MAX);
    event.end_unsent = orphan.unsent;
    event.end_unacked = orphan.unacked;
    event.lived_ns = lived_ns;
    let stands = event.delivery;
    if stands & delivery::RETURNED == 0
        && shared!(&raw mut *event, delivery).replace(stands, stands | delivery::ENDED)
    {
        // The close is about to return and reports it.
        return;
    }
    send_end(event);
    forget(key);
}

/// Reports the end of an orphan, and its close where that is pending.
fn send_end(event: &mut Event) {
    if event.fate != Fate::Delivered as u8 {
        event.kind = event_kind::CLOSE;
        send_to(event, delivery::PENDING);
        event.kind = event_kind::END;
        send_to(event, delivery::PENDING);
    }
    event.kind = event_kind::END;
    send_to(event, delivery::SENT);
}

/// Corrects a close where it was reported before it aborted after all, and reports it to the other watchers that want it.
/// `outcome` and `blocked_ns` are those of its report.
pub(crate) fn report_correction<M: Memory>(
    close: &Close,
    outcome: u8,
    blocked_ns: u64,
    sk: &Sock<M>,
) {
    let key = close.sk;
    if event_of(key).is_none()
        && was_recorded(close)
        && insert_event(&raw const *close, linger(sk), close.state) != 0
        && let Some(event) = event_of(key)
    {
        // Its event was dropped at its report, because it left nothing behind.
        event.outcome = outcome;
        event.blocked_ns = blocked_ns;
        choose_recipients(event);
    }
    let Some(event) = event_of(key) else { return };
    if read_untracked(&raw const event.start_ns) != close.start_ns {
        // Of an earlier socket at this address; or of this one, whose start is not known if its record was crowded.
        if close.start_ns == 0 {
            lose_event(now_ns());
            forget(key);
        }
        return;
    }
    let reported = read_untracked(&raw const event.recipients) & delivery::ALL_SENT;
    event.outcome = close.outcome;
    event.unsent = close.unsent;
    event.unacked = close.unacked;
    event.left = 0;
    event.kind = event_kind::CLOSE;
    write_untracked(&raw mut event.recipients, 0);
    choose_recipients(event);
    write_untracked(
        &raw mut event.recipients,
        read_untracked(&raw const event.recipients) & !reported,
    );
    send_to(event, delivery::SENT);
    event.kind = event_kind::CORRECTION;
    write_untracked(&raw mut event.recipients, reported);
    send_to(event, delivery::SENT);
    forget(key);
}

/// Drops the event of a close whose return was missed.
pub(crate) fn forget_missed(close: &Close) {
    if close.flags & flag::WATCHED != 0 {
        lose_event(close.start_ns);
        forget(close.sk);
    }
}

/// Counts a close that began at this time and is not reported, if any watcher except the daemon watches: the daemon
/// keeps only a sample. Whether a watcher wants it is not known: each may have missed it.
///
/// A [global function](super).
#[inline(never)]
#[unsafe(export_name = "linger_lose_event")]
extern "C" fn lose_event(start_ns: u64) -> u32 {
    if start_ns >= watched_until() {
        return 0;
    }
    maps::lose(Lost::Event);
    let Some(watch) = WATCH.get_ptr_mut(0) else {
        return 0;
    };
    let mut watcher = DAEMON + 1;
    while watcher < WATCHERS {
        if filter(watcher, start_ns).is_some() {
            shared!(watch, missed[watcher as usize]).add(1);
        }
        watcher += 1;
    }
    0
}

fn forget(key: u64) {
    // If the event belongs to another close by now, that one is reported less.
    let _ = WATCHED.remove(key);
}

fn event_of(key: u64) -> Option<&'static mut Event> {
    // SAFETY: used by the close until it returns, then by the end of its socket; the reference does not
    // outlive the program.
    WATCHED.get_ptr_mut(key).map(|event| unsafe { &mut *event })
}
