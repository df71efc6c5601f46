//! Closes and orphans under way.

use super::MAX_CLOSES;
use super::group::Group;

/// A close in flight. It runs to its end before its thread begins the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// If it sends a FIN that the peer's has not come before, what stands for its local port; else 0.
    pub port_key: u64,
    /// Address of the socket: tells this close from other sockets' work on the same thread.
    pub sk: u64,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// Send-queue payload at the decision, before anything was thrown away.
    pub unsent: u32,
    /// As `unsent`, for what was sent and not acknowledged.
    pub unacked: u32,
    /// Payload that no one read.
    pub unread: u32,
    /// While it waits, the jiffy at which its linger time is up, its lower half; before it is decided, the
    /// socket's `write_seq` at the release, with `state`.
    pub deadline: u32,
    /// The [`Outcome`](crate::Outcome) as far as it is known.
    pub outcome: u8,
    /// How far it has come, a [`stage`].
    pub stage: u8,
    /// What else is known, a set of [`flag`]s.
    pub flags: u8,
    /// Address family of the connection, as [`Group::family`] has it.
    pub family: u8,
    /// Local port of the connection if this host accepted it.
    pub port: u16,
    /// State of the socket when it was released, if a hook was there that is never skipped; else 0.
    pub state: u8,
    /// Always 0.
    pub unused: u8,
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
        unused: 0,
    };

    /// The `stage` with which the record of its orphan begins.
    #[must_use]
    pub const fn orphan(&self) -> u64 {
        self.start_ns << orphan_stage::MASK.count_ones() | orphan_stage::OPEN
    }
}

/// Who closed a connection at a local port last: data that comes late is for that group. An entry of an array, where
/// the port's key leads.
///
/// CPUs write it without a lock: what one wrote half shows by the first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closer {
    /// The number, and the key of the port, of which each takes the other away by exclusive or.
    pub check: u64,
    /// [`Group::number`](Group::number).
    pub number: u64,
}

impl Closer {
    /// The place of a key.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "its upper bits")]
    pub const fn index(key: u64) -> u32 {
        // Fibonacci hashing, as in `Slot::index`.
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - CLOSER_PLACES.ilog2())) as u32
    }
}

/// How many places there are for a [`Closer`]; a power of two.
pub const CLOSER_PLACES: u32 = 32_768;

/// Where a thread keeps its close in flight: the value of the array of closes.
///
/// Each thread has its slot, and shares it with others, for there are more threads than slots. Who
/// comes while it is taken keeps the close in the map of the crowded instead.
///
/// It is as long as a cache line, so that no two threads write to the same.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Whose close is in it, as [`Slot::owner`] has it; 0 while it is free.
    pub owner: u64,
    /// How many closes that belong here are in the map of the crowded.
    pub crowded: u32,
    /// The thread whose close found no room there either, until that is counted; 0 if there is none.
    pub unkept: u32,
    /// The close.
    pub close: Close,
}

impl Slot {
    /// The slot of a thread. Threads made one after another are spread.
    #[must_use]
    pub const fn index(tid: u32) -> u32 {
        // Fibonacci hashing: 2^32 divided by the golden ratio.
        tid.wrapping_mul(0x9e37_79b1) >> (u32::BITS - MAX_CLOSES.ilog2())
    }

    /// What stands for a thread in the slot it owns: not 0 for any, the idle one included.
    #[must_use]
    pub const fn owner(tid: u32) -> u64 {
        tid as u64 | 1 << 32
    }
}

/// A close that waits, where the plan does not see its return: it ends with its socket, whose address
/// is its key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedClose {
    /// The close.
    pub close: Close,
    /// Who closed.
    pub group: Group,
}

/// What the plan `tracepoint` and the daemon tell each other of closes that wait under `SO_LINGER`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// When the last of them began to wait, nanoseconds of `CLOCK_MONOTONIC`; 0 if none did.
    pub last_ns: u64,
    /// Until then the return of close(2) is hooked. The daemon puts it off as long as it lives.
    pub seen_until_ns: u64,
}

