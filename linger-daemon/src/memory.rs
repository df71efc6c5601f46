//! Memory that the daemon would hold although nothing uses it.

/// Has the kernel give this process no huge pages: they would double what it holds, for it needs a few
/// hundred kilobytes here and there. Where the kernel refuses, all else works.
pub fn refuse_huge_pages() {
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::debug!("huge pages are not refused: {error}");
    }
}

/// Has all threads take memory from one place, so that all of it can be [`release`]d: of another
/// thread's place what is free at the end is kept. To be called before there are threads.
pub fn keep_together() {
    #[cfg(target_env = "gnu")]
    // SAFETY: changes where memory is taken from, and nothing else.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Returns to the system what nothing uses. For after what takes much, and comes seldom.
pub fn release() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
