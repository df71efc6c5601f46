//! Events that are hooked more than once.

use linger_ebpf::Constants;

use crate::kernel::constant;

/// Whether several copies of a program may run for the same event. A kernel that preempts a thread
/// inside a program skips that program on that CPU meanwhile, so copies of it are attached under other
/// names.
pub(crate) fn is_hooked_again() -> bool {
    constant!(again).value() != 0
}

/// Whether the ends of closes, too, are hooked more than once.
pub(crate) fn are_ends_hooked_again() -> bool {
    constant!(again).value() == Constants::ENDS_TOO
}
