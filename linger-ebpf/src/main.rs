//! The programs. Each translates the arguments of its hook into one call of the model.
//!
//! The names here are those the daemon loads by; `probe/hooks.rs` says what each is attached to.
//!
//! Functions that are `extern "C"` and not mangled are what the kernel calls global functions: the
//! verifier goes through each once, by itself, and not again for every way that leads to a call. They
//! take numbers, and pointers to what they may not rely on being there.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call costs; what is rare is kept apart. (None is `cold`: then it would stand in a section \
              of its own, and the loader tells functions by their places within a section.)"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand contexts over by value"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, keys and values would be copied to the stack once more, where they may not fit"
)]
#![expect(
    clippy::doc_markdown,
    reason = "above each hook stands the kernel's prototype as it is"
)]
#![expect(
    internal_features,
    reason = "atomic_xadd has no stable name on this target"
)]
#![feature(asm_experimental_arch)]
#![feature(core_intrinsics)]
#![no_main]

mod bare;
mod close;
mod exe;
mod in_flight;
mod kernel;
mod ledger;
mod maps;
mod orphan;
mod path;
mod reset;
mod shared;
mod tracepoint;
mod undecided;
mod watch;
mod who;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, cgroup_sock, fentry, fexit, kprobe, kretprobe, raw_tracepoint},
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext, SockContext,
    },
};
use linger_ebpf::{Close, Lost, Outcome, flag, stage};

use crate::{
    in_flight::Place,
    kernel::{Memory, Probed, Registers, Sock, Typed, is_rst, state},
};

/// Whether what this kernel skips is hooked more than once.
#[unsafe(no_mangle)]
static AGAIN: u32 = 0;

/// Whether the same program may have run for the same event. A kernel that preempts threads inside a program
/// skips it on that CPU meanwhile; then the same is hooked again, under other names.
#[inline(always)]
pub(crate) fn is_hooked_again() -> bool {
    // SAFETY: reads a static; volatile because the value is replaced at load.
    unsafe { core::ptr::read_volatile(&raw const AGAIN) != 0 }
}

