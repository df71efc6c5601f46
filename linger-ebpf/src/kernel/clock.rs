//! The kernel's clocks.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64};

/// `CLOCK_MONOTONIC`, nanoseconds.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

/// The kernel's tick counter.
pub(crate) fn jiffies() -> u64 {
    // SAFETY: has no preconditions.
    unsafe { bpf_jiffies64() }
}
