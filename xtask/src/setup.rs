//! Finds what building and testing need beyond Rust, and installs what is missing.

mod grafana;
mod needs;
mod qemu;
mod rust;
mod tools;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use self::needs::Need;
pub(crate) use self::rust::sysroot;
pub use self::rust::{DEBIAN_RUSTC, has_debian_rustc};
use crate::architecture::Architecture;
use crate::cache;
use crate::shell::{command, run};

/// What the machine is to be made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// `cargo build`, `cargo xtask run`
    Build,
    /// `cargo xtask package`, besides building
    Package,
    /// `cargo xtask package --release`, besides packages of both architectures
    Release,
    /// `cargo xtask lab stack`, besides building
    Stack,
    /// `cargo xtask lab bench`, besides building
    Bench,
    /// `cargo xtask docs`
    Docs,
    /// `cargo xtask fuzz`, besides building
    Fuzz,
    /// `cargo xtask test` and `vm`, besides all of this
    Test,
    /// `cargo xtask package --arch arm64`, besides packages for this machine
    PackageArm64,
    /// `cargo xtask test --full`, and `vm` on kernels of arm64, besides what tests need
    FullTest,
}

impl Purpose {
    /// Returns the purpose that covers tests on machines of this architecture.
    pub fn test_on(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Amd64 => Self::Test,
            Architecture::Arm64 => Self::FullTest,
        }
    }
}

/// Installs what is missing; quick and silent if nothing is.
///
/// Fails where it cannot install by itself, and says what to install and how.
pub fn ensure(purpose: Purpose) -> Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    println!("linger needs, and this machine lacks:");
    for need in &missing {
        println!("  {:<26} {}", need.what, need.why);
    }
    if !is_debian() {
        println!("\nThis is not Debian, so please do this by hand:");
        for need in &missing {
            println!("  {:<26} {}", need.what, need.elsewhere);
        }
        bail!("{} tools are missing: see above for each", missing.len());
    }
    let _lock = cache::lock()?;
    // Another process may have installed some of it in the meantime.
    let missing = self::missing(purpose);
    install_packages(&missing)?;
    for need in &missing {
        if let Some(then) = need.then {
            println!("Preparing {}", need.what);
            then().with_context(|| format!("prepare {}", need.what))?;
        }
        if !(need.present)() {
            bail!(
                "{} is still not found after its installation: {}",
                need.what,
                need.elsewhere
            );
        }
    }
    println!("All tools are in place.");
    Ok(())
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    needs::of(purpose)
        .iter()
        .flat_map(|needs| needs.iter())
        .filter(|need| !(need.present)())
        .collect()
}

/// Updates the package lists, and installs the Debian packages of these needs that are missing.
fn install_packages(needs: &[&Need]) -> Result<()> {
    let wanted: BTreeSet<&str> = needs
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        let wanted = Vec::from_iter(wanted).join(" ");
        bail!(
            "installing packages takes root. As root run: apt-get update && apt-get install \
             --no-install-recommends {wanted}; then run this command again"
        );
    }
    update_lists()?;
    run(command("apt-get")
        .args(["install", "--yes", "--no-install-recommends", "--quiet"])
        // Keeps progress output out of logs.
        .args(["-o", "Dpkg::Use-Pty=0"])
        .args(wanted)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Updates the package lists, once per process: a fresh machine may have none, or old ones whose packages are gone.
fn update_lists() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    let is_root = nix::unistd::geteuid().is_root();
    if DONE.set(()).is_err() || !is_root {
        return Ok(());
    }
    run(command("apt-get").args(["update", "--quiet=2"]))
}

fn is_installed(package: &str) -> bool {
    command("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

/// Mounts tracefs if it is not mounted: the `kprobe` plan makes its return probes there.
pub fn mount_tracefs() -> Result<()> {
    let place = Path::new("/sys/kernel/tracing");
    let is_root = nix::unistd::geteuid().is_root();
    // Without root it cannot be mounted; lingerd reports what it lacks.
    if place.join("events").is_dir() || !place.is_dir() || !is_root {
        return Ok(());
    }
    println!("Mounting tracefs: the kprobe plan makes its return probes there");
    run(command("mount")
        .args(["-t", "tracefs", "tracefs"])
        .arg(place))
}
