//! Hooks shared by several plans.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, cgroup_sock, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext, SockContext},
};

use crate::kernel::{BtfTyped, IPPROTO_TCP, ProbeRead, SOCK_STREAM, Sock};
use crate::model::{
    answers,
    copies::{copies_may_run, ends_are_early},
    exe,
    function_plans::{self, current_close},
    orphan, reset,
};

copies! {
    /// A socket ends, in the plans `fentry` and `kprobe`; called once per socket, before its memory is freed. If its
    /// close ends it, that close is over.
    ///
    /// kernel: v4.16.. include/trace/events/tcp.h: tcp_destroy_sock(struct sock *sk)
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    destroy_sock, destroy_sock_2, destroy_sock_3 = |ctx: BtfTracePointContext| {
        function_plans::on_destroy(&Sock::<BtfTyped>::new(ctx.arg(0)));
    }
}

/// An RST answers a packet. It is counted, and reveals the fate of an orphan where the hook of `tcp_reset` was
/// skipped. One that answers no packet has been seen by another hook, unless that was skipped.
///
/// As [`tracepoint_send_reset`].
#[raw_tracepoint]
fn reset_answers(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if skb != 0 {
        if ends_are_early() {
            orphan::end_closed(&Sock::<ProbeRead>::new(sk as *const u8));
        }
        answers::sent(sk, skb as *const u8);
    } else if copies_may_run() {
        reset::sent(
            current_close(),
            &Sock::<ProbeRead>::new(sk as *const u8),
            || sk,
        );
    }
    0
}

/// Settles an undecided orphan that has waited long enough. Not attached: the daemon runs it, with an index into
/// [`maps::UNDECIDED`] and the time that it read there, at which the orphan ended.
#[raw_tracepoint]
fn settle(ctx: RawTracePointContext) -> i32 {
    orphan::settle(ctx.arg(0), ctx.arg(1));
    0
}

/// Ends an orphan whose end was missed. Not attached: the daemon runs it, with the address of the orphan's socket and
/// the time when the orphan was left, or 0 to end none.
///
/// Returns 1 if the socket has ended, else 0.
///
/// Defined by hand, because the macro of raw tracepoints drops the result.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
extern "C" fn missed_end(ctx: *mut c_void) -> u32 {
    let ctx = RawTracePointContext::new(ctx);
    let sk = Sock::<ProbeRead>::new(ctx.arg::<u64>(0) as *const u8);
    if sk.is_orphan() {
        return 0;
    }
    orphan::end_missed(sk.address(), ctx.arg(1));
    1
}

/// A process releases its memory.
///
/// kernel: v6.1.. include/trace/events/mmap.h: exit_mmap(struct mm_struct *mm)
#[raw_tracepoint]
fn exit_mmap(ctx: RawTracePointContext) -> i32 {
    exe::record_exiting(ctx.arg(0));
    0
}

/// A close begins: replaces [`fentry_tcp_close`] and [`kprobe_tcp_close`] where the kernel may skip those, because
/// it never skips this program. The next hook of the close makes up for what this one does not see.
///
/// kernel: v5.9.. net/ipv4/af_inet.c: int inet_release(struct socket *sock)
#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the verifier checks the access to the context.
    let state = unsafe { (*ctx.sock).state };
    if is_tcp(&ctx) {
        // The context is the socket.
        let sk = Sock::<ProbeRead>::new(ctx.as_ptr().cast());
        function_plans::on_release(&sk, u8::try_from(state).unwrap_or_default());
    }
    1
}

/// Whether the released socket is one of TCP. A raw socket may have the same protocol.
pub(super) fn is_tcp(ctx: &SockContext) -> bool {
    // SAFETY: the verifier checks the access to the context.
    let (kind, protocol) = unsafe { ((*ctx.sock).type_, (*ctx.sock).protocol) };
    kind == SOCK_STREAM && protocol == IPPROTO_TCP
}
