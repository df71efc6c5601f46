//! The kernel's clocks.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64};

/// `CLOCK_MONOTONIC`, nanoseconds.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The lower half of the kernel's tick counter (`jiffies`).
#[expect(clippy::cast_possible_truncation, reason = "the lower half")]
pub(crate) fn ticks() -> u32 {
    // SAFETY: has no preconditions.
    (unsafe { bpf_jiffies64() }) as u32
}
