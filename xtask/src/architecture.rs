//! The architectures that lingerd is built for, and how it is built for another than this machine's.

use std::env::consts::ARCH;
use std::process::Command;

use clap::ValueEnum;

use crate::setup;
use crate::shell::root;

/// An architecture, by Debian's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// x86-64
    Amd64,
    /// aarch64
    Arm64,
}

impl Architecture {
    /// That of this machine.
    pub fn here() -> Self {
        if ARCH == Self::Arm64.name() {
            Self::Arm64
        } else {
            Self::Amd64
        }
    }

    /// As Debian calls it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// As Rust, the kernel and QEMU call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Has cargo build for it: for another than this machine's by Debian's compiler, whose standard library for
    /// others is a package.
    pub(crate) fn build(self, cargo: &mut Command) {
        if self == Self::here() {
            return;
        }
        let target = format!("{}-unknown-linux-gnu", self.name());
        let variable = target.replace('-', "_");
        let linker = format!("{}-linux-gnu-gcc", self.name());
        let sysroot = setup::sysroot(self).display().to_string();
        cargo
            .args(["--target", &target])
            .env("RUSTC", setup::DEBIAN_RUSTC)
            // What runs in the build is of another compiler than what is built for this machine.
            .env("CARGO_TARGET_DIR", root().join("target").join(self.name()))
            .env(format!("CC_{variable}"), &linker);
        let settings = [
            ("LINKER", linker),
            ("RUSTFLAGS", format!("--sysroot={sysroot}")),
        ];
        for (name, value) in settings {
            let name = format!("CARGO_TARGET_{}_{name}", variable.to_uppercase());
            cargo.env(name, value);
        }
    }
}
