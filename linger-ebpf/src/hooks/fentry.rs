//! The plan `fentry`: trampolines on functions.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::kernel::{Memory as _, Probed, Sock, Typed, is_rst};
use crate::model::{
    functions::{current_close, inner_enter, inner_exit, outer_enter},
    orphan, reset,
};

/// A close begins, before the socket lock.
///
/// kernel: v2.6.. net/ipv4/tcp.c: void tcp_close(struct sock *sk, long timeout)
#[fentry(function = "tcp_close")]
fn fentry_tcp_close(ctx: FEntryContext) -> i32 {
    outer_enter(ctx.arg(0));
    0
}

again! {
    /// The outcome is decided, under the lock; the only entry for MPTCP subflows.
    ///
    /// kernel: v5.11.. net/ipv4/tcp.c: void __tcp_close(struct sock *sk, long timeout)
    #[fentry(function = "__tcp_close")]
    fentry_inner_close, fentry_inner_close_2, fentry_inner_close_3 = |ctx: FEntryContext| {
        inner_enter(&Sock::<Typed>::new(ctx.arg(0)), ctx.arg(1));
    }
}

again! {
    /// The decision is carried out, the wait under SO_LINGER included, and the lock still held.
    ///
    /// kernel: v5.11.. net/ipv4/tcp.c: void __tcp_close(struct sock *sk, long timeout)
    #[fexit(function = "__tcp_close")]
    fexit_inner_close, fexit_inner_close_2, fexit_inner_close_3 = |ctx: FExitContext| {
        inner_exit(Some(Sock::<Typed>::new(ctx.arg(0))));
    }
}

again! {
    /// This host sends an RST of its own will.
    ///
    /// kernel: ..v6.9 net/ipv4/tcp_output.c: void tcp_send_active_reset(struct sock *sk, gfp_t priority)
    /// kernel: v6.10.. (sk, gfp_t priority, enum sk_rst_reason reason); v6.12.111.. (sk, reason)
    #[fentry(function = "tcp_send_active_reset")]
    fentry_active_reset, fentry_active_reset_2 = |ctx: FEntryContext| {
        // The verifier lets no one calculate with a pointer whose type it knows: read as a number.
        let number = || Probed::read(ctx.as_ptr().cast(), 0);
        reset::sent(current_close(), &Sock::<Typed>::new(ctx.arg(0)), number);
    }
}

again! {
    /// The kernel resets a connection: the peer's RST came, or data for a closed socket.
    ///
    /// kernel: v5.15.. net/ipv4/tcp_input.c: void tcp_reset(struct sock *sk, struct sk_buff *skb)
    #[fentry(function = "tcp_reset")]
    fentry_reset, fentry_reset_2 = |ctx: FEntryContext| {
        orphan::reset(ctx.arg(0), || is_rst::<Typed>(ctx.arg(1)));
    }
}

/// The kernel sets the timer of a socket for keepalive, or for an orphan's wait for the peer's FIN.
///
/// kernel: ..v6.12 net/ipv4/inet_connection_sock.c: void inet_csk_reset_keepalive_timer(struct sock *sk, unsigned long len)
/// kernel: v6.18.. net/ipv4/tcp_timer.c: void tcp_reset_keepalive_timer(struct sock *sk, unsigned long len)
#[fentry(function = "inet_csk_reset_keepalive_timer")]
fn fentry_timer(ctx: FEntryContext) -> i32 {
    orphan::timer_set(&Sock::<Typed>::new(ctx.arg(0)));
    0
}
