//! Copies of programs: on a kernel that skips programs, some are attached to the same hook under several names.
//!
//! A preemptible kernel skips a program while another thread is preempted inside it on the same CPU, but not its
//! copies. Usually all of them run, so each must notice what an earlier one has done.

use linger_ebpf::Constants;

use crate::kernel::constant;

/// Whether copies of the programs that decide closes or see RSTs may run for the same event.
pub(crate) fn copies_may_run() -> bool {
    constant!(copies).value() != Constants::NO_COPIES
}

/// Whether copies of the programs that end closes may run too.
pub(crate) fn copies_may_run_at_ends() -> bool {
    constant!(copies).value() == Constants::COPIES_OF_ENDS
}

/// Whether closes and orphans end before their socket does, where a hook sees that coming: the program at the end of the
/// socket may be skipped.
pub(crate) fn ends_are_early() -> bool {
    constant!(copies).value() == Constants::EARLY_ENDS
}
