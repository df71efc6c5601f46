//! The tools that tests run.

use std::path::{Path, PathBuf};

/// Returns the path where `cargo xtask setup` puts a tool, or else its name, to be found on the path.
pub fn tool(name: &str) -> PathBuf {
    let own = folder().join(name);
    if own.is_file() { own } else { name.into() }
}

/// Returns the folder where `cargo xtask setup` puts tools.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin")
}
