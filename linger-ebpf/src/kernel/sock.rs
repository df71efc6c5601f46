//! Sockets: `struct sock`, `struct tcp_sock`, `struct sk_buff`.

use core::marker::PhantomData;

use linger_ebpf::{Event, QueueBytes};

use super::memory::{Constant, Head, Memory, ProbeRead, address, offset};

/// `IPPROTO_TCP` (include/uapi/linux/in.h).
pub(crate) const IPPROTO_TCP: u32 = 6;

/// `SOCK_STREAM` (include/linux/net.h).
pub(crate) const SOCK_STREAM: u32 = 1;

/// TCP states, as in include/net/tcp_states.h.
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const SYN_RECV: u8 = 3;
    pub(crate) const FIN_WAIT1: u8 = 4;
    pub(crate) const FIN_WAIT2: u8 = 5;
    pub(crate) const TIME_WAIT: u8 = 6;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const CLOSE_WAIT: u8 = 8;
    pub(crate) const LAST_ACK: u8 = 9;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const CLOSING: u8 = 11;
    pub(crate) const NEW_SYN_RECV: u8 = 12;
}

/// `enum sock_flags` (include/net/sock.h); the daemon checks that they have these values.
const SOCK_DEAD: u64 = 1 << 0;
const SOCK_DONE: u64 = 1 << 1;
const SOCK_LINGER: u64 = 1 << 4;

/// The third word of an address in `::ffff:0:0/96`.
const MAPPED: u32 = 0xffff_u32.to_be();

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// A `struct sock`.
pub(crate) struct Sock<M> {
    sk: *const u8,
    memory: PhantomData<M>,
}

impl<M: Memory> Sock<M> {
    pub(crate) fn new(sk: *const u8) -> Self {
        Self {
            sk,
            memory: PhantomData,
        }
    }

    /// Its address: its identity while it lives.
    pub(crate) fn address(&self) -> u64 {
        self.sk as u64
    }

    /// Its state and local port.
    pub(crate) fn head(&self) -> Head<impl FnOnce() -> u16> {
        M::head(self.sk)
    }

    /// A [`state`].
    pub(crate) fn state(&self) -> u8 {
        M::read(self.sk, offset!(state))
    }

    /// Whether a close has left it, and it has not ended (net/ipv4/tcp.c `sock_orphan` in `__tcp_close`). The memory
    /// may be that of another socket by now, or free.
    pub(crate) fn is_orphan(&self) -> bool {
        let lives = matches!(
            self.state(),
            state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::LAST_ACK
        );
        lives && self.flags().dead()
    }

    /// Its flags, read once for several tests.
    pub(crate) fn flags(&self) -> Flags {
        Flags(M::read(self.sk, offset!(flags)))
    }

    /// The time of `SO_LINGER` in jiffies; valid if [`Flags::linger`].
    pub(crate) fn lingertime(&self) -> u64 {
        M::read(self.sk, offset!(lingertime))
    }

    /// Whether a peer is set: false if it never connected, or has disconnected.
    pub(crate) fn has_peer(&self) -> bool {
        M::read::<u16>(self.sk, offset!(dport)) != 0
    }

    /// Whether both directions are shut down, as `__tcp_close` does first of all.
    pub(crate) fn is_shut_down(&self) -> bool {
        M::read::<u8>(self.sk, offset!(shutdown)) == 3
    }

    /// Whether a process holds its lock (`lock_sock`), as opposed to a soft interrupt.
    pub(crate) fn is_owned(&self) -> bool {
        M::read::<u32>(self.sk, offset!(owned)) != 0
    }

    /// The error of the connection, a positive errno (`sk_err`); 0 if there is none.
    pub(crate) fn err(&self) -> u32 {
        M::read(self.sk, offset!(err))
    }

    /// Whether it has no file (`sk_socket`): it is an orphan, or a connection that is not accepted yet.
    pub(crate) fn has_no_file(&self) -> bool {
        M::read::<u64>(self.sk, offset!(socket)) == 0
    }

