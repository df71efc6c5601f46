//! Builds the project's executables, and finds where cargo put them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::architecture::Architecture;
use crate::setup;
use crate::shell::{cargo, cargo_by, each_line, root, run, tools};

/// The executables that tests on other kernels need.
#[derive(Clone)]
pub struct Executables {
    /// The daemon, as it is shipped.
    pub lingerd: PathBuf,
    /// The scenario tests.
    pub scenarios: PathBuf,
    /// The tests of units.
    pub systemd: PathBuf,
}

/// Builds the daemon as it is shipped, and the tests that run with it on other kernels.
pub fn executables(architecture: Architecture) -> Result<Executables> {
    let built = build_for_tests(
        "test",
        &["--no-run", "--test", "scenarios", "--test", "systemd"],
        architecture,
    )?;
    Ok(Executables {
        lingerd: lingerd(architecture)?,
        scenarios: find(&built, "test", "scenarios")?,
        systemd: find(&built, "test", "systemd")?,
    })
}

/// Builds all tests except those that only run by name; returns cargo's messages about the artifacts.
pub fn tests() -> Result<Vec<Value>> {
    let kinds = ["--no-run", "--lib", "--bins", "--tests"];
    build_for_tests("test", &kinds, Architecture::here())
}

/// Checks that the daemon, with its BPF programs, compiles for arm64.
pub fn check_arm64() -> Result<()> {
    let mut cargo = cargo();
    cargo.args(["check", "--package", "linger-daemon", "--bin", "lingerd"]);
    build_for(Architecture::Arm64, &mut cargo);
    run(&mut cargo)
}

/// Builds the program that writes the manual pages and completions.
pub fn pages() -> Result<PathBuf> {
    let built = build_for_tests("build", &["--example", "pages"], Architecture::here())?;
    find(&built, "example", "pages")
}

/// Builds the BPF programs that only count calls, the baseline that the daemon is compared with.
pub fn floor() -> Result<PathBuf> {
    let built = build_for_tests("build", &["--example", "floor"], Architecture::here())?;
    find(&built, "example", "floor")
}

/// Builds the daemon as it is shipped.
pub fn lingerd(architecture: Architecture) -> Result<PathBuf> {
    shipped(architecture, Libraries::Unlisted)
}

/// Whether a binary embeds the list of its libraries, for `cargo audit bin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libraries {
    /// It does, as published binaries do.
    Listed,
    /// It does not, and needs no extra tool to build.
    Unlisted,
}

/// Builds the daemon as it is shipped, with or without the list of its libraries.
pub(crate) fn shipped(architecture: Architecture, libraries: Libraries) -> Result<PathBuf> {
    let built = build(&mut release("build", architecture, libraries)?)?;
    find(&built, "bin", "lingerd")
}

/// Builds the daemon for any distribution, linked statically with the C library so that it does not depend on the
/// system's; puts it into `folder`.
///
/// Only linking differs, so its dependencies are built once.
pub fn lingerd_static(
    architecture: Architecture,
    libraries: Libraries,
    folder: &Path,
) -> Result<PathBuf> {
    let mut rustc = release("rustc", architecture, libraries)?;
    let built = build(rustc.args(["--", "-Ctarget-feature=+crt-static"]))?;
    fs::create_dir_all(folder)?;
    let to = folder.join("lingerd");
    fs::copy(find(&built, "bin", "lingerd")?, &to)?;
    // The static binary has overwritten the dynamic one in cargo's folder.
    shipped(architecture, libraries)?;
    Ok(to)
}

/// Makes cargo build for an architecture: if it is not this machine's, with Debian's compiler, since Debian packages
/// that compiler's standard library for other architectures.
pub(crate) fn build_for(architecture: Architecture, cargo: &mut Command) {
    if architecture == Architecture::here() {
        return;
    }
    let name = architecture.name();
    let target = format!("{name}-unknown-linux-gnu");
    let variable = target.replace('-', "_");
    let linker = format!("{name}-linux-gnu-gcc");
    cargo
        .args(["--target", &target])
        .env("RUSTC", setup::DEBIAN_RUSTC)
        // Another compiler builds the build scripts, too: they are kept apart from those of this machine's builds.
        .env("CARGO_TARGET_DIR", root().join("target").join(name))
        .env(format!("CC_{variable}"), &linker);
    let settings = [("LINKER", linker), ("RUSTFLAGS", sysroot(architecture))];
    for (setting, value) in settings {
        let setting = format!("CARGO_TARGET_{}_{setting}", variable.to_uppercase());
        cargo.env(setting, value);
    }
}

/// Returns the option of rustc for the standard library of another architecture.
fn sysroot(architecture: Architecture) -> String {
    format!("--sysroot={}", setup::sysroot(architecture).display())
}

/// Returns the command of a release build of the daemon, reproducible bit for bit in any folder and home directory.
///
/// Ignores flags for rustc in the environment.
fn release(command: &str, architecture: Architecture, libraries: Libraries) -> Result<Command> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let mut flags = vec![
        format!("--remap-path-prefix={}=/linger", root().display()),
        format!("--remap-path-prefix={}=/cargo", home.display()),
    ];
    if architecture != Architecture::here() {
        flags.push(sysroot(architecture));
    }
    let mut cargo = match libraries {
        Libraries::Listed => cargo_by(tools().join("cargo-auditable")),
        Libraries::Unlisted => cargo(),
    };
    if libraries == Libraries::Listed {
        cargo.arg("auditable");
    }
    cargo.arg(command).args(SHIPPED);
    build_for(architecture, &mut cargo);
    // Takes precedence over the flags for a target.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    Ok(cargo)
}

/// Makes cargo report each artifact as a JSON object.
const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// Selects the shipped target alone, so that dependencies lack the features that only tests enable.
const SHIPPED: [&str; 6] = [
    "--release",
    "--package",
    "linger-daemon",
    "--bin",
    "lingerd",
    MESSAGES,
];

/// Builds targets with the profile of tests.
///
/// Always builds for the whole workspace, so that dependencies have the same features every time and are built once.
fn build_for_tests(
    command: &str,
    targets: &[&str],
    architecture: Architecture,
) -> Result<Vec<Value>> {
    let mut cargo = cargo();
    cargo.args([command, "--workspace", MESSAGES]).args(targets);
    build_for(architecture, &mut cargo);
    build(&mut cargo)
}

/// Runs the build; returns cargo's messages about the artifacts.
fn build(cargo: &mut Command) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let success = each_line(cargo, |line| {
        messages.extend(serde_json::from_str(line));
    })?;
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
    fn executable_is_distinguished_from_library_and_tests_of_the_same_name() {
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
