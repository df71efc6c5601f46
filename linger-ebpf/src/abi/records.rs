//! Records of closes in flight and of orphans.

use super::MAX_CLOSES;
use super::group::Group;

/// A close in flight. It ends before its thread begins the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The key of its local port if it sends its FIN before the peer's has come; else 0. Once it is counted although it
    /// is not over: its time, as counted.
    pub port_key: u64,
    /// Address of the socket: distinguishes this close from work on other sockets by the same thread.
    pub sk: u64,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// Payload in the send queue at the decision, never sent.
    pub unsent: u32,
    /// Payload in the send queue at the decision, sent and not acknowledged.
    pub unacked: u32,
    /// Received payload that was not read. Before the decision: [`Close::jiffy_of_release`].
    pub unread: u32,
    /// While it waits: lower half of the jiffy at which its linger time is over. Before the decision:
    /// [`Close::write_seq_at_release`].
    pub deadline: u32,
    /// The [`Outcome`](crate::Outcome), as far as known.
    pub outcome: u8,
    /// Progress, a [`stage`].
    pub stage: u8,
    /// A set of [`flag`]s.
    pub flags: u8,
    /// Address family of the connection, like [`Group::family`].
    pub family: u8,
    /// Local port of the connection, if this host accepted it.
    pub port: u16,
    /// State of the socket at its release, if that is hooked by a program that is never skipped; else 0.
    pub state: u8,
    /// The rules in use when it began, a set of [`rule`](super::rule)s.
    pub rules: u8,
}

impl Close {
    /// Nothing known.
    pub const ZERO: Self = Self {
        port_key: 0,
        sk: 0,
        start_ns: 0,
        unsent: 0,
        unacked: 0,
        unread: 0,
        deadline: 0,
        outcome: 0,
        stage: stage::BEGUN,
        flags: 0,
        family: 0,
        port: 0,
        state: 0,
        rules: 0,
    };

    /// The socket's `write_seq` at its release; valid before the decision, if `state` is not 0.
    #[must_use]
    pub const fn write_seq_at_release(&self) -> u32 {
        self.deadline
    }

    /// The lower half of the jiffy of the socket's release; valid before the decision, if `state` is not 0.
    #[must_use]
    pub const fn jiffy_of_release(&self) -> u32 {
        self.unread
    }

    /// The initial `stage` of its orphan's record.
    #[must_use]
    pub const fn initial_orphan_stage(&self) -> u64 {
        self.start_ns << orphan_stage::MASK.count_ones() | orphan_stage::OPEN
    }
}

/// The group that last closed a connection at a local port: late data counts for it. An entry of an array, at
/// the index of the port's key; a single word, because CPUs write it without a lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closer {
    /// [`Group::number`](Group::number) XOR the key of the port: with the key of another port, it yields a number
    /// that no group has.
    pub mark: u64,
}

impl Closer {
    /// The place of a key. No two ports of a network namespace share one: the closes of its clients, each at a port
    /// of its own, leave the mark of its server alone.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "its upper bits")]
    pub const fn index(key: u64) -> u32 {
        // The port, lowest in the key, moves up as it is; the namespace is spread as in `Slot::index`.
        (key.wrapping_mul(1 << 48 | 0x9e37_79b1) >> (u64::BITS - CLOSER_PLACES.ilog2())) as u32
    }
}

/// Number of [`Closer`] entries, one for each port.
pub const CLOSER_PLACES: u32 = 1 << u16::BITS;

/// Storage for a thread's close in flight: the value of the array of closes.
///
/// There may be more threads than slots, so threads share them. A close whose slot is taken goes to the map
/// of crowded closes instead.
///
/// Aligned to a cache line, so that no two slots share one.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The thread that owns it, see [`Slot::owner`]; 0 while it is free.
    pub owner: u64,
    /// Number of closes of this slot in the map of crowded closes.
    pub crowded: u32,
    /// A thread whose close found no room there either, until that is counted as lost; 0 if none.
    pub unrecorded: u32,
    /// The close.
    pub close: Close,
}

impl Slot {
    /// The slot of a thread. Consecutive thread ids are spread.
    #[must_use]
    pub const fn index(tid: u32) -> u32 {
        // Fibonacci hashing: 2^32 divided by the golden ratio.
        tid.wrapping_mul(0x9e37_79b1) >> (u32::BITS - MAX_CLOSES.ilog2())
    }

    /// The value of `owner` for a thread: never 0, not even for the idle thread.
    #[must_use]
    pub const fn owner(tid: u32) -> u64 {
        tid as u64 | 1 << 32
    }
}

/// A waiting close whose return the plan does not see: it is counted at the end of its socket, whose address
/// is the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedClose {
    /// The close.
    pub close: Close,
    /// The group that closed.
    pub group: Group,
}

/// Exchanged between the plan `tracepoint` and the daemon about closes that wait under `SO_LINGER`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// When a close last began to wait, nanoseconds of `CLOCK_MONOTONIC`; 0 if never.
    pub last_ns: u64,
    /// Until when the return of close(2) is hooked; extended by the daemon while it runs.
    pub seen_until_ns: u64,
}

/// The record of an orphan, from its close's decision to the end of its socket, whose address is the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Progress, an [`orphan_stage`], in the lowest bits; the others distinguish this record from any other in
    /// the same memory.
    pub stage: u64,
    /// Address of its socket, the same as its key: a plain number to the verifier.
    pub sk: u64,
    /// When its close returned or, before that, began; nanoseconds of `CLOCK_MONOTONIC`.
    pub left_ns: u64,
    /// The group that closed.
    pub group: Group,
    /// Payload outstanding when its close returned or, before that, at the decision.
    pub bytes: u32,
    /// The reason why the kernel resets the connection, if seen before the end: a [`reset_cause`].
    pub reset_cause: u16,
    /// 1 if its close was recorded for watchers.
    pub watched: u16,
    /// The [`Fate`](crate::Fate) of one that ended within its close, or [`UNDECIDED`].
    pub fate: u32,
    /// With `fate`: payload never sent.
    pub unsent: u32,
    /// With `fate`: payload sent, not acknowledged.
    pub unacked: u32,
    /// The socket's `write_seq` at the decision, which distinguishes it from the next one at its address; from the end
    /// on, that at the end.
    pub write_seq: u32,
}

