//! What test machines in QEMU, and building for another architecture, need.

use anyhow::{Context as _, Result};

use super::{Need, has};
use crate::apt;
use crate::architecture::Architecture;
use crate::debian;
use crate::kernels::{Entry, TABLE};
use crate::setup::{qemu, rust};

/// Needs of a machine in QEMU.
pub(super) const MACHINE: &[Need] = &[
    Need {
        what: "QEMU for x86",
        why: "boots the kernels that the tests run on",
        present: || qemu::is_present(Architecture::Amd64),
        packages: &[qemu::package(Architecture::Amd64), "debian-archive-keyring"],
        then: Some(|| qemu::install(Architecture::Amd64)),
        elsewhere: "install qemu-system-x86_64, 8.1 or later",
    },
    Need {
        what: "cpio",
        why: "packs its file system",
        present: || has(&["cpio"]),
        packages: &["cpio"],
        then: None,
        elsewhere: "install cpio",
    },
    Need {
        what: "depmod and modprobe",
        why: "find and load kernel modules that the tests use",
        present: || has(&["depmod", "modprobe"]),
        packages: &["kmod"],
        then: None,
        elsewhere: "install kmod",
    },
    Need {
        what: "Debian 12 with systemd",
        why: "the user space of that machine; made in the cache",
        present: || debian::is_present(Architecture::Amd64),
        packages: &["mmdebstrap"],
        then: Some(|| debian::make(Architecture::Amd64)),
        elsewhere: "only made on Debian, by mmdebstrap",
    },
    Need {
        what: "Debian's kernels",
        why: "to test on; unpacked in the cache, not installed",
        present: || kernels_of(Architecture::Amd64).all(Entry::is_present),
        packages: &["debian-archive-keyring"],
        then: Some(|| unpack_kernels(Architecture::Amd64)),
        elsewhere: "only found on Debian",
    },
];

/// Needs of building for arm64 on another architecture.
pub(super) const CROSS: &[Need] = &[
    Need {
        what: "Rust's library for arm64",
        why: "what is built for arm64 is linked of it; unpacked in the cache, not installed",
        present: || {
            Architecture::here() == Architecture::Arm64
                || rust::sysroot(Architecture::Arm64).is_dir()
        },
        packages: &["debian-archive-keyring"],
        then: Some(|| rust::unpack_sysroot(Architecture::Arm64)),
        elsewhere: "only found on Debian",
    },
    Need {
        what: "GCC for arm64",
        why: "links what is built for arm64",
        present: || Architecture::here() == Architecture::Arm64 || has(&["aarch64-linux-gnu-gcc"]),
        packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        then: None,
        elsewhere: "install a GCC that is called aarch64-linux-gnu-gcc",
    },
];

/// Needs of an arm64 machine in QEMU.
pub(super) const MACHINE_ARM64: &[Need] = &[
    Need {
        what: "QEMU for arm64",
        why: "boots the kernels of arm64 that the tests run on",
        present: || qemu::is_present(Architecture::Arm64),
        packages: &[qemu::package(Architecture::Arm64), "debian-archive-keyring"],
        then: Some(|| qemu::install(Architecture::Arm64)),
        elsewhere: "install qemu-system-aarch64, 8.1 or later",
    },
    Need {
        what: "Debian 12 for arm64",
        why: "the user space of that machine; made in the cache, by emulated programs",
        present: || debian::is_present(Architecture::Arm64),
        packages: &["mmdebstrap", "qemu-user-static", "arch-test"],
        then: Some(|| debian::make(Architecture::Arm64)),
        elsewhere: "only made on Debian, by mmdebstrap",
    },
    Need {
        what: "Debian's kernels for arm64",
        why: "to test on; unpacked in the cache, not installed",
        present: || kernels_of(Architecture::Arm64).all(Entry::is_present),
        packages: &["debian-archive-keyring"],
        then: Some(|| unpack_kernels(Architecture::Arm64)),
        elsewhere: "only found on Debian",
    },
];

/// Returns the lines of the table for an architecture.
fn kernels_of(architecture: Architecture) -> impl Iterator<Item = &'static Entry> {
    TABLE
        .iter()
        .filter(move |entry| entry.architecture == architecture)
}

/// Unpacks every kernel of an architecture in the table that the cache lacks.
fn unpack_kernels(architecture: Architecture) -> Result<()> {
    apt::update_lists()?;
    // Asked before each, since two lines may share a package.
    for entry in kernels_of(architecture).filter(|entry| !entry.is_present()) {
        entry
            .unpack()
            .with_context(|| format!("the kernel {}", entry.label))?;
    }
    Ok(())
}
