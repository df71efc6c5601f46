//! What both sides of linger agree on: the keys and values of the maps, the words for what a
//! close did, and, for the daemon, the compiled programs.
//!
//! Everything here is `repr(C)` and made of integers without padding, because the kernel and the
//! daemon exchange it as bytes.

#![no_std]
#![deny(unsafe_code)]

#[cfg(not(target_arch = "bpf"))]
mod pod;

/// The programs, compiled for the BPF virtual machine by `build.rs`.
#[cfg(not(target_arch = "bpf"))]
pub static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/linger-ebpf"));

/// Makes a fieldless enum whose discriminants index an array, with the label value of each.
macro_rules! labels {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $label:literal,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            /// How many values there are: the length of an array indexed by this enum.
            pub const COUNT: usize = Self::ALL.len();

            /// The value of the metrics' label.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The index of this value in arrays.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// How a close ended: each close has exactly one outcome.
    pub enum Outcome {
        /// Sent, or had sent, its FIN and returned without waiting.
        Graceful = "graceful",
        /// Waited under `SO_LINGER` until everything was acknowledged.
        Lingered = "lingered",
        /// Waited until the time of `SO_LINGER` was up, something still unacknowledged.
        LingerTimeout = "linger_timeout",
        /// Waited and was woken early by a signal or by task work.
        LingerInterrupted = "linger_interrupted",
        /// Waited and saw the connection die.
        LingerFailed = "linger_failed",
        /// Aborted: `SO_LINGER` with zero time.
        LingerAborted = "linger_aborted",
        /// Aborted because received data was left unread (RFC 2525, 2.17).
        UnreadAborted = "unread_aborted",
        /// Aborted by a negative `TCP_LINGER2`.
        Linger2Aborted = "linger2_aborted",
        /// Aborted for lack of orphan quota or memory.
        MemoryAborted = "memory_aborted",
        /// Found that the connection, or the attempt at one, had ended before.
        AlreadyClosed = "already_closed",
        /// Found no connection: never had one, or had disconnected it.
        NotConnected = "not_connected",
        /// Gave up a connect still under way.
        ConnectAborted = "connect_aborted",
        /// Closed a listening socket.
        Listener = "listener",
        /// Was silent under `TCP_REPAIR`.
        Repaired = "repaired",
    }
}

impl Outcome {
    /// The outcome with this index.
    #[must_use]
    pub fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }

    /// Whether a close of this outcome can throw away what was queued to be sent.
    #[must_use]
    pub const fn discards(self) -> bool {
        matches!(
            self,
            Self::LingerFailed
                | Self::LingerAborted
                | Self::UnreadAborted
                | Self::Linger2Aborted
                | Self::MemoryAborted
                | Self::ConnectAborted
        )
    }
}

labels! {
    /// Why this host chose to send an RST on a connection (`tcp_send_active_reset`).
    pub enum Cause {
        /// A close with zero `SO_LINGER` time.
        LingerAborted = "linger_aborted",
        /// A close that left received data unread.
        UnreadAborted = "unread_aborted",
        /// A close with negative `TCP_LINGER2`.
        Linger2Aborted = "linger2_aborted",
        /// A close out of orphan quota or memory.
        MemoryAborted = "memory_aborted",
        /// A connection still in the accept queue of a listener that was closed or shut down.
        ListenerClosed = "listener_closed",
        /// `connect(AF_UNSPEC)`.
        Disconnected = "disconnected",
        /// `SOCK_DESTROY` (`ss -K`) or `bpf_sock_destroy`.
        Destroyed = "destroyed",
        /// Keepalive probes went unanswered.
        Keepalive = "keepalive",
        /// An orphan was ended for lack of orphan quota or memory.
        OrphanResources = "orphan_resources",
        /// An orphan's wait for the peer's FIN was over.
        FinWait2Expired = "fin_wait2_expired",
        /// The MPTCP layer ended a subflow.
        Mptcp = "mptcp",
        /// None of the above.
        Other = "other",
    }
}

