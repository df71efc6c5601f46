//! The oldest Rust that the manifest says to be enough.

use anyhow::Result;

use crate::shell::{command, run};

/// As rustup calls it: the first release of a version of two parts.
fn toolchain() -> String {
    let version = env!("CARGO_PKG_RUST_VERSION");
    match version.split('.').count() {
        2 => format!("{version}.0"),
        _ => version.to_owned(),
    }
}

/// Whether rustup has it.
pub(crate) fn is_present() -> bool {
    command("rustup")
        .args(["run", &toolchain(), "rustc", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Has rustup bring it, beside the toolchain in use.
pub(crate) fn install() -> Result<()> {
    run(command("rustup")
        .args(["toolchain", "install", &toolchain()])
        .args(["--profile", "minimal", "--no-self-update"]))
}

/// Checks these targets of the whole workspace with it.
pub(crate) fn check(targets: &[&str]) -> Result<()> {
    run(command("rustup")
        .args(["run", &toolchain(), "cargo", "check"])
        .args(["--locked", "--workspace", "--target-dir", "target/oldest"])
        .args(targets))
}
