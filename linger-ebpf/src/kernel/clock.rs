//! The kernel's clocks.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64};

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The kernel's clock of ticks.
#[inline(always)]
pub(crate) fn jiffies() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_jiffies64() }
}
