//! Building the project's executables, and where cargo put them.

use std::env::consts::ARCH;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell::{cargo, each_line};

/// What the tests on other kernels run with.
pub(crate) struct Executables {
    /// The daemon.
    pub(crate) lingerd: PathBuf,
    /// The scenario tests.
    pub(crate) scenarios: PathBuf,
    /// The tests of units.
    pub(crate) systemd: PathBuf,
}

/// Builds the daemon as it is shipped.
pub(crate) fn lingerd() -> Result<PathBuf> {
    let built = build(&["build", "--bin", "lingerd"])?;
    find(&built, "bin", "lingerd")
}

/// Builds the daemon as it is shipped to systems of all kinds: with the C library in it, so that it
/// needs none, and no version of one.
pub(crate) fn lingerd_static() -> Result<PathBuf> {
    // With a target named, flags are not for what runs during the build.
    let target = host_target();
    let name = target.to_uppercase().replace('-', "_");
    let built = build_with(
        cargo().env(
            format!("CARGO_TARGET_{name}_RUSTFLAGS"),
            "-C target-feature=+crt-static",
        ),
        &["build", "--bin", "lingerd", "--target", &target],
    )?;
    find(&built, "bin", "lingerd")
}

/// The target that is this machine's own, for builds that name it.
pub(crate) fn host_target() -> String {
    format!("{ARCH}-unknown-linux-gnu")
}

/// Builds what writes the manual pages and completions.
pub(crate) fn pages() -> Result<PathBuf> {
    let built = build(&["build", "--example", "pages"])?;
    find(&built, "example", "pages")
}

/// Builds the programs that only count, which the daemon is measured beside.
pub(crate) fn floor() -> Result<PathBuf> {
    let built = build(&["build", "--example", "floor"])?;
    find(&built, "example", "floor")
}

/// Builds the daemon as it is shipped, and the tests that run with it on other kernels.
pub(crate) fn executables() -> Result<Executables> {
    let built = build(&[
        "test",
        "--no-run",
        "--test",
        "scenarios",
        "--test",
        "systemd",
    ])?;
    Ok(Executables {
        lingerd: lingerd()?,
        scenarios: find(&built, "test", "scenarios")?,
        systemd: find(&built, "test", "systemd")?,
    })
}

/// What cargo says that it made, one JSON object each.
fn build(args: &[&str]) -> Result<Vec<Value>> {
    build_with(&mut cargo(), args)
}

fn build_with(cargo: &mut Command, args: &[&str]) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let success = each_line(
        cargo
            .args(args)
            .args(["--release", "--package", "linger-daemon"])
            .arg("--message-format=json-render-diagnostics"),
        |line| messages.extend(serde_json::from_str(line)),
    )?;
    if !success {
        bail!("the build failed; the reason is above");
    }
    Ok(messages)
}

fn find(messages: &[Value], kind: &str, name: &str) -> Result<PathBuf> {
    messages
        .iter()
        .filter(|message| message["target"]["name"] == name && message["target"]["kind"][0] == kind)
        .find_map(|message| message["executable"].as_str())
        .map(PathBuf::from)
        .with_context(|| format!("cargo built no {kind} {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_is_told_from_library_and_tests_of_the_same_name() {
        let message = |kind: &str, file: Option<&str>| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "target": { "name": "lingerd", "kind": [kind] },
                "executable": file,
            })
        };
        let messages = [
            message("lib", None),
            message("test", Some("/t/deps/lingerd-1")),
            message("bin", Some("/t/lingerd")),
        ];
        assert_eq!(
            find(&messages, "bin", "lingerd").unwrap(),
            PathBuf::from("/t/lingerd")
        );
        assert!(find(&messages, "bin", "other").is_err());
    }
}
