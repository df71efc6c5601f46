//! The plan `kprobe`: the same functions as those of `fentry`.

use aya_ebpf::{
    macros::{kprobe, kretprobe, raw_tracepoint},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};

use crate::kernel::{ProbeRead, Segment, Sock};
use crate::model::{
    answers,
    function_plans::{current_close, on_inner_close, on_inner_close_return, on_tcp_close},
    orphan, reset,
};

/// As [`fentry_tcp_close`].
#[kprobe]
fn kprobe_tcp_close(ctx: ProbeContext) -> u32 {
    on_tcp_close(ctx.arg(0).unwrap_or_default());
    0
}

/// As [`fentry_inner_close`].
#[kprobe]
fn kprobe_inner_close(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(timeout)) = (ctx.arg(0), ctx.arg(1)) {
        on_inner_close(&Sock::<ProbeRead>::new(sk), timeout);
    }
    0
}

/// The decision has been carried out, including the wait under SO_LINGER; the lock is still held. A kretprobe has no
/// arguments: the socket is that of the close in flight.
///
/// kernel: v5.11.. net/ipv4/tcp.c: void __tcp_close(struct sock *sk, long timeout)
#[kretprobe]
fn kretprobe_inner_close(_ctx: RetProbeContext) -> u32 {
    on_inner_close_return();
    0
}

/// As [`fentry_active_reset`]. From v6.10 on, [`reset_answers`] makes up for it where it is skipped.
#[kprobe]
fn kprobe_active_reset(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        let sk = Sock::<ProbeRead>::new(sk);
        reset::sent(current_close(), &sk, || sk.address());
    }
    0
}

/// As [`fentry_reset`], but an orphan ends with its socket: there, reading it is cheaper.
#[kprobe]
fn kprobe_reset(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        orphan::note_reset(sk, &Segment::<ProbeRead>::new(skb));
    }
    0
}

/// An RST answers a packet for a full socket. While the kernel skips kprobes, it skips that of `tcp_reset` and those of
/// the answer alike: then only this tracepoint reveals the fate of an orphan.
///
/// kernel: ..v6.9 include/trace/events/tcp.h: tcp_send_reset(const struct sock *sk, const struct sk_buff *skb): whole sockets only
/// kernel: v6.10.. replaced by [`reset_answers`]
#[raw_tracepoint]
fn socket_answers(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if skb != 0 {
        answers::sent(sk, skb as *const u8);
    }
    0
}

/// As [`fentry_v4_answer`], except for answers that [`socket_answers`] sees.
#[kprobe]
fn kprobe_v4_answer(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1))
        && !answers::is_full(sk)
    {
        answers::about_to_send(sk, skb, Segment::is_local_v4);
    }
    0
}

/// As [`fentry_v6_answer`], except for answers that [`socket_answers`] sees.
#[kprobe]
fn kprobe_v6_answer(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1))
        && !answers::is_full(sk)
    {
        answers::about_to_send(sk, skb, Segment::is_local_v6);
    }
    0
}

/// As [`fentry_timer`].
#[kprobe]
fn kprobe_timer(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        orphan::timer_set(&Sock::<ProbeRead>::new(sk));
    }
    0
}
