//! What is told of single closes to those who watch. Nothing that is counted depends on it.
//!
//! `note` → `tell` → `end`. A close is written down at its decision if someone may want it; at its
//! return it is told to those who do, and, if it left something behind, once more at the end of its
//! orphan. Where no one watches, that is a load and a comparison.

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
    COSTLY_NS, Close, DAEMON, Event, Fate, Filter, Lost, QueueBytes, WATCHERS, asks, event_kind,
    flag, stage, told,
};

use crate::{
    atomic,
    close::{UNSEEN, narrow},
    kernel::{Flags, Memory, Probed, Sock, Task, current_tgid, current_tid},
    maps::{self, FILTERS, RINGS, WATCH, WATCHED},
};

/// What an event starts from.
static ZERO: Event = Event::ZERO;

/// A close is decided. It is written down if someone may want to be told of it.
#[inline(always)]
pub(crate) fn note<M: Memory>(close: &mut Close, sk: &Sock<M>, state: u8, flags: Flags) {
    let Some(watch) = WATCH.get_ptr(0) else {
        return;
    };
    // SAFETY: a field of a map value; volatile because those who watch write to it.
    let until = unsafe { read_volatile(&raw const (*watch).until) };
    if close.start_ns < until || may_be_costly(close) {
        let linger = if flags.linger() {
            sk.lingertime()
        } else {
            u64::MAX
        };
        if write_down(close, linger, state) {
            close.flags |= flag::WATCHED;
        }
    }
}

/// Whether something is thrown away, or the close waits.
#[inline(always)]
fn may_be_costly(close: &Close) -> bool {
    close.unsent | close.unacked | close.unread != 0 || close.stage == stage::WAITING
}

/// Whether it is written down.
#[inline(never)]
fn write_down(close: &mut Close, linger: u64, state: u8) -> bool {
    let key = close.sk;
    let sk = Sock::<Probed>::new(key as *const u8);
    let [local, remote] = sk.addresses();
    let task = Task::current();
    let comm = if task.is_kernel_thread() {
        [0; 2]
    } else {
        task.comm()
    };
    // In memory, and not in a register: there the verifier would follow every combination.
    let asked = &raw mut close.asked;
    remember(asked, 0);
    let mut place = 0;
    while place < WATCHERS {
        if is_asked(place, close.start_ns, comm, [local.1, remote.1]) {
            remember(asked, recall(asked) | 1 << place);
        }
        place += 1;
    }
    let asked = recall(asked);
    if asked == 0 {
        return false;
    }
    if WATCHED.insert(key, &ZERO, u64::from(BPF_ANY)).is_err() {
        maps::lose(Lost::Event);
        return false;
    }
    let Some(event) = record(key) else {
        maps::lose(Lost::Event);
        return false;
    };
    event.told = asked.into();
    event.start_ns = close.start_ns;
    // SAFETY: has no preconditions.
    event.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    event.comm = comm;
    event.linger = linger;
    (event.local, event.local_port) = local;
    (event.remote, event.remote_port) = remote;
    event.tgid = current_tgid();
    event.tid = current_tid();
    event.state = state;
    true
}

/// Whether a watcher may want this close, as far as can be said at its decision.
#[inline(always)]
fn is_asked(place: u32, start_ns: u64, comm: [u64; 2], ports: [u16; 2]) -> bool {
    let Some(filter) = filter(place, start_ns) else {
        return false;
    };
    if filter.comm != [0; 2] && filter.comm != comm {
        return false;
    }
    let [local, remote] = ports.map(u32::from);
    if filter.port != 0 && filter.port != local && filter.port != remote {
        return false;
    }
    if filter.asks & asks::CGROUP == 0 {
        return true;
    }
    // SAFETY: has no preconditions; 0 where there is no such level.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(filter.cgroup_level) };
    id == filter.cgroup_id
}

/// Writes into a map what the verifier need not know.
#[inline(always)]
fn remember<T>(place: *mut T, value: T) {
    // SAFETY: a field of a map value.
    unsafe { write_volatile(place, value) };
}

/// Reads what was [remembered](remember).
#[inline(always)]
fn recall<T>(place: *const T) -> T {
    // SAFETY: a field of a map value; volatile so that it is read again.
    unsafe { read_volatile(place) }
}

/// What a watcher asks for; none if it does not watch.
#[inline(always)]
fn filter(place: u32, now_ns: u64) -> Option<&'static Filter> {
    let watch = WATCH.get_ptr(0)?;
    // SAFETY: a field of a map value; volatile because those who watch write to it.
    let lease = unsafe {
        read_volatile(
            (&raw const (*watch).leases)
                .cast::<u64>()
                .add(place as usize),
        )
    };
    if now_ns >= lease {
        return None;
    }
    FILTERS.get(place)
}

