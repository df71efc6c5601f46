//! The compiler and linker of the BPF programs, clippy for them, and the standard library for other architectures.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::tools::{Compiled, cached_tool, take, unpack_tool};
use crate::apt;
use crate::architecture::Architecture;
use crate::shell::{self, command, output, tools};

/// Debian's compiler, which the build prefers unless the environment names one.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Finds the compiler that `linger-ebpf/build.rs` will use.
pub(super) fn bpf_rustc() -> Option<PathBuf> {
    let candidates = match env::var_os("LINGER_BPF_RUSTC") {
        Some(named) => vec![named.into()],
        None => vec![PathBuf::from(DEBIAN_RUSTC), PathBuf::from("rustc")],
    };
    candidates.into_iter().find(|rustc| {
        has_component(rustc, "bpfel-unknown-none/lib") || has_component(rustc, "src/rust/library")
    })
}

/// Returns whether Debian's compiler builds the kernel side.
pub fn has_debian_rustc() -> bool {
    bpf_rustc().is_some_and(|rustc| rustc == Path::new(DEBIAN_RUSTC))
}

fn has_component(rustc: &Path, folder: &str) -> bool {
    // Runs in the workspace, whose toolchain may differ from the default one.
    let sysroot = command(rustc).args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        output.status.success()
            && Path::new(sysroot.trim())
                .join("lib/rustlib")
                .join(folder)
                .is_dir()
    })
}

/// The linker of BPF programs.
pub(super) const BPF_LINKER: Compiled = Compiled {
    name: "bpf-linker",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
};

/// Returns whether the build will find a linker that works.
pub(super) fn has_bpf_linker() -> bool {
    match env::var_os("LINGER_BPF_LINKER") {
        Some(named) => shell::works(Path::new(&named)),
        None if BPF_LINKER.is_linked() => shell::works(&BPF_LINKER.link()),
        // The build would use this link, made by another recipe, rather than a linker on the path.
        None if BPF_LINKER.link().is_symlink() => false,
        None => shell::find(BPF_LINKER.name).is_some_and(|linker| shell::works(&linker)),
    }
}

/// Returns whether clippy for the kernel side is present, or not needed because another compiler builds that side.
pub(super) fn has_bpf_clippy() -> bool {
    let other_rustc = bpf_rustc().is_some_and(|rustc| rustc != Path::new(DEBIAN_RUSTC));
    other_rustc || shell::works(&tools().join("bpf-clippy-driver"))
}

/// Unpacks the clippy of Debian's compiler.
pub(super) fn unpack_bpf_clippy() -> Result<()> {
    let package = format!("rust-web-clippy={}", rustc_version()?);
    unpack_tool(&package, "usr/bin/clippy-driver", "bpf-clippy-driver")
}

/// Returns the version of Debian's compiler, which libraries and clippy must match.
fn rustc_version() -> Result<String> {
    output(command("dpkg-query").args(["--show", "--showformat=${Version}", "rustc-web"]))
}

/// Returns the sysroot with the standard library of Debian's compiler for another architecture.
pub(crate) fn sysroot(architecture: Architecture) -> PathBuf {
    let recipe = (architecture.debian(), rustc_version().ok());
    cached_tool("rust-std", recipe).join("usr")
}

/// Unpacks the standard library of Debian's compiler for another architecture.
pub(super) fn unpack_sysroot(architecture: Architecture) -> Result<()> {
    apt::update_lists()?;
    let version = rustc_version()?;
    let package = format!("libstd-rust-web-dev:{}={version}", architecture.debian());
    let apt_get = apt::isolated("apt-get");
    take(apt_get, &package, "usr", &sysroot(architecture))
}
