//! Programs for the same hooks as those of `main.rs`, with the same names, that only count their runs. They show
//! whether a hook is reached and, in benchmarks, the floor: the least that an attached program can cost.

#![no_std]
#![no_main]

mod bare;

use aya_ebpf::{
    macros::{btf_tracepoint, cgroup_sock, fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::PerCpuArray,
    programs::{
        BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext,
        RetProbeContext, SockContext,
    },
};

use linger_ebpf::{PROGRAM_COUNT, program_index};

/// How often each program ran, in the order of [`linger_ebpf::PROGRAMS`].
#[map]
static RUNS: PerCpuArray<u64> = PerCpuArray::with_max_entries(PROGRAM_COUNT, 0);

#[inline]
fn count(program: u32) {
    if let Some(runs) = RUNS.get_ptr_mut(program) {
        // SAFETY: a map value of this CPU. A program that interrupts this one may count at the same time;
        // then one of the runs is missed.
        unsafe { *runs += 1 };
    }
}

/// Defines programs: the kind of each, its name, its context, its result.
macro_rules! programs {
    ($(#[$kind:meta] $name:ident($context:ty) -> $type:ty { $result:expr })+) => {
        $(
            #[$kind]
            fn $name(_: $context) -> $type {
                count(const { program_index(stringify!($name)).unwrap() });
                $result
            }
        )+
    };
}

programs! {
    #[fentry] fentry_tcp_close(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_inner_close(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_active_reset(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_timer(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_orderly_end(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_reset(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_v4_answer(FEntryContext) -> i32 { 0 }
    #[fentry] fentry_v6_answer(FEntryContext) -> i32 { 0 }
    #[fexit] fexit_check_oom(FExitContext) -> i32 { 0 }
    #[fexit] fexit_listen_stop(FExitContext) -> i32 { 0 }
    #[kprobe] kprobe_tcp_close(ProbeContext) -> u32 { 0 }
    #[kprobe] kprobe_inner_close(ProbeContext) -> u32 { 0 }
    #[kprobe] kprobe_active_reset(ProbeContext) -> u32 { 0 }
    #[kprobe] kprobe_timer(ProbeContext) -> u32 { 0 }
    #[kprobe] kprobe_reset(ProbeContext) -> u32 { 0 }
    #[kprobe] kprobe_v4_answer(ProbeContext) -> u32 { 0 }
    #[kprobe] kprobe_v6_answer(ProbeContext) -> u32 { 0 }
    #[kretprobe] kretprobe_inner_close(RetProbeContext) -> u32 { 0 }
    #[btf_tracepoint] destroy_sock(BtfTracePointContext) -> i32 { 0 }
    #[raw_tracepoint] exit_mmap(RawTracePointContext) -> i32 { 0 }
    #[btf_tracepoint] tracepoint_set_state(BtfTracePointContext) -> i32 { 0 }
    #[raw_tracepoint] tracepoint_send_reset(RawTracePointContext) -> i32 { 0 }
    #[raw_tracepoint] reset_answers(RawTracePointContext) -> i32 { 0 }
    #[raw_tracepoint] socket_answers(RawTracePointContext) -> i32 { 0 }
    #[raw_tracepoint] settle(RawTracePointContext) -> i32 { 0 }
    #[raw_tracepoint] missed_end(RawTracePointContext) -> i32 { 0 }
    #[btf_tracepoint] tracepoint_destroy_sock(BtfTracePointContext) -> i32 { 0 }
    #[btf_tracepoint] tracepoint_sys_exit(BtfTracePointContext) -> i32 { 0 }
    #[cgroup_sock(sock_release)] sock_release(SockContext) -> i32 { 1 }
    #[cgroup_sock(sock_release)] cgroup_sock_release(SockContext) -> i32 { 1 }
}
