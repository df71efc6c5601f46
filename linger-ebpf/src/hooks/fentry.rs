//! The plan `fentry`: trampolines on functions.

use aya_ebpf::{
    EbpfContext as _,
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::kernel::{BtfTyped, ProbeRead, Segment, Sock};
use crate::model::{
    answers,
    function_plans::{
        on_active_reset, on_check_oom_passed, on_inner_close, on_listen_stop, on_orderly_end,
        on_reset, on_tcp_close,
    },
    orphan,
};

/// A close begins, before the socket lock.
///
/// kernel: v2.6.. net/ipv4/tcp.c: void tcp_close(struct sock *sk, long timeout)
#[fentry(function = "tcp_close")]
fn fentry_tcp_close(ctx: FEntryContext) -> i32 {
    on_tcp_close(ctx.arg(0));
    0
}

copies! {
    /// The outcome is decided, under the lock. The only entry for MPTCP subflows.
    ///
    /// kernel: v5.11.. net/ipv4/tcp.c: void __tcp_close(struct sock *sk, long timeout)
    #[fentry(function = "__tcp_close")]
    fentry_inner_close, fentry_inner_close_2, fentry_inner_close_3 = |ctx: FEntryContext| {
        on_inner_close(&Sock::<BtfTyped>::new(ctx.arg(0)), ctx.arg(1));
    }
}

copies! {
    /// The decision has been carried out, including the wait under SO_LINGER, and the socket lives on, unless memory is
    /// short: then the kernel aborts after all. Called at the very end of such closes, with soft interrupts disabled,
    /// so that only PREEMPT_RT preempts this program. Timers call it for orphans too.
    ///
    /// kernel: v3.7.. net/ipv4/tcp.c: bool tcp_check_oom(struct sock *sk, int shift); v6.9..: const struct sock *sk
    #[fexit(function = "tcp_check_oom")]
    fexit_check_oom, fexit_check_oom_2, fexit_check_oom_3 = |ctx: FExitContext| {
        // The result follows the arguments; a bool is the lowest byte of its register.
        let is_short: u8 = ctx.arg(2);
        if is_short == 0 {
            on_check_oom_passed(&Sock::<BtfTyped>::new(ctx.arg(0)));
        }
    }
}

copies! {
    /// This host sends an RST on its own initiative.
    ///
    /// kernel: ..v6.9 net/ipv4/tcp_output.c: void tcp_send_active_reset(struct sock *sk, gfp_t priority)
    /// kernel: v6.10.. (sk, gfp_t priority, enum sk_rst_reason reason); v6.12.111.. (sk, reason)
    #[fentry(function = "tcp_send_active_reset")]
    fentry_active_reset, fentry_active_reset_2 = |ctx: FEntryContext| {
        // The verifier forbids arithmetic on typed pointers, so read it as a number.
        let number = || ProbeRead::read_at(ctx.as_ptr().cast());
        on_active_reset(&Sock::<BtfTyped>::new(ctx.arg(0)), number);
    }
}

/// A listener has closed the connections in its queue.
///
/// kernel: v2.6.. net/ipv4/inet_connection_sock.c: void inet_csk_listen_stop(struct sock *sk)
#[fexit(function = "inet_csk_listen_stop")]
fn fexit_listen_stop(ctx: FExitContext) -> i32 {
    on_listen_stop(&Sock::<BtfTyped>::new(ctx.arg(0)));
    0
}

/// A connection ends in the regular way, with everything acknowledged.
///
/// kernel: v3.6.. net/ipv4/tcp_metrics.c: void tcp_update_metrics(struct sock *sk)
#[fentry(function = "tcp_update_metrics")]
fn fentry_orderly_end(ctx: FEntryContext) -> i32 {
    on_orderly_end(&Sock::<BtfTyped>::new(ctx.arg(0)));
    0
}

/// The kernel resets a connection: the peer's RST came, or data for a closed socket. Where this is skipped, the RST
/// that answers the data, or its absence, shows which it was.
///
/// kernel: v5.15.. net/ipv4/tcp_input.c: void tcp_reset(struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_reset")]
fn fentry_reset(ctx: FEntryContext) -> i32 {
    on_reset(
        &Sock::<BtfTyped>::new(ctx.arg(0)),
        &Segment::<BtfTyped>::new(ctx.arg(1)),
    );
    0
}

/// An IPv4 packet is to be answered with an RST. (It is not if its TCP-MD5 key does not match.)
///
/// kernel: v2.6.. net/ipv4/tcp_ipv4.c: static void tcp_v4_send_reset(const struct sock *sk, struct sk_buff *skb)
/// kernel: v6.10.. shown by [`reset_answers`]
#[fentry(function = "tcp_v4_send_reset")]
fn fentry_v4_answer(ctx: FEntryContext) -> i32 {
    let (sk, skb) = number_and_packet(&ctx);
    answers::about_to_send(sk, skb, Segment::is_local_v4);
    0
}

/// As [`fentry_v4_answer`].
///
/// kernel: v2.6.. net/ipv6/tcp_ipv6.c: static void tcp_v6_send_reset(const struct sock *sk, struct sk_buff *skb)
#[fentry(function = "tcp_v6_send_reset")]
fn fentry_v6_answer(ctx: FEntryContext) -> i32 {
    let (sk, skb) = number_and_packet(&ctx);
    answers::about_to_send(sk, skb, Segment::is_local_v6);
    0
}

/// The arguments of both functions, the first as a number.
fn number_and_packet(ctx: &FEntryContext) -> (u64, *const u8) {
    let argument = |place| ProbeRead::read_at::<u64>(ctx.as_ptr().cast::<u8>().wrapping_add(place));
    (argument(0), argument(8) as *const u8)
}

/// The kernel sets the timer of a socket for keepalive, or for an orphan's wait for the peer's FIN.
///
/// kernel: ..v6.12 net/ipv4/inet_connection_sock.c: void inet_csk_reset_keepalive_timer(struct sock *sk, unsigned long len)
/// kernel: v6.18.. net/ipv4/tcp_timer.c: void tcp_reset_keepalive_timer(struct sock *sk, unsigned long len)
#[fentry(function = "inet_csk_reset_keepalive_timer")]
fn fentry_timer(ctx: FEntryContext) -> i32 {
    orphan::timer_set(&Sock::<BtfTyped>::new(ctx.arg(0)));
    0
}
