//! Kernel structures through offsets resolved at load.
//!
//! The daemon writes the running kernel's offsets into [`OFFSETS`], which is read-only to the
//! programs, so that the verifier knows them as constants.

use core::{marker::PhantomData, ptr};

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_task, bpf_get_current_task_btf,
        bpf_skc_to_tcp_sock,
    },
};
use linger_ebpf::{Group, Offsets, QueueBytes};

#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::ZERO;

/// An offset of this kernel.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: reads a static; volatile because the value is replaced at load.
        unsafe { ptr::read_volatile(&raw const OFFSETS.$field) }
    };
}
/// How kernel memory is read.
pub(crate) trait Memory {
    /// Reads `T` at `base + offset`; zero where there is nothing to read.
    fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T;

    /// The `tcp_sock` of a socket, null if it is not of TCP.
    fn tcp_sock(sk: *const u8) -> *const u8;

    /// The current task.
    fn current() -> *const u8;
}

/// Plain loads through pointers whose BTF type the verifier knows.
pub(crate) struct Typed;

impl Memory for Typed {
    #[inline(always)]
    fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        // SAFETY: the verifier checks the access against the type; a fault reads as zero.
        unsafe { ptr::read_volatile(base.add(offset as usize).cast()) }
    }

    #[inline(always)]
    fn tcp_sock(sk: *const u8) -> *const u8 {
        // SAFETY: takes any socket and tells those of TCP.
        unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) }.cast()
    }

    #[inline(always)]
    fn current() -> *const u8 {
        // SAFETY: has no preconditions.
        unsafe { bpf_get_current_task_btf() }.cast()
    }
}

/// Reads that are checked as they run, for pointers of unknown type.
pub(crate) struct Probed;

impl Memory for Probed {
    #[inline(always)]
    fn read<T: Copy + Default>(base: *const u8, offset: u32) -> T {
        // SAFETY: a bad address makes the helper fail.
        unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast()) }
            .unwrap_or_default()
    }

    #[inline(always)]
    fn tcp_sock(sk: *const u8) -> *const u8 {
        // A tcp_sock begins with its sock; callers look at the protocol where they must.
        sk
    }

    #[inline(always)]
    fn current() -> *const u8 {
        // SAFETY: has no preconditions.
        let task = unsafe { bpf_get_current_task() };
        task as *const u8
    }
}

/// TCP states, as in include/net/tcp_states.h.
pub(crate) mod state {
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const FIN_WAIT1: u8 = 4;
    pub(crate) const FIN_WAIT2: u8 = 5;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const LAST_ACK: u8 = 9;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const CLOSING: u8 = 11;
}

/// Where a socket keeps its state, for one that may be gone.
#[inline(always)]
pub(crate) fn state_offset() -> u32 {
    offset!(state)
}

/// Where saved registers keep the number of the system call.
#[inline(always)]
pub(crate) fn syscall_offset() -> u32 {
    offset!(syscall)
}

/// Where saved registers keep the result of the system call.
#[inline(always)]
pub(crate) fn result_offset() -> u32 {
    offset!(syscall_result)
}

/// `enum sock_flags` (include/net/sock.h); the daemon checks that they have these values.
const SOCK_DEAD: u64 = 1 << 0;
const SOCK_DONE: u64 = 1 << 1;
const SOCK_LINGER: u64 = 1 << 4;

/// A `struct sock`, and its `tcp_sock` where one was asked for.
pub(crate) struct Sock<M> {
    sk: *const u8,
    memory: PhantomData<M>,
}

impl<M: Memory> Sock<M> {
    #[inline(always)]
    pub(crate) fn new(sk: *const u8) -> Self {
        Self {
            sk,
            memory: PhantomData,
        }
    }

    /// Its address: its identity while it lives.
    #[inline(always)]
    pub(crate) fn address(&self) -> u64 {
        self.sk as u64
    }

    #[inline(always)]
    pub(crate) fn state(&self) -> u8 {
        M::read(self.sk, offset!(state))
    }

