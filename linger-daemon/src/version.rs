//! Version and revision of this build.

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit that this build was made from; `unknown` outside a repository, unless the build set `LINGER_REVISION`.
pub const REVISION: &str = env!("LINGER_REVISION");
