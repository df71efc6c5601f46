//! Memory that the allocator of the C library keeps although nothing uses it.

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
