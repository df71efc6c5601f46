//! Whether the same event is hooked more than once.

/// 1 if this kernel may skip programs, and each event is therefore hooked more than once.
#[unsafe(export_name = "LINGER_AGAIN")]
static AGAIN: u32 = 0;

/// Whether several copies of a program may run for the same event. A kernel that preempts a thread
/// inside a program skips that program on that CPU meanwhile, so copies of it are attached under other
/// names.
pub(crate) fn is_hooked_again() -> bool {
    // SAFETY: reads a static; volatile because the value is replaced at load.
    unsafe { core::ptr::read_volatile(&raw const AGAIN) != 0 }
}
