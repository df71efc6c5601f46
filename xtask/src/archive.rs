//! cpio archives, which the kernel unpacks into its initramfs.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell::{command, output, run_unseen};

/// The owner of the files in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Root owns every file, whoever made it.
    Root,
    /// Each file keeps its owner.
    AsIs,
}

/// Lists a tree: one line for each path, with the letter of its type (`f`, `d`, `l` and so on, as in find's `%y`), a
/// space, and the path relative to the tree. A folder comes before its contents.
pub(crate) fn contents(tree: &Path) -> Result<String> {
    let find = ["-mindepth", "1", "-printf", "%y %P\\n"];
    output(command("find").arg(tree).args(find))
}

/// Packs everything in `tree`.
pub(crate) fn pack_all(tree: &Path, owner: Owner, file: &Path) -> Result<()> {
    let contents = contents(tree)?;
    let names = contents.lines().filter_map(|line| line.get(2..));
    pack(tree, names, owner, file)
}

/// Packs these paths of `tree`, each of which must come after its folder.
pub(crate) fn pack<'a>(
    tree: &Path,
    names: impl Iterator<Item = &'a str>,
    owner: Owner,
    file: &Path,
) -> Result<()> {
    let list = file.with_extension("names");
    let names: String = names.flat_map(|name| [name, "\n"]).collect();
    fs::write(&list, names).with_context(|| format!("write {}", list.display()))?;
    let mut cpio = command("cpio");
    cpio.args(["--create", "--format=newc", "--quiet"])
        .current_dir(tree)
        .stdin(File::open(&list)?);
    if owner == Owner::Root {
        // With the sign, cpio takes these as numbers and looks up no names.
        cpio.arg("--owner=+0:+0");
    }
    run_into(file, &mut cpio)
}

/// Runs a command with its output redirected to a file.
fn run_into(file: &Path, command: &mut Command) -> Result<()> {
    let output = File::create(file).with_context(|| format!("create {}", file.display()))?;
    run_unseen(command.stdout(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_name_kinds_and_folders_come_first() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("usr/bin")).unwrap();
        fs::write(tree.path().join("usr/bin/x"), "").unwrap();
        assert_eq!(
            contents(tree.path()).unwrap(),
            "d usr\nd usr/bin\nf usr/bin/x\n"
        );
    }
}