/// A program under several names. All are attached where the kernel preempts, and find what the first of them
/// did; elsewhere only the first is.
macro_rules! again {
    ($(#[$attribute:meta])+ $($name:ident),+ = |$ctx:ident: $context:ident| $body:block) => {
        again! { @ [$(#[$attribute])+] [$($name)+] $ctx $context $body }
    };
    (@ $attributes:tt [$($name:ident)+] $ctx:ident $context:ident $body:block) => {
        $(again! { % $attributes $name $ctx $context $body })+
    };
    (% [$($attribute:tt)+] $name:ident $ctx:ident $context:ident $body:block) => {
        $($attribute)+
        #[inline(always)]
        fn $name($ctx: $context) -> i32 {
            $body;
            0
        }
    };
}

// ---- the model's calls, for the plans `fentry` and `kprobe` ----

/// `tcp_close` begins, before the socket lock.
#[inline(always)]
fn outer_enter(sk: u64) {
    if let Some(place) = Place::current() {
        close::begin(&place, sk, 0);
    }
}

/// `__tcp_close` begins, under the socket lock: all that decides its outcome stands still.
#[inline(always)]
fn inner_enter<M: Memory>(sk: &Sock<M>, timeout: u64) {
    let Some(place) = Place::current() else {
        return;
    };
    // MPTCP closes its subflows without `tcp_close`.
    let begun = place
        .find(sk.address())
        .or_else(|| begin_again(&place, sk.address()));
    let Some(close) = begun else { return };
    // Another run of this has decided it.
    if close.stage != stage::BEGUN {
        return;
    }
    let state = sk.state();
    if state == state::CLOSE {
        let unread = sk.queued_unread(|| sk.flags());
        return close::decide_closed(close, sk, sk.has_peer(), unread);
    }
    let flags = sk.flags();
    // A listener's queue holds no data of its own.
    let unread = if state == state::LISTEN {
        0
    } else {
        sk.queued_unread(|| flags)
    };
    close::decide(close, sk, flags, state, unread, timeout);
    if close.outcome == Outcome::Graceful as u8 {
        close::leave(close, sk, state);
    } else if reset::is_due(close, sk, state) {
        // The hook of it may be skipped.
        close.flags |= flag::RESET;
    } else if close.stage == stage::WAITING {
        close::wait(close, sk, state);
    }
}

/// A close begins whose beginning was missed, or found no room. Where there still is none it is lost, which its
/// end counts: this may run several times.
#[inline(always)]
fn begin_again(place: &Place, sk: u64) -> Option<&'static mut Close> {
    let begun = close::begin(place, sk, 0);
    if is_hooked_again() {
        place.note_unkept(begun.is_none());
    }
    begun
}

/// `__tcp_close` ends, still under the lock: the close is over. What `tcp_close` does after it takes the
/// segments that came meanwhile, and lets the socket go.
#[inline(always)]
fn inner_exit<M: Memory>(sk: Option<Sock<M>>) {
    let Some(place) = Place::current() else {
        return;
    };
    let Some(close) = place.record() else {
        // Both beginnings were missed, or there was no room; or another run of this has ended it.
        if !is_hooked_again() || place.take_unkept() {
            maps::lose(Lost::Close);
        }
        return;
    };
    let sk = sk.unwrap_or_else(|| Sock::new(close.sk as *const u8));
    if close.stage == stage::BEGUN && close.state != 0 {
        close::decide_late(close, &sk);
    }
    close::waited(close, &sk);
    close::finish(&place, close);
}

/// The record of the close in flight on this thread.
#[inline(always)]
fn current_close() -> Option<&'static mut Close> {
    Place::current()?.record()
}

// ---- fentry ----

/// A close begins, before the socket lock.
///
/// kernel: v2.6.. net/ipv4/tcp.c: void tcp_close(struct sock *sk, long timeout)
#[fentry(function = "tcp_close")]
#[inline(always)]
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
#[inline(always)]
fn fentry_timer(ctx: FEntryContext) -> i32 {
    orphan::timer_set(&Sock::<Typed>::new(ctx.arg(0)));
    0
}

// ---- kprobe: the same functions ----

/// As [`fentry_tcp_close`].
#[kprobe]
#[inline(always)]
fn kprobe_tcp_close(ctx: ProbeContext) -> u32 {
    outer_enter(ctx.arg(0).unwrap_or_default());
    0
}

/// As [`fentry_inner_close`].
#[kprobe]
#[inline(always)]
fn kprobe_inner_close(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(timeout)) = (ctx.arg(0), ctx.arg(1)) {
        inner_enter(&Sock::<Probed>::new(sk), timeout);
    }
    0
}

/// As [`fexit_inner_close`]. A return has no arguments: the socket is that of the close in flight.
#[kretprobe]
#[inline(always)]
fn kretprobe_inner_close(_ctx: RetProbeContext) -> u32 {
    inner_exit::<Probed>(None);
    0
}

/// As [`fentry_active_reset`].
#[kprobe]
#[inline(always)]
fn kprobe_active_reset(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        let sk = Sock::<Probed>::new(sk);
        reset::sent(current_close(), &sk, || sk.address());
    }
    0
}

/// As [`fentry_reset`].
#[kprobe]
#[inline(always)]
fn kprobe_reset(ctx: ProbeContext) -> u32 {
    if let (Some(sk), Some(skb)) = (ctx.arg(0), ctx.arg(1)) {
        orphan::reset(sk, || is_rst::<Probed>(skb));
    }
    0
}

/// As [`fentry_timer`].
#[kprobe]
#[inline(always)]
fn kprobe_timer(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        orphan::timer_set(&Sock::<Probed>::new(sk));
    }
    0
}

// ---- fentry and kprobe ----

again! {
    /// A socket comes to its end, once, and before its memory is freed. What closes do to it is known
    /// already; most sockets leave nothing behind.
    ///
    /// kernel: v4.16.. include/trace/events/tcp.h: tcp_destroy_sock(struct sock *sk)
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    destroy_sock, destroy_sock_2, destroy_sock_3 = |ctx: BtfTracePointContext| {
        let sk = Sock::<Typed>::new(ctx.arg(0));
        if maps::is_hinted(sk.address()) {
            if let Some(close) = Place::current().and_then(|place| place.find(sk.address())) {
                close::waited(close, &sk);
            }
            orphan::end(&sk);
        }
    }
}

/// An RST answers a packet, which tells what ended an orphan where the hook of `tcp_reset` was skipped.
///
/// As [`tracepoint_send_reset`], of which the other half is seen elsewhere.
#[raw_tracepoint]
#[inline(always)]
fn reset_answers(ctx: RawTracePointContext) -> i32 {
    let (sk, skb): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    if sk != 0 && skb != 0 {
        orphan::answered(sk);
    }
    0
}

// ---- every plan ----

/// Attached to nothing: the daemon runs it, for a place of [`maps::UNDECIDED`] and the time that it found there.
#[raw_tracepoint]
#[inline(always)]
fn settle(ctx: RawTracePointContext) -> i32 {
    orphan::settle(ctx.arg(0), ctx.arg(1));
    0
}

