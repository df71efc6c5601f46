//! The plan `tracepoint`: the release of sockets, and the events that follow.

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, cgroup_sock, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext, SockContext},
};

use super::common::is_tcp;
use crate::kernel::{BtfTyped, Registers, Sock, state};
use crate::model::{answers, orphan, tracepoint_plan};

/// A socket is released by its last holder; not called for the kernel's own sockets.
///
/// kernel: v5.9.. net/ipv4/af_inet.c: int inet_release(struct socket *sock)
#[cgroup_sock(sock_release)]
fn cgroup_sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the verifier checks the access to the context.
    let (state, peer) = unsafe { ((*ctx.sock).state, (*ctx.sock).dst_port) };
    if is_tcp(&ctx) {
        let is_closed = state == u32::from(state::CLOSE);
        // The context is the socket.
        tracepoint_plan::on_release(&Sock::new(ctx.as_ptr().cast()), is_closed, peer != 0);
    }
    1
}

copies! {
    /// A socket's state changes, under the lock; the change may be to the same state.
    ///
    /// kernel: v4.16.. include/trace/events/sock.h: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
    #[btf_tracepoint(function = "inet_sock_set_state")]
    tracepoint_set_state, tracepoint_set_state_2, tracepoint_set_state_3 = |ctx: BtfTracePointContext| {
        tracepoint_plan::on_set_state(&Sock::<BtfTyped>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    }
}

/// An RST is sent; on this host's own initiative if it answers no packet.
///
/// kernel: ..v6.9 include/trace/events/tcp.h: tcp_send_reset(const struct sock *sk, const struct sk_buff *skb): whole sockets only
/// kernel: v6.10.. (sk, skb, const enum sk_rst_reason reason)
#[raw_tracepoint]
fn tracepoint_send_reset(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if skb == 0 {
        tracepoint_plan::on_reset(&Sock::new(sk as *const u8));
    } else {
        answers::sent(sk, skb as *const u8);
    }
    0
}

/// A copy of [`tracepoint_send_reset`], which the kernel may skip. It does not count RSTs that answer a packet, because
/// nothing distinguishes one of those from the next.
#[raw_tracepoint]
fn tracepoint_send_reset_2(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if skb == 0 {
        tracepoint_plan::on_reset(&Sock::new(sk as *const u8));
    } else if sk != 0 {
        orphan::settle_answered(sk);
    }
    0
}

copies! {
    /// A socket ends; called once per socket, before its memory is freed.
    ///
    /// kernel: v4.16.. include/trace/events/tcp.h: tcp_destroy_sock(struct sock *sk)
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    tracepoint_destroy_sock, tracepoint_destroy_sock_2, tracepoint_destroy_sock_3 = |ctx: BtfTracePointContext| {
        tracepoint_plan::on_destroy(&Sock::<BtfTyped>::new(ctx.arg(0)));
    }
}

/// A system call returns. Since v6.6, close(2) has finished the release by then.
///
/// The tracepoint itself costs less than `syscalls:sys_exit_close`, and is never skipped because
/// another program runs on the CPU.
///
/// kernel: v2.6.. include/trace/events/syscalls.h: sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
fn tracepoint_sys_exit(ctx: BtfTracePointContext) -> i32 {
    // close(2) of a socket always succeeds.
    if ctx.arg::<u64>(1) == 0 && tracepoint_plan::is_close(&Registers::new(ctx.arg(0))) {
        tracepoint_plan::on_close_return();
    }
    0
}