    /// Whether it is the kernel's own (`sk_kern_sock`): `inet_release` runs no program for those.
    pub(crate) fn is_kernel_socket(&self) -> bool {
        u32::from(M::read::<u8>(self.sk, offset!(kern_sock))) & offset!(kern_sock_mask).value() != 0
    }

    /// Whether packets are in the receive queue, even if only of a FIN.
    pub(crate) fn has_receive_queue(&self) -> bool {
        M::read::<u32>(self.sk, offset!(receive_qlen)) > 0
    }

    /// Address of its network namespace.
    pub(crate) fn net(&self) -> u64 {
        M::read(self.sk, offset!(net))
    }

    /// Whether its network namespace is being removed (`check_net`).
    pub(crate) fn is_net_leaving(&self) -> bool {
        let net = self.net();
        ProbeRead::read::<u32>(net as *const u8, offset!(net_users)) == 0
    }

    /// The cgroup in which it was created (`struct cgroup`).
    pub(crate) fn cgroup(&self) -> *const u8 {
        M::read::<u64>(self.sk, offset!(cgroup)) as *const u8
    }

    /// The local port if this host accepted the connection, else 0.
    pub(crate) fn accepted_port(&self) -> u16 {
        if is_accepted(self.sk) && self.state() != state::LISTEN {
            u16::from_be(ProbeRead::read(self.sk, offset!(sport)))
        } else {
            0
        }
    }

    /// Records its addresses and ports.
    pub(crate) fn write_addresses(&self, event: &mut Event) {
        let is_v6 = M::read::<u16>(self.sk, offset!(family)) == u16::from(AF_INET6);
        if is_v6 && offset!(v6_daddr).is_present() {
            event.local = self.words(offset!(v6_saddr));
            event.remote = self.words(offset!(v6_daddr));
        } else {
            event.local = [0, 0, MAPPED, M::read(self.sk, offset!(saddr))];
            event.remote = [0, 0, MAPPED, M::read(self.sk, offset!(daddr))];
        }
        // `skc_num` is released before the close is over; this one stays.
        event.local_port = u16::from_be(ProbeRead::read(self.sk, offset!(sport)));
        event.remote_port = u16::from_be(M::read(self.sk, offset!(dport)));
    }

    /// The 16 bytes at an offset.
    fn words<const INDEX: usize>(&self, at: Constant<INDEX, 0>) -> [u32; 4] {
        [
            M::read(self.sk, at),
            M::read(self.sk, at.plus::<4>()),
            M::read(self.sk, at.plus::<8>()),
            M::read(self.sk, at.plus::<12>()),
        ]
    }

    /// `AF_INET` or `AF_INET6`, as on the wire: an IPv6 socket may speak IPv4.
    pub(crate) fn family(&self) -> u8 {
        let at = offset!(v6_daddr);
        if M::read::<u16>(self.sk, offset!(family)) != u16::from(AF_INET6) || !at.is_present() {
            return AF_INET;
        }
        let upper: u64 = M::read(self.sk, at);
        let is_mapped = upper == 0 && M::read::<u32>(self.sk, at.plus::<8>()) == MAPPED;
        if is_mapped { AF_INET } else { AF_INET6 }
    }

    /// Whether its owner is processing the backlog. Only at the end of `__tcp_close`, where nobody adds to it
    /// (`bh_lock_sock`): elsewhere, segments may only be waiting there.
    ///
    /// kernel: v3.14.. net/core/sock.c: `__release_sock` resets the length once the backlog is empty
    pub(crate) fn is_in_backlog(&self) -> bool {
        M::read::<u32>(self.sk, offset!(backlog_len)) != 0
    }

    /// Received payload that was not read, bytes, whether it is still queued or was just flushed; 0 for another
    /// protocol.
    pub(crate) fn unread(&self, flags: Flags) -> u32 {
        self.tcp().map_or(0, |tcp| tcp.unread(flags))
    }

    /// [`Self::unread`] if the receive queue is not empty, else 0. `flags` is called only then.
    pub(crate) fn queued_unread(&self, flags: impl FnOnce() -> Flags) -> u32 {
        if self.has_receive_queue() {
            self.unread(flags())
        } else {
            0
        }
    }