// ---- every plan, where it is asked what processes execute ----

/// A process lets go of its memory.
///
/// kernel: v6.1.. include/trace/events/mmap.h: exit_mmap(struct mm_struct *mm)
#[raw_tracepoint]
#[inline(always)]
fn exit_mmap(ctx: RawTracePointContext) -> i32 {
    exe::exit(ctx.arg(0));
    0
}

// ---- the release of sockets ----

const IPPROTO_TCP: u32 = 6;

/// A close begins: in place of [`fentry_tcp_close`] and [`kprobe_tcp_close`] where the kernel skips those, for it
/// never skips this. What then is missed of a close is made up for by the next of its hooks.
///
/// kernel: v5.9.. net/ipv4/af_inet.c: int inet_release(struct socket *sock)
#[cgroup_sock(sock_release)]
#[inline(always)]
fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the verifier checks the access to the context.
    let (protocol, state) = unsafe { ((*ctx.sock).protocol, (*ctx.sock).state) };
    // The context is the socket.
    if protocol == IPPROTO_TCP
        && let Some(place) = Place::current()
        && let Some(close) = close::begin(&place, ctx.as_ptr() as u64, 0)
    {
        close.state = u8::try_from(state).unwrap_or_default();
        close.deadline = Sock::<Probed>::new(ctx.as_ptr().cast()).written();
    }
    1
}

// ---- tracepoint ----

/// A socket is released by its last user; not called for the kernel's own sockets.
///
/// kernel: v5.9.. net/ipv4/af_inet.c: int inet_release(struct socket *sock)
#[cgroup_sock(sock_release)]
#[inline(always)]
fn cgroup_sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the verifier checks the access to the context.
    let (protocol, state, peer) = unsafe {
        (
            (*ctx.sock).protocol,
            (*ctx.sock).state,
            (*ctx.sock).dst_port,
        )
    };
    if protocol == IPPROTO_TCP {
        let is_closed = state == u32::from(state::CLOSE);
        // The context is the socket.
        tracepoint::release(&Sock::new(ctx.as_ptr().cast()), is_closed, peer != 0);
    }
    1
}

again! {
    /// A socket's state changes, under the lock; the change may be to the same state.
    ///
    /// kernel: v4.16.. include/trace/events/sock.h: inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
    #[btf_tracepoint(function = "inet_sock_set_state")]
    tracepoint_set_state, tracepoint_set_state_2, tracepoint_set_state_3 = |ctx: BtfTracePointContext| {
        tracepoint::set_state(&Sock::<Typed>::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    }
}

again! {
    /// An RST is sent: of this host's own will if there is no packet that it answers.
    ///
    /// kernel: ..v6.9 include/trace/events/tcp.h: tcp_send_reset(const struct sock *sk, const struct sk_buff *skb)
    /// kernel: v6.10.. (sk, skb, const enum sk_rst_reason reason)
    #[raw_tracepoint]
    tracepoint_send_reset, tracepoint_send_reset_2 = |ctx: RawTracePointContext| {
        let (sk, skb): (*const u8, u64) = (ctx.arg(0), ctx.arg(1));
        if sk.is_null() {
            // A packet for no socket.
        } else if skb == 0 {
            tracepoint::reset(&Sock::new(sk));
        } else {
            orphan::answered(sk as u64);
        }
    }
}

again! {
    /// A socket comes to its end, once, and before its memory is freed.
    ///
    /// kernel: v4.16.. include/trace/events/tcp.h: tcp_destroy_sock(struct sock *sk)
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    tracepoint_destroy_sock, tracepoint_destroy_sock_2, tracepoint_destroy_sock_3 = |ctx: BtfTracePointContext| {
        tracepoint::destroy(&Sock::<Typed>::new(ctx.arg(0)));
    }
}

/// A system call returns; if it is close(2), what it released is released, since v6.6.
///
/// The tracepoint itself costs less than `syscalls:sys_exit_close`, and is never skipped because
/// another program runs on the CPU.
///
/// kernel: v2.6.. include/trace/events/syscalls.h: sys_exit(struct pt_regs *regs, long ret)
#[btf_tracepoint(function = "sys_exit")]
#[inline(always)]
fn tracepoint_sys_exit(ctx: BtfTracePointContext) -> i32 {
    // Of a socket, close(2) always succeeds.
    if ctx.arg::<u64>(1) == 0 && tracepoint::is_close(&Registers::new(ctx.arg(0))) {
        tracepoint::exit_syscall();
    }
    0
}