labels! {
    /// What became of an orphan: each has exactly one fate.
    pub enum Fate {
        /// The peer's TCP acknowledged all of its payload.
        Delivered = "delivered",
        /// The peer sent an RST.
        PeerReset = "peer_reset",
        /// The peer sent data, which no one could read any more, and was answered with an RST.
        LateData = "late_data",
        /// The peer acknowledged nothing, or kept its window closed, for too long.
        TimedOut = "timed_out",
        /// This host was out of orphan quota or memory.
        OrphanResources = "orphan_resources",
        /// Ended by `SOCK_DESTROY`, `bpf_sock_destroy`, or with its network namespace.
        Destroyed = "destroyed",
        /// Its record outlived its time to live.
        Unknown = "unknown",
    }
}

impl Fate {
    /// Whether payload is thrown away with it.
    #[must_use]
    pub const fn discards(self) -> bool {
        !matches!(self, Self::Delivered)
    }
}

labels! {
    /// What could not be recorded.
    pub enum Lost {
        /// Changes counted under `other` because their own group found no place.
        Group = "group",
        /// Closes that are in no counter of closes.
        Close = "close",
        /// Orphans that found no place: what became of them is not known.
        Orphan = "orphan",
        /// Closes whose return was not seen, so that their time is in no histogram.
        Return = "return",
    }
}

/// How many groups have counters of their own.
pub const MAX_GROUPS: u32 = 4096;

/// How many threads may be inside close at the same time, at least; a power of two, which
/// [`Slot::index`] relies on.
pub const MAX_CLOSES: u32 = 16_384;

/// How many orphans have a record of their own, unless the daemon is told otherwise.
pub const MAX_ORPHANS: u32 = 65_536;

/// How many [hints](hint) there are; a power of two.
pub const HINTS: u32 = 16_384;

/// The hint of a socket's address: how many records of sockets have this one is counted there.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the upper bits of 64")]
pub const fn hint(sk: u64) -> u32 {
    // Fibonacci hashing, as in `Slot::index`.
    (sk.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - HINTS.ilog2())) as u32
}

/// Upper bounds of the blocked-time buckets in nanoseconds, inclusive; one more bucket is above.
pub const BUCKET_BOUNDS_NS: [u64; 13] = [
    100_000,
    1_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    120_000_000_000,
];

/// Number of buckets, the one above all bounds included.
pub const BUCKETS: usize = BUCKET_BOUNDS_NS.len() + 1;

/// Who closed: the key of the ledger.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Cgroup v2 id of the closing process (`bpf_get_current_cgroup_id`).
    pub cgroup_id: u64,
    /// Name of the process: `comm` of the thread group's leader, zero-terminated bytes; in words, as
    /// the programs copy it.
    pub comm: [u64; 2],
}

impl Group {
    /// The name of the process, zero-terminated bytes.
    #[must_use]
    pub fn comm(&self) -> [u8; 16] {
        let [first, second] = self.comm.map(u64::to_ne_bytes);
        let mut comm = [0; 16];
        comm[..8].copy_from_slice(&first);
        comm[8..].copy_from_slice(&second);
        comm
    }
}

/// A number of bytes for each half of the send queue, FIN and SYN not counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueBytes {
    /// Never sent (`write_seq - snd_nxt`): did not reach the peer.
    pub unsent: u64,
    /// Sent, not acknowledged (`snd_nxt - snd_una`): may have reached the peer.
    pub unacked: u64,
}

impl QueueBytes {
    /// Nothing in it.
    pub const NONE: Self = Self {
        unsent: 0,
        unacked: 0,
    };

    /// Both together.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.unsent + self.unacked
    }
}

