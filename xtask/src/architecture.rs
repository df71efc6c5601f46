//! The architectures that lingerd is built for.

use std::env::consts::ARCH;

use clap::ValueEnum;

/// An architecture, by Debian's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    /// x86-64
    Amd64,
    /// aarch64
    Arm64,
}

impl Architecture {
    /// Returns the architecture of this machine.
    pub fn here() -> Self {
        if ARCH == Self::Arm64.name() {
            Self::Arm64
        } else {
            Self::Amd64
        }
    }

    /// Returns Debian's name of it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Returns the name used by Rust, the kernel and QEMU.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Returns the purpose, as in `cargo xtask setup --for`, that covers tests on machines of this architecture.
    pub(crate) const fn purpose(self) -> &'static str {
        match self {
            Self::Amd64 => "test",
            Self::Arm64 => "full-test",
        }
    }
}
