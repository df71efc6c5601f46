//! The kernel's clocks.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64};

/// `CLOCK_MONOTONIC`, nanoseconds.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// Nanoseconds since `start_ns`; 0 if that is in the future.
pub(crate) fn elapsed_ns(start_ns: u64) -> u64 {
    let elapsed_ns = now_ns().wrapping_sub(start_ns);
    // A saturating subtraction takes three times as many instructions.
    if elapsed_ns.cast_signed() > 0 {
        elapsed_ns
    } else {
        0
    }
}

/// The lower half of the kernel's tick counter (`jiffies`).
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
pub(crate) fn ticks() -> u32 {
    // SAFETY: has no preconditions.
    (unsafe { bpf_jiffies64() }) as u32
}
