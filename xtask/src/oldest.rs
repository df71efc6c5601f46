//! The oldest supported Rust, `rust-version` in the manifest.

use anyhow::Result;

use crate::shell::{command, run};

/// Returns the toolchain's name for rustup. A version of two parts means its first release, `.0`.
fn toolchain() -> String {
    let version = env!("CARGO_PKG_RUST_VERSION");
    match version.split('.').count() {
        2 => format!("{version}.0"),
        _ => version.to_owned(),
    }
}

/// Returns whether rustup has that toolchain.
pub(crate) fn is_present() -> bool {
    command("rustup")
        .args(["run", &toolchain(), "rustc", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Installs that toolchain with rustup, beside the one in use.
pub(crate) fn install() -> Result<()> {
    run(command("rustup")
        .args(["toolchain", "install", &toolchain()])
        .args(["--profile", "minimal", "--no-self-update"]))
}

/// Checks these targets of the whole workspace with that toolchain.
pub(crate) fn check(targets: &[&str]) -> Result<()> {
    run(command("rustup")
        .args(["run", &toolchain(), "cargo", "check"])
        .args(["--locked", "--workspace", "--target-dir", "target/oldest"])
        .args(targets))
}