/// What closes of one outcome add up to, for one group. What most closes add to stands together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Closes {
    /// Sum of the blocked times, nanoseconds.
    pub blocked_ns: u64,
    /// Timed closes by the time the thread was blocked; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Closes counted without a time, because their return was not seen.
    pub undated: u64,
    /// Send-queue payload thrown away.
    pub discarded: QueueBytes,
}

impl Closes {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        // Below zero if a close was counted anew that had not been counted, being lost.
        let undated = self.undated.cast_signed();
        self.timed().saturating_add_signed(undated)
    }

    /// How many of them have a time.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Nothing counted.
    pub const ZERO: Self = Self {
        blocked_ns: 0,
        buckets: [0; BUCKETS],
        undated: 0,
        discarded: QueueBytes::NONE,
    };
}

/// What the ends of orphans of one fate add up to, for one group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Sum of the times from the close's return to the end, nanoseconds.
    pub lived_ns: u64,
    /// Orphans by that time; not cumulative.
    pub buckets: [u64; BUCKETS],
    /// Payload thrown away.
    pub discarded: QueueBytes,
}

impl Ends {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        lived_ns: 0,
        buckets: [0; BUCKETS],
        discarded: QueueBytes::NONE,
    };

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// What one group's closes left behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphans {
    /// Orphans that closes left.
    pub left: u64,
    /// Payload that was outstanding when those closes returned.
    pub left_bytes: u64,
    /// Payload of ended orphans that the peer acknowledged since.
    pub delivered_bytes: u64,
    /// Those that ended, by [`Fate`].
    pub ends: [Ends; Fate::COUNT],
}

impl Orphans {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        left: 0,
        left_bytes: 0,
        delivered_bytes: 0,
        ends: [Ends::ZERO; Fate::COUNT],
    };

    /// How many ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ends.iter().map(Ends::count).sum()
    }

    /// Payload of those that ended.
    #[must_use]
    pub fn ended_bytes(&self) -> u64 {
        let discarded = self.ends.iter().map(|ends| ends.discarded);
        let discarded: u64 = discarded.map(QueueBytes::sum).sum();
        self.delivered_bytes + discarded
    }

    /// How many there ever were. An end that is counted implies its beginning, also where the
    /// counters of another CPU were read before it began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.left.max(self.ended())
    }

    /// How many have not ended.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.total() - self.ended()
    }

    /// Payload they were left with; as [`Orphans::total`].
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.left_bytes.max(self.ended_bytes())
    }
}

/// All counters of one group: the value of the ledger, one copy per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// By [`Outcome`].
    pub closes: [Closes; Outcome::COUNT],
    /// RSTs this host chose to send, by [`Cause`].
    pub resets: [u64; Cause::COUNT],
    /// Received payload that no one read, thrown away by closes.
    pub unread_bytes: u64,
    /// What its closes left behind.
    pub orphans: Orphans,
}

impl Counters {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        closes: [Closes::ZERO; Outcome::COUNT],
        resets: [0; Cause::COUNT],
        unread_bytes: 0,
        orphans: Orphans::ZERO,
    };
}

/// The set of hooks in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plan {
    /// BPF trampolines on kernel functions.
    Fentry,
    /// Kprobes and kretprobes on the same functions.
    Kprobe,
    /// `cgroup/sock_release`, raw tracepoints and a system-call tracepoint.
    Tracepoint,
}

impl Plan {
    /// Every plan, best first.
    pub const ALL: &[Self] = &[Self::Fentry, Self::Kprobe, Self::Tracepoint];