/// Whether the stack of the process can be had where a close is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    /// It is the thread that closes, in a program that may look.
    Here,
    /// It is another, or in a program that may not.
    Elsewhere,
}

/// A close returns, after so much time, and leaves so much behind: it is told to those who want it.
#[inline(always)]
pub(crate) fn tell(close: &Close, left: u32, blocked_ns: u64, stack: Stack) {
    let is_late = blocked_ns >= COSTLY_NS && blocked_ns != UNSEEN;
    if close.flags & flag::WATCHED != 0 || is_late {
        tell_it(close, left, blocked_ns, stack == Stack::Here);
    }
}

/// A function of its own, for the sake of the stack.
#[inline(never)]
fn tell_it(close: &Close, left: u32, blocked_ns: u64, has_stack: bool) {
    // SAFETY: volatile because it may equal a pointer whose type the verifier knows, and with which it
    // lets no one calculate.
    let key = unsafe { read_volatile(&raw const close.sk) };
    let is_foretold = close.flags & flag::WATCHED != 0;
    if !is_foretold && !write_down_late(close, key) {
        return;
    }
    let Some(event) = record(key).filter(|event| event.start_ns == close.start_ns) else {
        // Its socket is gone, and another at this address is told of.
        return maps::lose(Lost::Event);
    };
    event.kind = event_kind::CLOSE;
    event.outcome = close.outcome;
    event.blocked_ns = blocked_ns;
    event.unsent = close.unsent;
    event.unacked = close.unacked;
    event.unread = close.unread;
    if recall(&raw const event.told) & told::ENDED == 0 {
        event.left = left;
    }
    let asked = recall(&raw const event.told);
    // As when it was asked for: in memory.
    remember(&raw mut event.sent, 0);
    let mut place = 0;
    while place < WATCHERS {
        if asked & told::ASKED << place != 0
            && let Some(filter) = filter(place, close.start_ns)
        {
            let sent = recall(&raw const event.sent) | wanted(filter, event) << place;
            remember(&raw mut event.sent, sent);
        }
        place += 1;
    }
    let sent = recall(&raw const event.sent);
    if has_stack && sent & told::STACKS != 0 {
        event.stack_bytes = Task::current().user_stack(&mut event.stack);
    }
    send_to(event, places(sent, told::SENT));
    let told = asked | sent | told::RETURNED;
    let is_over = sent == 0 || event.left == 0 || asked & told::ENDED != 0 || !is_foretold;
    if is_over || !atomic::replace(&raw mut event.told, asked, told) {
        // If there was an orphan, it has ended meanwhile.
        if recall(&raw const event.told) & told::ENDED != 0 {
            end_told(event, sent);
        }
        forget(key);
    }
}

/// Writes down a close that was blocked for long, though nothing foretold it: it waited for its socket's
/// lock. What the socket was is not known any more.
#[inline(always)]
fn write_down_late(close: &Close, key: u64) -> bool {
    if filter(DAEMON, close.start_ns).is_none()
        || WATCHED.insert(key, &ZERO, u64::from(BPF_ANY)).is_err()
    {
        return false;
    }
    let Some(event) = record(key) else {
        return false;
    };
    event.told = told::ASKED << DAEMON;
    event.start_ns = close.start_ns;
    // SAFETY: has no preconditions.
    event.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    event.comm = Task::current().comm();
    event.linger = u64::MAX;
    event.tgid = current_tgid();
    event.tid = current_tid();
    true
}

/// The [`told`] bits of a watcher for this close: whether it wants it at once, or only if its orphan is
/// lost.
#[inline(always)]
fn wanted(filter: &Filter, event: &Event) -> u64 {
    let lost = event.unsent | event.unacked | event.unread != 0;
    if filter.outcomes & 1 << (event.outcome & 63) == 0 {
        return 0;
    }
    let seen = event.blocked_ns != UNSEEN;
    let long = seen && event.blocked_ns >= filter.blocked_ns;
    if filter.asks & asks::COSTLY != 0 {
        return if lost || long { told::SENT } else { 0 };
    }
    let stack = if filter.asks & asks::STACK != 0 {
        told::STACK
    } else {
        0
    };
    if !long && filter.blocked_ns > 0 {
        return 0;
    }
    if filter.asks & asks::LOST != 0 && !lost {
        return if event.left > 0 {
            told::PENDING | stack
        } else {
            0
        };
    }
    told::SENT | stack
}

