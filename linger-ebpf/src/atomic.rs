//! Changing what another program, or another CPU, may change at the same time.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

/// Adds to a counter in a map.
///
/// A counter of one CPU still has several writers: tracing programs can be preempted, and soft
/// interrupts come in between. Hence an atomic add, one instruction. (`AtomicU64` has no
/// `fetch_add` on this target, which lacks compare-and-swap.)
#[inline(always)]
pub(crate) fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the pointer is to an aligned u64 in a map value, which outlives the program, and
    // which every writer adds to atomically.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, amount) };
}

/// Puts a value where `expected` stands; whether it stood there.
#[inline(always)]
pub(crate) fn replace(place: *mut u64, expected: u64, value: u64) -> bool {
    // SAFETY: as for `add`.
    let (_, replaced) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            place, expected, value,
        )
    };
    replaced
}