    /// The name in options, logs and labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// A close in flight. It runs to its end before its thread begins the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Address of the socket: tells this close from other sockets' work on the same thread.
    pub sk: u64,
    /// When it began, nanoseconds of `CLOCK_MONOTONIC`.
    pub start_ns: u64,
    /// The jiffy at which its linger time is up; 0 when it does not wait.
    pub deadline: u64,
    /// Send-queue payload at the decision, before anything was thrown away.
    pub unsent: u32,
    /// As `unsent`, for what was sent and not acknowledged.
    pub unacked: u32,
    /// Payload that no one read.
    pub unread: u32,
    /// The [`Outcome`] as far as it is known.
    pub outcome: u8,
    /// How far it has come, a [`stage`].
    pub stage: u8,
    /// The [`Cause`] of the RST it sent, or [`Close::NO_RESET`].
    pub reset: u8,
    /// What else is known, a set of [`flag`]s.
    pub flags: u8,
    /// The `stage` with which the record of its orphan began; valid with [`flag::LEAVES`].
    pub orphan: u64,
}

impl Close {
    /// No RST was sent: no index of a [`Cause`].
    pub const NO_RESET: u8 = u8::MAX;
    /// Nothing known.
    pub const ZERO: Self = Self {
        sk: 0,
        start_ns: 0,
        deadline: 0,
        unsent: 0,
        unacked: 0,
        unread: 0,
        outcome: 0,
        stage: stage::BEGUN,
        reset: Self::NO_RESET,
        flags: 0,
        orphan: 0,
    };
}

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
    pub crowded: u64,
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
pub struct Parked {
    /// The close.
    pub close: Close,
    /// Who closed.
    pub group: Group,
}

/// The record of an orphan, from its close's decision to the end of its socket, whose address is its
/// key.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// How far it has come, an [`orphan_stage`], in the lowest bits; above, what tells this record
    /// from any other in the same place.
    pub stage: u64,
    /// When its close returned; before that, when its record was made. Nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub left_ns: u64,
    /// Who closed.
    pub group: Group,
    /// Payload outstanding when its close returned; before that, at the decision.
    pub bytes: u32,
    /// Segments with data that had come at the decision (`tcp_sock.data_segs_in`).
    pub data_segs_in: u32,
    /// What ends it, as far as that is seen before the end: an [`omen`].
    pub omen: u32,
    /// The [`Fate`] of one that ended within its close.
    pub fate: u32,
    /// As `fate`: payload never sent.
    pub unsent: u32,
    /// As `fate`: payload sent, not acknowledged.
    pub unacked: u32,
}

/// How far an [`Orphan`] has come.
pub mod orphan_stage {
    /// Its close has not returned. Only the closing thread may remove the record.
    pub const OPEN: u64 = 0;
    /// Its close has returned, leaving it behind. Whoever removes the record counts the end.
    pub const LEFT: u64 = 1;
    /// It ended within its close, which is yet to return.
    pub const ENDED: u64 = 2;
    /// The bits of these.
    pub const MASK: u64 = 3;
}

/// What is known of an [`Orphan`]'s end before it comes.
pub mod omen {
    /// Nothing.
    pub const NONE: u32 = 0;
    /// The peer's RST came.
    pub const RST: u32 = 1;
    /// Something else than an RST made the kernel reset the connection: late data.
    pub const NO_RST: u32 = 2;
}