/// Who has the [`told`] bits from this first one on, a bit for each.
#[inline(always)]
fn places(told: u64, first: u64) -> u64 {
    (told / first) & ((1 << WATCHERS) - 1)
}

/// Tells an event to those whose bits are set, lowest first.
#[inline(always)]
fn send_to(event: &mut Event, to: u64) {
    let mut place = 0;
    while place < WATCHERS {
        if to & 1 << place != 0 {
            send(event, place);
        }
        place += 1;
    }
}

#[inline(never)]
fn send(event: &mut Event, place: u32) {
    let Some(watch) = WATCH.get_ptr_mut(0) else {
        return;
    };
    if place >= WATCHERS {
        return;
    }
    // The daemon looks when it has to look anyway.
    let flags = if place == DAEMON {
        u64::from(BPF_RB_NO_WAKEUP)
    } else {
        0
    };
    let sent = RINGS.get(place).is_some_and(|ring| {
        let ring = core::ptr::from_ref(ring).cast_mut().cast::<c_void>();
        let data = core::ptr::from_mut(event).cast::<c_void>();
        let result = if event.stack_bytes > 0 && event.kind == event_kind::CLOSE {
            // SAFETY: the event is that long.
            unsafe { bpf_ringbuf_output(ring, data, size_of::<Event>() as u64, flags) }
        } else {
            // SAFETY: as above.
            unsafe { bpf_ringbuf_output(ring, data, Event::HEAD as u64, flags) }
        };
        result == 0
    });
    if !sent {
        // SAFETY: a field of a map value, and there is such a place.
        atomic::add(
            unsafe { (&raw mut (*watch).missed).cast::<u64>().add(place as usize) },
            1,
        );
        if place != DAEMON {
            maps::lose(Lost::Event);
        }
    }
}

/// What became of an orphan.
pub(crate) struct End {
    pub(crate) fate: u8,
    pub(crate) bytes: u32,
    pub(crate) unsent: u32,
    pub(crate) unacked: u32,
    pub(crate) lived_ns: u64,
}

impl End {
    /// This fate of an orphan of so many bytes, which throws these away.
    pub(crate) fn new(fate: u8, bytes: u32, thrown_away: &QueueBytes, lived_ns: u64) -> Self {
        Self {
            fate,
            bytes,
            unsent: narrow(thrown_away.unsent),
            unacked: narrow(thrown_away.unacked),
            lived_ns,
        }
    }
}

/// An orphan ends whose close was written down: those to whom that was told are told.
#[inline(never)]
pub(crate) fn end(key: u64, end: &End) {
    let Some(event) = record(key) else { return };
    event.left = end.bytes;
    event.fate = end.fate;
    event.end_unsent = end.unsent;
    event.end_unacked = end.unacked;
    event.lived_ns = end.lived_ns;
    let stands = event.told;
    if stands & told::RETURNED == 0
        && atomic::replace(&raw mut event.told, stands, stands | told::ENDED)
    {
        // The close, which is about to return, tells it.
        return;
    }
    let sent = recall(&raw const event.told);
    end_told(event, sent);
    forget(key);
}

/// Tells the end of an orphan, and its close where that was not told yet.
#[inline(always)]
fn end_told(event: &mut Event, told_to: u64) {
    let mut to = places(told_to, told::SENT);
    if event.fate != Fate::Delivered as u8 {
        let pending = places(told_to, told::PENDING);
        event.kind = event_kind::CLOSE;
        send_to(event, pending);
        to |= pending;
    }
    event.kind = event_kind::END;
    send_to(event, to);
}

/// A close that was told as graceful aborts after all.
#[inline(always)]
pub(crate) fn correct(close: &Close) {
    let key = close.sk;
    let Some(event) = record(key) else { return };
    event.kind = event_kind::CORRECTION;
    event.outcome = close.outcome;
    event.unsent = close.unsent;
    event.unacked = close.unacked;
    event.left = 0;
    send_to(event, places(event.told, told::SENT));
    forget(key);
}

/// A close whose return was missed is not told.
#[inline(always)]
pub(crate) fn miss(close: &Close) {
    if close.flags & flag::WATCHED != 0 {
        maps::lose(Lost::Event);
        forget(close.sk);
    }
}

#[inline(always)]
fn forget(key: u64) {
    // Another close may have taken its place: then that is told less.
    let _ = WATCHED.remove(key);
}

#[inline(always)]
fn record(key: u64) -> Option<&'static mut Event> {
    // SAFETY: the close works on it until it returns, then the end of its socket; the reference does
    // not outlive the program.
    WATCHED.get_ptr_mut(key).map(|event| unsafe { &mut *event })
}
