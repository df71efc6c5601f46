//! Keeps the daemon from holding memory that it does not use.

/// Disables huge pages for this process: they would double its memory, because it needs a few hundred kilobytes here
/// and there. If the kernel refuses, everything else works.
pub fn refuse_huge_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!("huge pages are not refused: {error}");
    }
}

/// Makes all threads allocate from one arena, so that all free memory can be [`release`]d: the free end of another
/// thread's arena would be kept. Call it before other threads are started.
pub fn keep_together() {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes where memory is taken from, and nothing else.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Returns unused memory to the system. Call it after rare operations that need much memory.
pub fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
