//! A QEMU that is recent enough for kernels that patch their own code.
//!
//! Debian 12's version, 7.2, translates code without a lock against another CPU that writes it. A kernel that attaches
//! to or detaches from a tracepoint while another CPU runs that code occasionally crashes ("Oops: int3"): when
//! `raw_syscalls` is switched on and off beside a busy `dd`, within a hundred times.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;

use super::tools::{cached_tool, link_tool};
use crate::apt::{self, BACKPORTS};
use crate::architecture::Architecture;
use crate::shell::{command, output, tool};
use crate::{cache, machine};

/// The first version that locks pages before translating them.
const ENOUGH: (u32, u32) = (8, 1);

/// Returns whether a recent enough QEMU is available.
pub(super) fn is_present(architecture: Architecture) -> bool {
    let version = |program: &Path| output(command(program).arg("--version")).ok();
    tool(&machine::qemu_name(architecture))
        .and_then(|program| version(&program))
        .is_some_and(|version| is_enough(&version))
}

fn is_enough(version: &str) -> bool {
    let number = version.strip_prefix("QEMU emulator version ");
    let mut parts = number.unwrap_or_default().split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= ENOUGH,
        _ => false,
    }
}

/// Unpacks QEMU from Debian's backports into the cache. It uses the libraries of the installed version.
pub(super) fn install(architecture: Architecture) -> Result<()> {
    let name = machine::qemu_name(architecture);
    let packages = [package(architecture), "qemu-system-data", "seabios"];
    let folder = cached_tool("qemu", packages);
    let start = folder.join("start");
    if !start.exists() {
        apt::update_lists()?;
        let partial = cache::partial(&cache::folder().join("tools"), "qemu")?;
        for package in packages {
            let package = format!("{package}/{BACKPORTS}");
            apt::unpack(apt::isolated("apt-get"), &package, &partial)?;
        }
        let script = script(&folder, &name);
        fs::write(partial.join("start"), script)?;
        fs::set_permissions(partial.join("start"), fs::Permissions::from_mode(0o755))?;
        fs::rename(&partial, &folder)?;
    }
    link_tool(&name, &start)
}

/// Returns the Debian package of QEMU for an architecture.
pub(super) const fn package(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Amd64 => "qemu-system-x86",
        Architecture::Arm64 => "qemu-system-arm",
    }
}

/// Returns a script that starts it with its own firmware; by default, it looks in the paths of an installed QEMU.
fn script(folder: &Path, name: &str) -> String {
    let usr = folder.join("usr");
    let usr = usr.display();
    format!(
        "#!/bin/sh\nexec '{usr}/bin/{name}' -L '{usr}/share/qemu' -L '{usr}/share/seabios' \"$@\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_version_is_enough_unless_older() {
        for (version, enough) in [
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", false),
            ("QEMU emulator version 8.0.5", false),
            ("QEMU emulator version 8.1.0", true),
            ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", true),
            ("QEMU emulator version unknown", false),
            ("", false),
        ] {
            assert_eq!(is_enough(version), enough, "{version}");
        }
    }
}