    /// Whether `SO_LINGER` with zero time makes a close abort.
    pub(crate) fn aborts_by_linger(&self, flags: Flags) -> bool {
        flags.linger() && self.lingertime() == 0
    }

    /// The sequence number after the last byte written, including the FIN; 0 for another protocol.
    pub(crate) fn write_seq(&self) -> u32 {
        self.tcp().map_or(0, |tcp| tcp.write_seq())
    }

    /// Its `tcp_sock`; `None` for another protocol.
    pub(crate) fn tcp(&self) -> Option<Tcp<M>> {
        let tcp = M::tcp_sock(self.sk);
        (!tcp.is_null()).then_some(Tcp {
            tcp,
            memory: PhantomData,
        })
    }
}

/// Whether this host accepted the connection of a socket.
///
/// Only `tcp_v4_syn_recv_sock` and `tcp_v6_syn_recv_sock` set these interface indices in a TCP socket: the socket
/// options that set them refuse TCP.
fn is_accepted(sk: *const u8) -> bool {
    // Beyond `struct sock`, the type that the verifier may know.
    let index: u32 = ProbeRead::read(sk, offset!(mc_index));
    index != 0 || is_accepted_v6(sk)
}

fn is_accepted_v6(sk: *const u8) -> bool {
    if !offset!(pinet6).is_present() {
        return false;
    }
    let v6: u64 = ProbeRead::read(sk, offset!(pinet6));
    v6 != 0 && ProbeRead::read::<u32>(v6 as *const u8, offset!(mcast_oif)) != 0
}

/// `sk_flags`.
#[derive(Clone, Copy)]
pub(crate) struct Flags(u64);

impl Flags {
    /// `SO_LINGER` is on.
    pub(crate) fn linger(self) -> bool {
        self.0 & SOCK_LINGER != 0
    }

    /// It is an orphan (`sock_orphan`).
    pub(crate) fn dead(self) -> bool {
        self.0 & SOCK_DEAD != 0
    }

    /// The peer's FIN has come, and is included in `rcv_nxt`.
    pub(crate) fn done(self) -> bool {
        self.0 & SOCK_DONE != 0
    }
}

/// Whether a FIN is in the send queue in this state.
fn is_fin_queued(state: u8) -> bool {
    matches!(state, state::FIN_WAIT1 | state::CLOSING | state::LAST_ACK)
}

/// A `struct tcp_sock`.
///
/// Of the methods about the send queue, those with `raw` in their names count sequence numbers, of which a SYN and a
/// FIN each take one; all others count bytes of payload. `queued` returns them in two parts, `outstanding` their sum.
pub(crate) struct Tcp<M> {
    tcp: *const u8,
    memory: PhantomData<M>,
}

impl<M: Memory> Tcp<M> {
    /// Whether it is in repair mode (`TCP_REPAIR`), and sends nothing.
    pub(crate) fn repair(&self) -> bool {
        u32::from(M::read::<u8>(self.tcp, offset!(repair))) & offset!(repair_mask).value() != 0
    }

    /// The time of `TCP_LINGER2` in jiffies; 0 if it is not set, -1 to abort instead of waiting in `FIN_WAIT2`.
    pub(crate) fn linger2(&self) -> i32 {
        M::read::<u32>(self.tcp, offset!(linger2)).cast_signed()
    }

    /// Whether it is a subflow of an MPTCP connection; false where the kernel has no MPTCP.
    pub(crate) fn is_mptcp(&self) -> bool {
        let at = offset!(is_mptcp);
        at.is_present() && M::read::<u8>(self.tcp, at) != 0
    }

    /// The sequence number after the last byte written, including the FIN. The first one is random.
    pub(crate) fn write_seq(&self) -> u32 {
        M::read(self.tcp, offset!(write_seq))
    }

    /// The local port, in host byte order. It stays when the one in the head is released.
    pub(crate) fn local_port(&self) -> u16 {
        u16::from_be(M::read(self.tcp, offset!(sport)))
    }

