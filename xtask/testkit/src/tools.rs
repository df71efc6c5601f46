//! Programs that tests call.

use std::path::{Path, PathBuf};

/// A tool where `cargo xtask setup` puts it, or else by its name, on the path.
pub fn tool(name: &str) -> PathBuf {
    let own = folder().join(name);
    if own.is_file() { own } else { name.into() }
}

/// Where `cargo xtask setup` puts tools.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin")
}
