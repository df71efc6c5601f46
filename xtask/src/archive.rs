//! Archives of files, as the kernel unpacks them into its first file system.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::shell::{command, output, run_unseen};

/// Whose the files of an archive are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// All are root's, whoever made them.
    Root,
    /// Everyone's own.
    AsIs,
}

/// What is in a tree: for each path, relative to the tree, a line with the letter of its kind (`f`,
/// `d`, `l` and so on, as find has them), a space, and the path. A folder comes before its contents.
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
        // With the sign cpio takes the numbers as they are, and looks up no names.
        cpio.arg("--owner=+0:+0");
    }
    run_into(file, &mut cpio)
}

/// Runs a command whose output goes into a file.
pub(crate) fn run_into(file: &Path, command: &mut std::process::Command) -> Result<()> {
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