    /// Its flags, to be asked several times.
    #[inline(always)]
    pub(crate) fn flags(&self) -> Flags {
        Flags(M::read(self.sk, offset!(flags)))
    }

    /// The time of `SO_LINGER` in jiffies; valid if [`Flags::linger`].
    #[inline(always)]
    pub(crate) fn lingertime(&self) -> u64 {
        M::read(self.sk, offset!(lingertime))
    }

    /// Whether a peer is set: false if it never connected, or has disconnected.
    #[inline(always)]
    pub(crate) fn has_peer(&self) -> bool {
        M::read::<u16>(self.sk, offset!(dport)) != 0
    }

    /// Whether both directions are shut down, as `__tcp_close` does first of all.
    #[inline(always)]
    pub(crate) fn is_shut_down(&self) -> bool {
        M::read::<u8>(self.sk, offset!(shutdown)) == 3
    }

    /// Whether a process holds its lock (`lock_sock`), as opposed to a soft interrupt.
    #[inline(always)]
    pub(crate) fn is_owned(&self) -> bool {
        M::read::<u32>(self.sk, offset!(owned)) != 0
    }

    #[inline(always)]
    pub(crate) fn err(&self) -> u32 {
        M::read(self.sk, offset!(err))
    }

    /// Whether it belongs to no file: an orphan, or a connection not accepted yet.
    #[inline(always)]
    pub(crate) fn has_no_file(&self) -> bool {
        M::read::<u64>(self.sk, offset!(socket)) == 0
    }

    #[inline(always)]
    pub(crate) fn has_receive_queue(&self) -> bool {
        M::read::<u32>(self.sk, offset!(receive_qlen)) > 0
    }

    /// Id of the cgroup in which it was made.
    #[inline(always)]
    pub(crate) fn cgroup_id(&self) -> u64 {
        let cgroup: u64 = M::read(self.sk, offset!(cgroup));
        let kn: u64 = M::read(cgroup as *const u8, offset!(cgroup_kn));
        M::read(kn as *const u8, offset!(kernfs_id))
    }

    /// The part of it that is TCP's; none if it is of another protocol.
    #[inline(always)]
    pub(crate) fn tcp(&self) -> Option<Tcp<M>> {
        let tcp = M::tcp_sock(self.sk);
        (!tcp.is_null()).then_some(Tcp {
            tcp,
            memory: PhantomData,
        })
    }
}

/// `sk_flags`.
#[derive(Clone, Copy)]
pub(crate) struct Flags(u64);

impl Flags {
    /// `SO_LINGER` is on.
    #[inline(always)]
    pub(crate) fn linger(self) -> bool {
        self.0 & SOCK_LINGER != 0
    }

    /// It is an orphan (`sock_orphan`).
    #[inline(always)]
    pub(crate) fn dead(self) -> bool {
        self.0 & SOCK_DEAD != 0
    }

    /// The peer's FIN has come, and stands in `rcv_nxt`.
    #[inline(always)]
    fn done(self) -> bool {
        self.0 & SOCK_DONE != 0
    }
}

/// A `struct tcp_sock`.
pub(crate) struct Tcp<M> {
    tcp: *const u8,
    memory: PhantomData<M>,
}

impl<M: Memory> Tcp<M> {
    #[inline(always)]
    pub(crate) fn repair(&self) -> bool {
        u32::from(M::read::<u8>(self.tcp, offset!(repair))) & offset!(repair_mask) != 0
    }

    /// `TCP_LINGER2`: -1 aborts.
    #[inline(always)]
    pub(crate) fn linger2(&self) -> i32 {
        M::read::<u32>(self.tcp, offset!(linger2)).cast_signed()
    }

    #[inline(always)]
    pub(crate) fn is_mptcp(&self) -> bool {
        let offset = offset!(is_mptcp);
        offset != Offsets::ABSENT && M::read::<u8>(self.tcp, offset) != 0
    }

