//! Values of labels: outcomes, causes of RSTs, fates, losses, plans; and the names of programs.

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
        /// The connection, or the attempt at one, had ended before.
        AlreadyClosed = "already_closed",
        /// There was no connection: never connected, or disconnected.
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

    /// The cause of the RST that a close with this outcome may send.
    #[must_use]
    pub const fn cause(self) -> Option<Cause> {
        match self {
            Self::LingerAborted => Some(Cause::LingerAborted),
            Self::UnreadAborted => Some(Cause::UnreadAborted),
            Self::Linger2Aborted => Some(Cause::Linger2Aborted),
            Self::MemoryAborted => Some(Cause::MemoryAborted),
            _ => None,
        }
    }

    /// Whether a close with this outcome waited under `SO_LINGER`.
    #[must_use]
    pub const fn waited(self) -> bool {
        matches!(
            self,
            Self::Lingered | Self::LingerTimeout | Self::LingerInterrupted | Self::LingerFailed
        )
    }

    /// The index, below [`Outcome::DISCARD_INDICES`], of the counter of payload discarded by closes with this outcome.
    /// Some indices stay unused.
    #[must_use]
    pub const fn discard_index(self) -> Option<usize> {
        Self::discard_index_at(self.index())
    }

    /// [`Outcome::discard_index`] of the outcome with this index.
    #[must_use]
    pub const fn discard_index_at(index: usize) -> Option<usize> {
        let discard_index = index.wrapping_sub(Self::LingerFailed.index());
        if discard_index < Self::DISCARD_INDICES {
            Some(discard_index)
        } else {
            None
        }
    }

    /// Number of the indices of [`Outcome::discard_index`].
    pub const DISCARD_INDICES: usize =
        Self::ConnectAborted.index() - Self::LingerFailed.index() + 1;

    /// Whether a close with this outcome can discard its send queue.
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

const _: () = {
    let mut index = 0;
    while index < Outcome::COUNT {
        let outcome = Outcome::ALL[index];
        assert!(outcome.discard_index().is_some() || !outcome.discards());
        index += 1;
    }
};

/// The values of the label `waited`, in the order of [`Counters::blocked`](crate::Counters::blocked): closes that
/// did not wait under `SO_LINGER`, and closes that did.
pub const WAITED: [&str; 2] = ["false", "true"];

labels! {
    /// The reason why this host sent an RST: on its own initiative (`tcp_send_active_reset`), or in answer to a packet
    /// (`tcp_v4_send_reset`, `tcp_v6_send_reset`).
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
        /// Sent on its own initiative, for none of the reasons above.
        Other = "other",
        /// In answer to data for a connection that a close of this host had ended.
        LateData = "late_data",
        /// In answer to a packet for which there is no socket.
        NoSocket = "no_socket",
        /// In answer to any other packet.
        Refused = "refused",
    }
}

labels! {
    /// How an orphan ended: each has exactly one fate.
    pub enum Fate {
        /// The peer's TCP acknowledged all of its payload.
        Delivered = "delivered",
        /// The peer sent an RST.
        PeerReset = "peer_reset",
        /// The peer sent data that could no longer be read, and was answered with an RST.
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
    /// Whether payload is discarded.
    #[must_use]
    pub const fn discards(self) -> bool {
        !matches!(self, Self::Delivered)
    }
}

labels! {
    /// Kinds of losses: data that could not be recorded.
    pub enum Lost {
        /// Changes counted under `other` because there was no room for their own group.
        Group = "group",
        /// Closes that are in no counter of closes.
        Close = "close",
        /// Orphans whose record found no room, or was removed without a count: their fate is unknown.
        Orphan = "orphan",
        /// Closes whose return was not seen, so that their time is in no histogram.
        Return = "return",
        /// Events not delivered to a watcher: counts do not depend on them.
        Event = "event",
    }
}

/// The set of hooks in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plan {
    /// BPF trampolines on kernel functions.
    Fentry,
    /// Kprobes and kretprobes on the same functions.
    Kprobe,
    /// `cgroup/sock_release` and tracepoints.
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

/// Length of [`PROGRAMS`].
pub const PROGRAM_COUNT: u32 = 30;

/// The names of all programs, without copies: a copy has the same name with a number. The names of the daemon's
/// hooks and of the programs of `floor.rs` are checked against this table at compile time, those in the object by
/// a test.
pub const PROGRAMS: [&str; PROGRAM_COUNT as usize] = [
    "fentry_tcp_close",
    "fentry_inner_close",
    "fentry_active_reset",
    "fentry_timer",
    "fentry_orderly_end",
    "fentry_reset",
    "fentry_v4_answer",
    "fentry_v6_answer",
    "fexit_check_oom",
    "fexit_listen_stop",
    "sock_release",
    "kprobe_tcp_close",
    "kprobe_inner_close",
    "kprobe_active_reset",
    "kprobe_timer",
    "kprobe_reset",
    "kprobe_v4_answer",
    "kprobe_v6_answer",
    "kretprobe_inner_close",
    "destroy_sock",
    "exit_mmap",
    "tracepoint_set_state",
    "tracepoint_send_reset",
    "reset_answers",
    "socket_answers",
    "settle",
    "missed_end",
    "tracepoint_destroy_sock",
    "tracepoint_sys_exit",
    "cgroup_sock_release",
];

/// The index of a name in [`PROGRAMS`], with or without the number of a copy.
#[must_use]
pub const fn program_index(name: &str) -> Option<u32> {
    let mut index = 0_u32;
    while (index as usize) < PROGRAMS.len() {
        if is_name(PROGRAMS[index as usize].as_bytes(), name.as_bytes()) {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// Whether `name` is `one`, possibly with the number of a copy; a `const fn`, hence byte by byte.
const fn is_name(one: &[u8], name: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < name.len() && one[at] == name[at] {
        at += 1;
    }
    at == one.len() && matches!(name.split_at(at).1, [] | [b'_', b'2' | b'3'])
}