/// Flags of a [`Close`].
pub mod flag {
    /// It began at `__tcp_close`, without `tcp_close` (an MPTCP subflow): it ends there too.
    pub const INNER: u8 = 1 << 0;
    /// It began inside close(2), whose return will be seen.
    pub const RETURNS: u8 = 1 << 1;
    /// Payload was outstanding when it sent its FIN: there is a record of its orphan.
    pub const LEAVES: u8 = 1 << 2;
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

/// Where the running kernel keeps what the programs read: byte offsets from its BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `struct sock`: `skc_state`, u8.
    pub state: u32,
    /// `struct sock`: `skc_flags`, unsigned long (`sk_flags`).
    pub flags: u32,
    /// `struct sock`: `skc_dport`, be16.
    pub dport: u32,
    /// `struct sock`: `sk_shutdown`, u8.
    pub shutdown: u32,
    /// `struct sock`: `sk_lock.owned`, int.
    pub owned: u32,
    /// `struct sock`: `sk_err`, int.
    pub err: u32,
    /// `struct sock`: `sk_socket`, pointer.
    pub socket: u32,
    /// `struct sock`: `sk_receive_queue.qlen`, u32.
    pub receive_qlen: u32,
    /// `struct sock`: `sk_lingertime`, unsigned long, jiffies.
    pub lingertime: u32,
    /// `struct sock`: `sk_cgrp_data.cgroup`, pointer.
    pub cgroup: u32,
    /// `struct cgroup`: `kn`, pointer.
    pub cgroup_kn: u32,
    /// `struct kernfs_node`: `id`, u64.
    pub kernfs_id: u32,
    /// `struct tcp_sock`: `write_seq`, u32.
    pub write_seq: u32,
    /// `struct tcp_sock`: `snd_nxt`, u32.
    pub snd_nxt: u32,
    /// `struct tcp_sock`: `snd_una`, u32.
    pub snd_una: u32,
    /// `struct tcp_sock`: `rcv_nxt`, u32.
    pub rcv_nxt: u32,
    /// `struct tcp_sock`: `copied_seq`, u32.
    pub copied_seq: u32,
    /// `struct tcp_sock`: `packets_out`, u32.
    pub packets_out: u32,
    /// `struct tcp_sock`: `linger2`, int.
    pub linger2: u32,
    /// `struct tcp_sock`: the byte that holds the bit `repair`.
    pub repair: u32,
    /// The bit in that byte.
    pub repair_mask: u32,
    /// `struct tcp_sock`: `is_mptcp`, bool; [`Offsets::ABSENT`] where the kernel has no MPTCP.
    pub is_mptcp: u32,
    /// `struct tcp_sock`: `data_segs_in`, u32.
    pub data_segs_in: u32,
    /// `struct tcp_sock`: `rcv_tstamp`, u32, jiffies.
    pub rcv_tstamp: u32,
    /// `struct sock`: `skc_net`, pointer (`sk_net`).
    pub net: u32,
    /// `struct net`: the count of those who use it, int; 0 when it is being removed.
    pub net_users: u32,
    /// `struct sk_buff`: `head`, pointer.
    pub skb_head: u32,
    /// `struct sk_buff`: `transport_header`, u16, from `head`.
    pub transport_header: u32,
    /// `struct task_struct`: `group_leader`, pointer.
    pub group_leader: u32,
    /// `struct task_struct`: `comm`, 16 bytes.
    pub comm: u32,
    /// `struct task_struct`: `flags`, unsigned int (`PF_EXITING`).
    pub task_flags: u32,
    /// `struct pt_regs`: the number of the system call, whose low half is read.
    pub syscall: u32,
    /// `struct pt_regs`: its result, -ENOSYS until it returns, whose low half is read.
    pub syscall_result: u32,
}

impl Offsets {
    /// The offset of a field that this kernel does not have.
    pub const ABSENT: u32 = u32::MAX;
    /// Nothing resolved yet.
    pub const ZERO: Self = Self {
        state: 0,
        flags: 0,
        dport: 0,
        shutdown: 0,
        owned: 0,
        err: 0,
        socket: 0,
        receive_qlen: 0,
        lingertime: 0,
        cgroup: 0,
        cgroup_kn: 0,
        kernfs_id: 0,
        write_seq: 0,
        snd_nxt: 0,
        snd_una: 0,
        rcv_nxt: 0,
        copied_seq: 0,
        packets_out: 0,
        linger2: 0,
        repair: 0,
        repair_mask: 0,
        is_mptcp: 0,
        data_segs_in: 0,
        rcv_tstamp: 0,
        net: 0,
        net_users: 0,
        skb_head: 0,
        transport_header: 0,
        group_leader: 0,
        comm: 0,
        task_flags: 0,
        syscall: 0,
        syscall_result: 0,
    };
}