    /// Whether all that was written is acknowledged.
    #[inline(always)]
    pub(crate) fn all_acknowledged(&self) -> bool {
        M::read::<u32>(self.tcp, offset!(snd_una)) == M::read::<u32>(self.tcp, offset!(write_seq))
    }

    /// Received payload that no one read.
    #[inline(always)]
    pub(crate) fn unread(&self, flags: Flags) -> u32 {
        let rcv_nxt: u32 = M::read(self.tcp, offset!(rcv_nxt));
        let copied_seq: u32 = M::read(self.tcp, offset!(copied_seq));
        let unread = rcv_nxt
            .wrapping_sub(copied_seq)
            .wrapping_sub(u32::from(flags.done()));
        if unread.cast_signed() > 0 { unread } else { 0 }
    }

    /// The send queue's payload, for a connection in this state.
    #[inline(always)]
    pub(crate) fn queued(&self, state: u8) -> QueueBytes {
        let fin = matches!(state, state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK);
        if state == state::SYN_SENT {
            // Until the SYN goes out, a deferred connect leaves the numbers unset.
            if M::read::<u32>(self.tcp, offset!(packets_out)) == 0 {
                return QueueBytes {
                    unsent: 0,
                    unacked: 0,
                };
            }
            let queued = self.sequence();
            return QueueBytes {
                unacked: queued.unacked.saturating_sub(1),
                ..queued
            };
        }
        if fin {
            self.queued_before_fin()
        } else {
            self.sequence()
        }
    }

    /// The send queue's payload once a FIN stands at its end.
    #[inline(always)]
    pub(crate) fn queued_before_fin(&self) -> QueueBytes {
        let QueueBytes { unsent, unacked } = self.sequence();
        // The FIN is the last to be sent. (Its allocation may have failed: never below zero.)
        if unsent > 0 {
            QueueBytes {
                unsent: unsent - 1,
                unacked,
            }
        } else {
            QueueBytes {
                unsent,
                unacked: unacked.saturating_sub(1),
            }
        }
    }

    /// The send queue in sequence numbers.
    #[inline(always)]
    fn sequence(&self) -> QueueBytes {
        let write_seq: u32 = M::read(self.tcp, offset!(write_seq));
        let snd_nxt: u32 = M::read(self.tcp, offset!(snd_nxt));
        let snd_una: u32 = M::read(self.tcp, offset!(snd_una));
        QueueBytes {
            unsent: u64::from(write_seq.wrapping_sub(snd_nxt)),
            unacked: u64::from(snd_nxt.wrapping_sub(snd_una)),
        }
    }
}

/// A `struct task_struct`: the current one.
pub(crate) struct Task<M> {
    task: *const u8,
    memory: PhantomData<M>,
}

const PF_EXITING: u32 = 0x4;

impl<M: Memory> Task<M> {
    #[inline(always)]
    pub(crate) fn current() -> Self {
        Self {
            task: M::current(),
            memory: PhantomData,
        }
    }

    /// Whether it is on its way out (`PF_EXITING`): its closes never wait.
    #[inline(always)]
    pub(crate) fn is_exiting(&self) -> bool {
        M::read::<u32>(self.task, offset!(task_flags)) & PF_EXITING != 0
    }

    /// The group it belongs to: its cgroup, the name of its process.
    #[inline(always)]
    pub(crate) fn group(&self) -> Group {
        let leader: u64 = M::read(self.task, offset!(group_leader));
        // SAFETY: has no preconditions.
        let cgroup_id = unsafe { bpf_get_current_cgroup_id() };
        Group {
            cgroup_id,
            comm: comm::<M>(leader as *const u8),
        }
    }
}

/// Id of the current thread in the initial namespace.
#[inline(always)]
pub(crate) fn current_tid() -> u64 {
    bpf_get_current_pid_tgid() & 0xffff_ffff
}

/// The name of a task.
#[inline(always)]
fn comm<M: Memory>(task: *const u8) -> [u8; 16] {
    let offset = offset!(comm);
    M::read(task, offset)
}
