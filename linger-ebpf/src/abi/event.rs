//! Events of single closes, for watchers: no count depends on them.

use core::mem::offset_of;

/// Maximum number of watchers, including the daemon.
pub const WATCHERS: u32 = 4;

/// The daemon's place among the watchers: it keeps the latest costly closes. It alone is not woken.
pub const DAEMON: u32 = 0;

/// A close that blocks for this many nanoseconds is costly even if it loses nothing.
pub const COSTLY_NS: u64 = 100_000_000;

/// Maximum number of closes watched at the same time, until they return or their orphans end.
pub const MAX_WATCHED: u32 = 8192;

/// Maximum number of stack frames in an event.
pub const FRAMES: u32 = 64;

/// The leases of the watchers: the only entry of its map, which watchers have mapped. A watcher that does not
/// renew its lease no longer watches, however it ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Until when any watcher except the daemon watches, nanoseconds of `CLOCK_MONOTONIC`. Never decreases.
    pub until: u64,
    /// Until when each watcher watches.
    pub leases: [u64; WATCHERS as usize],
    /// Events for which there was no room in the ring of each watcher, and closes that could not be recorded while it
    /// watched.
    pub missed: [u64; WATCHERS as usize],
    /// Number of closes that may still be recorded for the daemon alone, which keeps a sample, until it polls again:
    /// none if this is 0 or, as a signed number, negative.
    pub budget: u64,
}

/// The closes that a watcher wants: those that meet every condition.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// A bit for each [`Outcome`](crate::Outcome), by its index.
    pub outcomes: u64,
    /// Minimum time blocked, nanoseconds.
    pub blocked_ns: u64,
    /// Like [`Group::comm`](crate::Group::comm); empty for any.
    pub comm: [u64; 2],
    /// In this cgroup or below; used with [`filter_flag::CGROUP`].
    pub cgroup_id: u64,
    /// Level of that cgroup: how many are above it.
    pub cgroup_level: i32,
    /// Port of either end; 0 for any.
    pub port: u32,
    /// Further conditions and wishes, a set of [`filter_flag`]s.
    pub flags: u32,
    /// Always 0.
    pub unused: u32,
}

/// Bits of [`Filter::flags`].
pub mod filter_flag {
    /// Payload was lost, by the close or by the end of its orphan.
    pub const LOST: u32 = 1 << 0;
    /// Payload was lost by the close, or it blocked for the minimum time.
    pub const COSTLY: u32 = 1 << 1;
    /// The close was made in the cgroup.
    pub const CGROUP: u32 = 1 << 2;
    /// Record the user stack.
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
        flags: 0,
        unused: 0,
    };

    /// The closes that the daemon keeps.
    pub const COSTLY: Self = Self {
        blocked_ns: COSTLY_NS,
        flags: filter_flag::COSTLY,
        ..Self::ALL
    };
}

/// Kinds of [`Event`].
pub mod event_kind {
    /// A close returned.
    pub const CLOSE: u8 = 0;
    /// The orphan of a close ended.
    pub const END: u8 = 1;
    /// A close that was reported before aborted after all.
    pub const CORRECTION: u8 = 2;
}

/// A close, and the end of its orphan, as reported to watchers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// For the programs only: what is known so far about the delivery to each watcher, a set of [`delivery`] bits.
    pub delivery: u64,
    /// For the programs only: what is decided at its return about each watcher, a set of [`delivery`] bits.
    pub recipients: u64,
    /// When the close began, nanoseconds of `CLOCK_MONOTONIC`. Unique together with `tid`.
    pub start_ns: u64,
    /// Time blocked, nanoseconds; `u64::MAX` if its return is not seen.
    pub blocked_ns: u64,
    /// Time from its return to the end of its orphan, nanoseconds.
    pub lived_ns: u64,
    /// Like [`Group::cgroup_id`](crate::Group::cgroup_id).
    pub cgroup_id: u64,
    /// Like [`Group::comm`](crate::Group::comm).
    pub comm: [u64; 2],
    /// The time of `SO_LINGER` in jiffies; `u64::MAX` if it is off.
    pub linger: u64,
    /// The local address in network byte order; IPv4 is mapped into `::ffff:0:0/96`.
    pub local: [u32; 4],
    /// The remote address.
    pub remote: [u32; 4],
    /// Process id, in the initial namespace.
    pub tgid: u32,
    /// Thread id, in the initial namespace.
    pub tid: u32,
    /// Payload discarded by the close, never sent.
    pub unsent: u32,
    /// Payload discarded by the close, sent and not acknowledged.
    pub unacked: u32,
    /// Received payload discarded unread.
    pub unread: u32,
    /// Payload left behind.
    pub left: u32,
    /// Payload discarded by the end of its orphan, never sent.
    pub end_unsent: u32,
    /// Payload discarded by the end of its orphan, sent and not acknowledged.
    pub end_unacked: u32,
    /// The local port.
    pub local_port: u16,
    /// The remote port.
    pub remote_port: u16,
    /// The kind, an [`event_kind`].
    pub kind: u8,
    /// The [`Outcome`](crate::Outcome).
    pub outcome: u8,
    /// The [`Fate`](crate::Fate) of the orphan.
    pub fate: u8,
    /// The connection's state at the decision (`include/net/tcp_states.h`).
    pub state: u8,
    /// Valid bytes of the stack.
    pub stack_bytes: u64,
    /// Return addresses of the user stack.
    pub stack: [u64; FRAMES as usize],
}

impl Event {
    /// Nothing known.
    pub const ZERO: Self = Self {
        delivery: 0,
        recipients: 0,
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

    /// Size of an event without its stack, bytes.
    pub const HEAD: usize = offset_of!(Self, stack);
}

/// Bits of [`Event::delivery`] and [`Event::recipients`]. For each property of a watcher there is a byte with one bit
/// for each of the [`WATCHERS`], by its place; the constant is the bit of the first.
pub mod delivery {
    /// Watchers that may want the close, by what is known at its decision.
    pub const CANDIDATE: u64 = 1;
    /// Watchers to which the close was reported.
    pub const SENT: u64 = 1 << 8;
    /// All bits of [`SENT`].
    pub const ALL_SENT: u64 = 0xff << 8;
    /// Watchers to which it will be reported if its orphan loses data.
    pub const PENDING: u64 = 1 << 16;
    /// Watchers that want the stack.
    pub const STACK: u64 = 1 << 32;
    /// All bits of [`STACK`].
    pub const STACKS: u64 = 0xff << 32;
    /// The close has returned: the event now belongs to the end of the orphan.
    pub const RETURNED: u64 = 1 << 24;
    /// The orphan has ended: the close reports that when it returns.
    pub const ENDED: u64 = 1 << 25;
}