    /// Whether the timer of an unacknowledged FIN, which is always set, is being handled. If it runs out while a
    /// process holds the lock, that happens when the lock is released, in a socket that is still owned.
    ///
    /// kernel: v6.7.. net/ipv4/tcp_output.c: `tcp_release_cb`; before, it gave up the ownership first
    pub(crate) fn is_timer_handled(&self, state: u8) -> bool {
        is_fin_queued(state) && M::read::<u8>(self.tcp, offset!(timer_pending)) == 0
    }

    /// Whether everything written is acknowledged.
    pub(crate) fn all_acknowledged(&self) -> bool {
        M::read::<u32>(self.tcp, offset!(snd_una)) == M::read::<u32>(self.tcp, offset!(write_seq))
    }

    /// Whether anything up to this `write_seq` was not sent yet, including the FIN.
    pub(crate) fn has_unsent(&self, write_seq: u32) -> bool {
        M::read::<u32>(self.tcp, offset!(snd_nxt)) != write_seq
    }

    /// Received payload that was not read, bytes.
    pub(crate) fn unread(&self, flags: Flags) -> u32 {
        let rcv_nxt: u32 = M::read(self.tcp, offset!(rcv_nxt));
        let copied_seq: u32 = M::read(self.tcp, offset!(copied_seq));
        let unread = rcv_nxt
            .wrapping_sub(copied_seq)
            .wrapping_sub(u32::from(flags.done()));
        if unread.cast_signed() > 0 { unread } else { 0 }
    }

    /// Whether an unacknowledged SYN is in the send queue in this state, also in a simultaneous open. (Where TCP Fast
    /// Open accepts before the acknowledgement, the sequence numbers begin after the SYN.)
    fn is_syn_queued(&self, state: u8) -> bool {
        state == state::SYN_SENT || state == state::SYN_RECV && !is_accepted(self.tcp)
    }

    /// The send queue's payload, for a connection in this state, by the `write_seq` it has now.
    pub(crate) fn queued(&self, state: u8) -> QueueBytes {
        if self.is_syn_queued(state) {
            // Until the SYN is sent, a deferred connect leaves the sequence numbers unset.
            if M::read::<u32>(self.tcp, offset!(packets_out)) == 0 {
                return QueueBytes::NONE;
            }
            return without_syn(self.raw_queue());
        }
        if is_fin_queued(state) {
            self.queued_before_fin()
        } else {
            self.raw_queue()
        }
    }

    /// Bytes of payload in the send queue when it ended with this `write_seq`, in this state, for a connection that has
    /// sent its SYN.
    pub(crate) fn outstanding(&self, write_seq: u32, state: u8) -> u32 {
        let length = self.raw_length_to(write_seq);
        length.saturating_sub(u32::from(is_fin_queued(state) || self.is_syn_queued(state)))
    }

    /// [`Self::outstanding`] for a connection that was in the state `was` shortly before.
    pub(crate) fn outstanding_since(&self, write_seq: u32, state: u8, was: u8) -> u32 {
        let syn = u32::from(self.is_syn_queued(was));
        self.outstanding(write_seq, state).saturating_sub(syn)
    }

    /// The length of the send queue when it ended with this `write_seq`, in sequence numbers.
    fn raw_length_to(&self, write_seq: u32) -> u32 {
        let snd_una: u32 = M::read(self.tcp, offset!(snd_una));
        write_seq.wrapping_sub(snd_una)
    }

    /// Bytes of payload in the send queue, for a connection that has sent or queued its FIN.
    pub(crate) fn outstanding_before_fin(&self) -> u32 {
        self.raw_length_to(self.write_seq()).saturating_sub(1)
    }

    /// The send queue's payload, for a connection that has sent or queued its FIN.
    pub(crate) fn queued_before_fin(&self) -> QueueBytes {
        self.queued_before_fin_at(self.write_seq())
    }

    /// [`Self::queued_before_fin`] by this `write_seq`.
    pub(crate) fn queued_before_fin_at(&self, write_seq: u32) -> QueueBytes {
        without_fin(self.raw_queue_to(write_seq))
    }

