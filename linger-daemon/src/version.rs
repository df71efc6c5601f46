//! What this build is.

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this build was made from, `unknown` if it was not made in a repository.
pub const REVISION: &str = env!("LINGER_REVISION");
