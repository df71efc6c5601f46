//! The file system of the test machine: `BusyBox`, the programs to run with their libraries, and
//! the kernel modules they need.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::archive::{self, Owner, run_into};
use crate::kernels::Kernel;
use crate::modules;
use crate::shell::{self, command, output};

const INIT: &str = include_str!("init.sh");

/// Makes the file system for one kernel in `folder`, and packs it; where the archive is.
///
/// `programs` are put into /bin; `work` is a line of shell that says what the machine is to do.
pub(crate) fn pack(
    folder: &Path,
    kernel: &Kernel,
    programs: &[PathBuf],
    work: &str,
) -> Result<PathBuf> {
    let tree = folder.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(tree.join("bin"))?;

    let busybox = shell::find("busybox").context("BusyBox is not installed")?;
    fs::copy(&busybox, tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), Permissions::from_mode(0o755))?;
    fs::write(tree.join("work"), work)?;

    for program in programs {
        add_program(&tree, program)?;
    }
    let modules = add_modules(&tree, &busybox, kernel)?;
    fs::write(tree.join("modules"), modules.join("\n"))?;
    let archive = folder.join("initramfs");
    archive::pack_all(&tree, Owner::Root, &archive)?;
    Ok(archive)
}

/// Adds a program, named as before, and the shared libraries it needs, where they are here.
fn add_program(tree: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    fs::copy(program, tree.join("bin").join(name))
        .with_context(|| format!("take {}", program.display()))?;
    for library in libraries(&output(command("ldd").arg(program))?) {
        let place = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("a library is in a folder")?)?;
        fs::copy(library, &place).with_context(|| format!("take {library}"))?;
    }
    Ok(())
}

/// The files that ldd names.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_whitespace().filter(|word| word.starts_with('/'))
}

/// Adds the modules; their places in the tree, in the order in which to load them.
fn add_modules(tree: &Path, busybox: &Path, kernel: &Kernel) -> Result<Vec<String>> {
    let Some(folder) = &kernel.modules else {
        return Ok(Vec::new());
    };
    fs::create_dir(tree.join("lib-modules"))?;
    modules::needed(kernel)?
        .iter()
        .map(|module| {
            let place = format!("lib-modules/{}.ko", modules::name(module));
            let (from, to) = (folder.join(module), tree.join(&place));
            if Path::new(module).extension().is_some_and(|end| end == "xz") {
                run_into(&to, command(busybox).args(["xz", "-dc"]).arg(&from))?;
            } else {
                fs::copy(&from, &to).with_context(|| format!("take {}", from.display()))?;
            }
            Ok(format!("/{place}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_absolute_paths() {
        let ldd = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7e)\n\t/lib64/ld.so (0x7d)\n";
        assert_eq!(
            libraries(ldd).collect::<Vec<_>>(),
            ["/lib/libc.so.6", "/lib64/ld.so"]
        );
    }
}