    /// The send queue's payload when it ended with this `write_seq`, in this state.
    pub(crate) fn queued_when(&self, write_seq: u32, state: u8) -> QueueBytes {
        let queued = self.raw_queue_to(write_seq);
        if is_fin_queued(state) {
            without_fin(queued)
        } else if self.is_syn_queued(state) {
            without_syn(queued)
        } else {
            queued
        }
    }

    /// The send queue, in sequence numbers.
    fn raw_queue(&self) -> QueueBytes {
        self.raw_queue_to(self.write_seq())
    }

    /// The send queue when it ended with this `write_seq`, in sequence numbers.
    fn raw_queue_to(&self, write_seq: u32) -> QueueBytes {
        let snd_una: u32 = M::read(self.tcp, offset!(snd_una));
        if write_seq == snd_una {
            return QueueBytes::NONE;
        }
        let snd_nxt: u32 = M::read(self.tcp, offset!(snd_nxt));
        QueueBytes {
            unsent: u64::from(write_seq.wrapping_sub(snd_nxt)),
            unacked: u64::from(snd_nxt.wrapping_sub(snd_una)),
        }
    }
}

/// A send queue without the SYN at its beginning.
fn without_syn(queued: QueueBytes) -> QueueBytes {
    QueueBytes {
        unacked: queued.unacked.saturating_sub(1),
        ..queued
    }
}

/// A send queue without the FIN at its end.
fn without_fin(QueueBytes { unsent, unacked }: QueueBytes) -> QueueBytes {
    // The FIN is sent last. (Its allocation may have failed: never below zero.)
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

const FIN: u8 = 1 << 0;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;

/// A packet (`struct sk_buff`) being processed by TCP, which has filled in its `struct tcp_skb_cb`.
///
/// kernel: v4.17.. net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c: tcp_v4_fill_cb, tcp_v6_fill_cb
pub(crate) struct Segment<M = ProbeRead> {
    skb: *const u8,
    memory: PhantomData<M>,
}

impl<M: Memory> Segment<M> {
    pub(crate) fn new(skb: *const u8) -> Self {
        Self {
            skb,
            memory: PhantomData,
        }
    }

    pub(crate) fn is_rst(&self) -> bool {
        self.flags() & RST != 0
    }

    fn flags(&self) -> u8 {
        M::read(self.control_block(), offset!(cb_flags))
    }

    fn control_block(&self) -> *const u8 {
        address(self.skb, offset!(skb_cb))
    }
}

impl Segment {
    /// Bytes of payload.
    pub(crate) fn payload(&self) -> u32 {
        let seq: u32 = ProbeRead::read(self.control_block(), offset!(cb_seq));
        let end_seq: u32 = ProbeRead::read(self.control_block(), offset!(cb_end_seq));
        let flags = self.flags();
        let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        end_seq.wrapping_sub(seq).wrapping_sub(counted)
    }

    /// Whether its route ends at this host (`RTN_LOCAL`): otherwise a packet for no socket is not answered.
    pub(crate) fn is_local_v4(&self) -> bool {
        const RTN_LOCAL: u16 = 2;
        let at = offset!(rt_type);
        !at.is_present() || ProbeRead::read::<u16>(self.route(), at) == RTN_LOCAL
    }

    /// [`Segment::is_local_v4`] for IPv6 (`ipv6_unicast_destination`).
    pub(crate) fn is_local_v6(&self) -> bool {
        const RTF_LOCAL: u32 = 1 << 31;
        let at = offset!(rt6i_flags);
        !at.is_present() || ProbeRead::read::<u32>(self.route(), at) & RTF_LOCAL != 0
    }

    /// Its `struct dst_entry`, with which `struct rtable` and `struct rt6_info` begin.
    fn route(&self) -> *const u8 {
        /// `SKB_DST_NOREF`.
        const NOT_COUNTED: u64 = 1;
        let route: u64 = ProbeRead::read(self.skb, offset!(skb_dst));
        (route & !NOT_COUNTED) as *const u8
    }
}

/// Narrows a number of bytes in a send queue, which never holds 4 GiB, the range of sequence numbers.
pub(crate) fn narrow(bytes: u64) -> u32 {
    bytes.try_into().unwrap_or(u32::MAX)
}