impl Orphan {
    /// Nothing known.
    pub const ZERO: Self = Self {
        stage: 0,
        sk: 0,
        left_ns: 0,
        group: Group::ZERO,
        bytes: 0,
        reset_cause: 0,
        watched: 0,
        fate: 0,
        unsent: 0,
        unacked: 0,
        write_seq: 0,
    };

    /// When its close began, nanoseconds of `CLOCK_MONOTONIC`; see [`Close::initial_orphan_stage`].
    #[must_use]
    pub const fn close_start_ns(&self) -> u64 {
        self.stage >> orphan_stage::MASK.count_ones()
    }
}

/// Storage for the record of an orphan: the value of the array of orphans.
///
/// A record whose slot is taken goes to the map of crowded orphans instead.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrphanSlot {
    /// Number of orphans of this slot in that map.
    pub crowded: u64,
    /// The orphan. While the slot is free, its stage is [`orphan_stage::FREE`] and its socket is 0.
    pub orphan: Orphan,
}

impl OrphanSlot {
    /// The slot of a socket with this [`hint`](super::hint). Never 0, so that an array of one entry has no slots.
    #[must_use]
    pub const fn index(hint: u32) -> u32 {
        1 + hint % ORPHAN_SLOTS
    }
}

/// Number of [`OrphanSlot`]s; a power of two.
pub const ORPHAN_SLOTS: u32 = 4096;

/// Number of entries of an array with all of them.
pub const ORPHAN_SLOT_ENTRIES: u32 = ORPHAN_SLOTS + 1;

/// Instead of a fate: the kernel reset the connection for a reason not known yet.
pub const UNDECIDED: u32 = u32::MAX;

/// Time that a reader of the counts waits for the reason, nanoseconds; after that, it was an RST from the peer.
pub const ANSWER_NS: u64 = 100_000_000;

/// An orphan that ended before its fate was known.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndecidedOrphan {
    /// When it ended, nanoseconds of `CLOCK_MONOTONIC`; 0 if the place is free, 1 while it is being written or
    /// settled.
    pub ended_ns: u64,
    /// How long it had lived, nanoseconds.
    pub lived_ns: u64,
    /// Its record.
    pub orphan: Orphan,
}

/// Number of places for [`UndecidedOrphan`]s; a power of two.
pub const UNDECIDED_PLACES: u32 = 4096;

/// Stages of an [`Orphan`].
pub mod orphan_stage {
    /// Its close has not returned. Only the closing thread may remove the record.
    pub const OPEN: u64 = 0;
    /// Its close has returned and left it behind. Whoever removes the record counts the end.
    pub const LEFT: u64 = 1;
    /// It ended within its close, which has not returned yet.
    pub const ENDED: u64 = 2;
    /// Its socket is recording its end, or its close is counting that; nothing else may remove the record.
    pub const ENDING: u64 = 3;
    /// The bits of the stage.
    pub const MASK: u64 = 3;
    /// The whole word of a record that was counted and is being removed, or could not be removed.
    pub const SPENT: u64 = ENDING;
    /// The whole word of a free slot.
    pub const FREE: u64 = 0;
}

/// The reason why the connection of an [`Orphan`] ends, as hooks see it before the end.
pub mod reset_cause {
    /// None was seen.
    pub const UNSEEN: u16 = 0;
    /// An RST came from the peer.
    pub const PEER_RST: u16 = 1;
    /// Data came for the closed socket.
    pub const LATE_DATA: u16 = 2;
    /// Everything was acknowledged while its close waited.
    pub const ACKNOWLEDGED: u16 = 3;
}

/// Flags of a [`Close`].
pub mod flag {
    /// It waits in close(2), whose return will be seen.
    pub const RETURNS: u8 = 1 << 0;
    /// Payload was outstanding when it sent its FIN: there is a record of its orphan.
    pub const HAS_ORPHAN: u8 = 1 << 1;
    /// It sent an RST, with the outcome as its cause.
    pub const RESET: u8 = 1 << 2;
    /// A watcher may want it: it has an [`Event`](crate::Event).
    pub const WATCHED: u8 = 1 << 3;
    /// It waits, and is counted in the hint of its socket.
    pub const HINTED: u8 = 1 << 4;
}

/// Stages of a [`Close`].
pub mod stage {
    /// Begun; the outcome is unknown.
    pub const BEGUN: u8 = 0;
    /// Decided by the kernel; the outcome is known.
    pub const DECIDED: u8 = 1;
    /// Waiting under `SO_LINGER`; the FIN is sent.
    pub const WAITING: u8 = 2;
    /// Counted before the end of its socket, which drops the record.
    pub const COUNTED: u8 = 3;
}

/// The executable of a process that has released its memory and not yet closed its files (which another of its
/// threads may do): the value of an array whose entries processes share, as threads share [`Slot`]s.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitingProcess {
    /// When its first thread began (`task_struct.start_time`), nanoseconds since boot: unique together with its id.
    pub start_time: u64,
    /// Like [`Group::exe_inode`].
    pub exe_inode: u64,
    /// Like [`Group::exe_device`].
    pub exe_device: u32,
    /// The process id.
    pub tgid: u32,
}
