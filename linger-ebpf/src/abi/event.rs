//! Single closes, for those who watch: nothing that is counted depends on them.

use core::mem::offset_of;

/// How many may watch at the same time, the daemon itself included.
pub const WATCHERS: u32 = 4;

/// The place of the daemon itself, which keeps the latest costly closes in mind. It alone is not woken.
pub const DAEMON: u32 = 0;

/// What the daemon takes for costly if nothing was lost: so much time blocked, nanoseconds.
pub const COSTLY_NS: u64 = 100_000_000;

/// How many closes may be kept in mind, until they return or their orphans end.
pub const MAX_WATCHED: u32 = 8192;

/// How many frames of a stack are kept.
pub const FRAMES: u32 = 64;

/// Who watches: the only entry of its map, which those who watch have in their memory. A watcher that
/// does not prolong its lease watches no more, however it ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Until when anyone but the daemon watches, nanoseconds of `CLOCK_MONOTONIC`. Never goes back.
    pub until: u64,
    /// Until when each watches.
    pub leases: [u64; WATCHERS as usize],
    /// How many events found no room in the ring of each.
    pub missed: [u64; WATCHERS as usize],
    /// How many more closes are written down for the daemon alone until it looks again, which keeps a sample: none,
    /// if this is 0 or, as a signed number, less.
    pub budget: u64,
}

/// Which closes a watcher asks for: those to which all of it applies.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// A bit for each [`Outcome`](crate::Outcome), by its index.
    pub outcomes: u64,
    /// Blocked for so long at least, nanoseconds.
    pub blocked_ns: u64,
    /// As [`Group::comm`](crate::Group::comm); any, if it is empty.
    pub comm: [u64; 2],
    /// In this cgroup, or below; only if [`asks::CGROUP`] says so.
    pub cgroup_id: u64,
    /// How many cgroups are above that.
    pub cgroup_level: i32,
    /// A port of either end; 0 for any.
    pub port: u32,
    /// What else is asked for, a set of [`asks`].
    pub asks: u32,
    /// Always 0.
    pub unused: u32,
}

/// Bits of [`Filter::asks`].
pub mod asks {
    /// Something was lost: by the close, or by the end of its orphan.
    pub const LOST: u32 = 1 << 0;
    /// Something was lost by the close, or it was blocked as long as is asked for.
    pub const COSTLY: u32 = 1 << 1;
    /// It was made in the cgroup.
    pub const CGROUP: u32 = 1 << 2;
    /// The stack of the process is wanted.
    pub const STACK: u32 = 1 << 3;
}

impl Filter {
    /// All closes.
    pub const ALL: Self = Self {
        outcomes: u64::MAX,
        blocked_ns: 0,
        comm: [0; 2],
        cgroup_id: 0,
        cgroup_level: 0,
        port: 0,
        asks: 0,
        unused: 0,
    };

    /// What the daemon keeps in mind.
    pub const COSTLY: Self = Self {
        blocked_ns: COSTLY_NS,
        asks: asks::COSTLY,
        ..Self::ALL
    };
}

/// What an [`Event`] tells.
pub mod event_kind {
    /// A close returned.
    pub const CLOSE: u8 = 0;
    /// An orphan that a close left behind came to its end.
    pub const END: u8 = 1;
    /// A close that was told before aborted after all.
    pub const CORRECTION: u8 = 2;
}

/// A close that is told, and the end of its orphan.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kernel's own: to whom it was told, a set of [`told`] bits.
    pub told: u64,
    /// The kernel's own: to whom it is told at its return, as [`told`].
    pub sent: u64,
    /// When the close began, nanoseconds of `CLOCK_MONOTONIC`. With `tid`, no other has both.
    pub start_ns: u64,
    /// How long it was blocked; `u64::MAX` if its return is not seen.
    pub blocked_ns: u64,
    /// From its return to the end of its orphan, nanoseconds.
    pub lived_ns: u64,
    /// As [`Group::cgroup_id`](crate::Group::cgroup_id).
    pub cgroup_id: u64,
    /// As [`Group::comm`](crate::Group::comm).
    pub comm: [u64; 2],
    /// The time of `SO_LINGER` in jiffies; `u64::MAX` if it is off.
    pub linger: u64,
    /// The local address, bytes as on the wire; of IPv4 as `::ffff:0:0/96` has it.
    pub local: [u32; 4],
    /// The remote address.
    pub remote: [u32; 4],
    /// The process, in the initial namespace.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// Payload that the close threw away unsent.
    pub unsent: u32,
    /// As `unsent`: sent, not acknowledged.
    pub unacked: u32,
    /// Payload that no one read.
    pub unread: u32,
    /// Payload that it left behind.
    pub left: u32,
    /// Payload that the end of its orphan threw away unsent.
    pub end_unsent: u32,
    /// As `end_unsent`: sent, not acknowledged.
    pub end_unacked: u32,
    /// The local port.
    pub local_port: u16,
    /// The remote port.
    pub remote_port: u16,
    /// What it tells, an [`event_kind`].
    pub kind: u8,
    /// The [`Outcome`](crate::Outcome).
    pub outcome: u8,
    /// The [`Fate`](crate::Fate) of the orphan.
    pub fate: u8,
    /// The connection's state at the decision, as `include/net/tcp_states.h` has it.
    pub state: u8,
    /// Bytes of the stack that are valid.
    pub stack_bytes: u64,
    /// The stack of the process, addresses in it.
    pub stack: [u64; FRAMES as usize],
}

impl Event {
    /// Nothing known.
    pub const ZERO: Self = Self {
        told: 0,
        sent: 0,
        start_ns: 0,
        blocked_ns: 0,
        lived_ns: 0,
        cgroup_id: 0,
        comm: [0; 2],
        linger: 0,
        local: [0; 4],
        remote: [0; 4],
        tgid: 0,
        tid: 0,
        unsent: 0,
        unacked: 0,
        unread: 0,
        left: 0,
        end_unsent: 0,
        end_unacked: 0,
        local_port: 0,
        remote_port: 0,
        kind: 0,
        outcome: 0,
        fate: 0,
        state: 0,
        stack_bytes: 0,
        stack: [0; FRAMES as usize],
    };

    /// Bytes of one without its stack.
    pub const HEAD: usize = offset_of!(Self, stack);
}

/// Bits of [`Event::told`].
pub mod told {
    /// The first of those who ask for it: bits for each, by place.
    pub const ASKED: u64 = 1;
    /// The first of those to whom the close was told.
    pub const SENT: u64 = 1 << 8;
    /// The first of those to whom it will be told if its orphan is lost.
    pub const PENDING: u64 = 1 << 16;
    /// The first of those who want the stack.
    pub const STACK: u64 = 1 << 32;
    /// All of these.
    pub const STACKS: u64 = 0xff << 32;
    /// The close has returned: what comes next is the end's.
    pub const RETURNED: u64 = 1 << 24;
    /// The orphan has ended: what comes next is the close's.
    pub const ENDED: u64 = 1 << 25;
}