/// The record of an orphan, from its close's decision to the end of its socket, whose address is its
/// key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// How far it has come, an [`orphan_stage`], in the lowest bits; above, what tells this record
    /// from any other in the same place.
    pub stage: u64,
    /// Address of its socket, its key once more: as a number, of which the verifier knows no type.
    pub sk: u64,
    /// When its close returned; before that, when its close began. Nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub left_ns: u64,
    /// Who closed.
    pub group: Group,
    /// Payload outstanding when its close returned; before that, at the decision.
    pub bytes: u32,
    /// What ends it, as far as that is seen before the end: an [`omen`].
    pub omen: u16,
    /// 1 if its close was written down for those who watch.
    pub watched: u16,
    /// The [`Fate`](crate::Fate) of one that ended within its close, or [`UNDECIDED`].
    pub fate: u32,
    /// As `fate`: payload never sent.
    pub unsent: u32,
    /// As `fate`: payload sent, not acknowledged.
    pub unacked: u32,
    /// As `fate`: the socket's `write_seq`, which tells it from the next at its address.
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
        omen: 0,
        watched: 0,
        fate: 0,
        unsent: 0,
        unacked: 0,
        write_seq: 0,
    };
}

/// In place of a fate: the kernel reset the connection, and why is about to show.
pub const UNDECIDED: u32 = u32::MAX;

/// Who reads the counts waits this long for it, nanoseconds; then it was an RST of the peer.
pub const ANSWER_NS: u64 = 100_000_000;

/// An orphan that ended while its fate was yet to show.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndecidedOrphan {
    /// When it ended, nanoseconds of `CLOCK_MONOTONIC`; 0 if there is none here, 1 while one comes or goes.
    pub ended_ns: u64,
    /// How long it had lived, nanoseconds.
    pub lived_ns: u64,
    /// What is known of it.
    pub orphan: Orphan,
}

/// How many there may be; a power of two.
pub const UNDECIDED_PLACES: u32 = 4096;

/// How far an [`Orphan`] has come.
pub mod orphan_stage {
    /// Its close has not returned. Only the closing thread may remove the record.
    pub const OPEN: u64 = 0;
    /// Its close has returned, leaving it behind. Whoever removes the record counts the end.
    pub const LEFT: u64 = 1;
    /// It ended within its close, which is yet to return.
    pub const ENDED: u64 = 2;
    /// Its socket is about to write down how it ended, and no one else may remove the record.
    pub const ENDING: u64 = 3;
    /// The bits of these.
    pub const MASK: u64 = 3;
    /// The whole word of a record that is counted and could not be removed.
    pub const SPENT: u64 = 0;
}

/// What is known of an [`Orphan`]'s end before it comes.
pub mod omen {
    /// Nothing.
    pub const NONE: u16 = 0;
    /// The peer's RST came.
    pub const RST: u16 = 1;
    /// Something else than an RST made the kernel reset the connection: late data.
    pub const NO_RST: u16 = 2;
}

/// Flags of a [`Close`].
pub mod flag {
    /// It waits inside close(2), whose return will be seen.
    pub const RETURNS: u8 = 1 << 0;
    /// Payload was outstanding when it sent its FIN: there is a record of its orphan.
    pub const LEAVES: u8 = 1 << 1;
    /// It sent an RST, with the outcome as its cause.
    pub const RESET: u8 = 1 << 2;
    /// Someone asks for it: there is an [`Event`](crate::Event) of it.
    pub const WATCHED: u8 = 1 << 3;
    /// It waits, and its socket has a hint of it, for which this counts.
    pub const HINTED: u8 = 1 << 4;
}

/// How far a [`Close`] has come.
pub mod stage {
    /// Begun, outcome unknown.
    pub const BEGUN: u8 = 0;
    /// The kernel decided what to do; the outcome is known.
    pub const DECIDED: u8 = 1;
    /// The FIN is sent and the close waits under `SO_LINGER`.
    pub const WAITING: u8 = 2;
}

/// What a process executed that has let go of its memory, and is yet to close its files: the value of
/// an array that processes share, as threads do [`Slot`]s. (Another of its threads may close them.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitingProcess {
    /// When its first thread began (`task_struct.start_time`): with its id, no other has both.
    pub start_time: u64,
    /// As [`Group::exe_inode`].
    pub exe_inode: u64,
    /// As [`Group::exe_device`].
    pub exe_device: u32,
    /// The process's id.
    pub tgid: u32,
}
