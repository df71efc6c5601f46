//! SHA256SUMS: the digests of the published files, for `sha256sum --check`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::shell::{command, output};

/// The name of the file.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// Writes the digests of these files, all inside the folder.
pub(crate) fn write(folder: &Path, files: &[&PathBuf]) -> Result<()> {
    let mut names = Vec::new();
    for file in files {
        names.push(file.strip_prefix(folder).context("packed elsewhere")?);
    }
    names.sort();
    let sums = output(command("sha256sum").args(names).current_dir(folder))?;
    Ok(fs::write(folder.join(SUMS), sums)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::run_unseen;

    #[test]
    fn sha256sum_accepts_the_sums_and_notices_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["b.deb", "a.tar.gz"].map(|name| folder.path().join(name));
        for file in &files {
            fs::write(file, file.as_os_str().as_encoded_bytes()).unwrap();
        }
        write(folder.path(), &[&files[0], &files[1]]).unwrap();
        let check = || {
            run_unseen(
                command("sha256sum")
                    .args(["--check", "--quiet", SUMS])
                    .current_dir(folder.path()),
            )
        };
        check().unwrap();
        fs::write(&files[1], "other").unwrap();
        assert!(check().is_err());
    }
}
