//! Whether the same is hooked more than once.

/// Whether what this kernel skips is hooked more than once.
#[unsafe(export_name = "LINGER_AGAIN")]
static AGAIN: u32 = 0;

/// Whether the same program may have run for the same event. A kernel that preempts threads inside a program
/// skips it on that CPU meanwhile; then the same is hooked again, under other names.
pub(crate) fn is_hooked_again() -> bool {
    // SAFETY: reads a static; volatile because the value is replaced at load.
    unsafe { core::ptr::read_volatile(&raw const AGAIN) != 0 }
}
