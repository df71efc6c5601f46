//! The files laid over Debian's file system for one machine.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail};
use tempfile::TempDir;

use crate::archive::{self, Owner};
use crate::debian::Debian;
use crate::kernels::Kernel;
use crate::modules;
use crate::shell::{self, command, root, run_unseen};

/// A file to put into the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// A file on this host; its permissions are kept.
    pub(crate) file: PathBuf,
    /// Its absolute path in the machine.
    pub(crate) place: PathBuf,
}

impl FromStr for Put {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (file, place) = text
            .rsplit_once(':')
            .context("say FILE:PLACE, for instance ./x.service:/etc/systemd/system/x.service")?;
        if !place.starts_with('/') {
            bail!("the place {place:?} must be an absolute path");
        }
        Ok(Self {
            // Commands run in the workspace's folder, not in the working directory.
            file: fs::canonicalize(file).with_context(|| format!("the file {file}"))?,
            place: place.into(),
        })
    }
}

/// Files laid over Debian's. They exist until this is dropped.
pub(crate) struct Overlay {
    folder: TempDir,
    debian: Debian,
}

impl Overlay {
    /// Makes an overlay that has only the kernel modules that tests need.
    ///
    /// # Errors
    ///
    /// If the cache has no Debian file system, or the kernel lacks a module.
    pub(crate) fn new(kernel: &Kernel) -> Result<Self> {
        let runs = root().join("target/vm");
        fs::create_dir_all(&runs)?;
        remove_stale(&runs)?;
        // Machines with the same kernel may run at the same time.
        let start = format!("{}-{}-", kernel.label, std::process::id());
        let overlay = Self {
            folder: tempfile::Builder::new().prefix(&start).tempdir_in(runs)?,
            debian: Debian::open(kernel.architecture)?,
        };
        fs::create_dir(overlay.tree())?;
        overlay.put_modules(kernel)?;
        Ok(overlay)
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// Puts a file into the machine.
    pub(crate) fn put(&self, put: &Put) -> Result<()> {
        let to = self.prepare(&put.place)?;
        fs::copy(&put.file, &to).with_context(|| format!("take {}", put.file.display()))?;
        Ok(())
    }

    /// Puts a program into `/usr/local/bin` of the machine. It finds its libraries there if it was built on the same
    /// version of Debian.
    pub(crate) fn put_program(&self, file: &Path, name: &str) -> Result<()> {
        self.put(&Put {
            file: file.to_owned(),
            place: Path::new("/usr/local/bin").join(name),
        })
    }

    /// Puts the modules where modprobe looks for them.
    fn put_modules(&self, kernel: &Kernel) -> Result<()> {
        let Some(from) = &kernel.modules else {
            println!("{} has no folder of modules: none are loaded", kernel.label);
            return Ok(());
        };
        let version = from.file_name().context("a kernel has a version")?;
        let to = Path::new("/usr/lib/modules").join(version);
        let lists = [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ];
        let modules = modules::needed(from)?;
        for name in lists.into_iter().chain(modules.iter().map(String::as_str)) {
            self.put(&Put {
                file: from.join(name),
                place: to.join(name),
            })?;
        }
        let depmod = shell::find("depmod").context("depmod is not installed")?;
        let usr = self.tree().join("usr");
        run_unseen(command(depmod).arg("-b").arg(usr).arg(version))
    }

    /// Writes a file that every user can read.
    pub(crate) fn write(&self, place: &str, text: &str) -> Result<()> {
        let file = self.prepare(Path::new(place))?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Writes an executable script.
    pub(crate) fn write_script(&self, place: &str, text: &str) -> Result<()> {
        self.write(place, text)?;
        let file = self.prepare(Path::new(place))?;
        Ok(fs::set_permissions(file, Permissions::from_mode(0o755))?)
    }

    /// Creates the folder of a file of the machine; returns where to write the file.
    fn prepare(&self, place: &Path) -> Result<PathBuf> {
        let file = self.tree().join(place.strip_prefix("/").unwrap_or(place));
        let folder = file.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(file)
    }

    /// Returns whether this path exists in the machine, from Debian or from the overlay.
    pub(crate) fn has(&self, place: &str) -> bool {
        self.tree().join(place).exists() || self.debian.contents.contains_key(place)
    }

    /// Packs the initramfs to boot.
    pub(crate) fn pack(&self) -> Result<PathBuf> {
        let own = self.folder.path().join("own");
        let contents = archive::contents(&self.tree())?;
        let added = added(&contents, &self.debian.contents)?;
        archive::pack(&self.tree(), added.into_iter(), Owner::Root, &own)?;
        // The kernel unpacks concatenated archives in order, later ones over earlier ones.
        let all = self.folder.path().join("initramfs");
        let mut file = File::create(&all)?;
        for archive in [&self.debian.archive, &own] {
            io::copy(&mut File::open(archive)?, &mut file)?;
        }
        Ok(all)
    }
}

/// Removes the folders that killed processes left; a folder's name contains the process id.
fn remove_stale(runs: &Path) -> Result<()> {
    for entry in fs::read_dir(runs)? {
        let run = entry?.path();
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        let process = name.rsplit('-').nth(1).unwrap_or_default();
        if process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists() {
            // Another process may remove it at the same time.
            let _ = fs::remove_dir_all(&run);
        }
    }
    Ok(())
}

/// Returns the paths to unpack over the existing ones: all except the folders that both have, which keep their
/// permissions.
///
/// `contents` comes from [`archive::contents`]; `there` has the type of each existing path.
fn added<'a>(contents: &'a str, there: &BTreeMap<String, char>) -> Result<Vec<&'a str>> {
    let mut added = Vec::new();
    for (kind, path) in contents.lines().filter_map(|line| line.split_once(' ')) {
        match (kind, there.get(path)) {
            ("d", Some('d')) => {}
            ("d", Some('l')) => bail!("/{path} is a link in that machine: name the folder itself"),
            (_, Some('d')) => bail!("/{path} is a folder in that machine: name a file in it"),
            _ => added.push(path),
        }
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> BTreeMap<String, char> {
        [("usr", 'd'), ("lib", 'l'), ("usr/x", 'f')]
            .map(|(path, kind)| (path.to_owned(), kind))
            .into()
    }

    #[test]
    fn existing_folders_are_left_alone_and_files_replaced() {
        let contents = "d usr\nf usr/x\nd usr/new\nf usr/new/y\n";
        assert_eq!(
            added(contents, &there()).unwrap(),
            ["usr/x", "usr/new", "usr/new/y"]
        );
    }

    #[test]
    fn a_place_that_would_break_the_machine_is_an_error() {
        for contents in ["d lib\nf lib/x\n", "f usr\n"] {
            assert!(added(contents, &there()).is_err(), "{contents}");
        }
    }

    #[test]
    fn folders_of_dead_processes_are_removed() {
        let runs = tempfile::tempdir().unwrap();
        // Above the largest possible process id.
        let gone = format!("6.12-rt-{}-x", u32::MAX);
        let own = format!("6.12-rt-{}-x", std::process::id());
        for name in [&gone, &own, "6.12-rt"] {
            fs::create_dir(runs.path().join(name)).unwrap();
        }
        remove_stale(runs.path()).unwrap();
        assert!(!runs.path().join(gone).exists());
        assert!(runs.path().join(own).exists() && runs.path().join("6.12-rt").exists());
    }

    #[test]
    fn a_file_to_put_names_a_place() {
        let put: Put = "/proc/version:/etc/x".parse().unwrap();
        assert_eq!(put.place, Path::new("/etc/x"));
        for wrong in ["/proc/version", "/proc/version:x", "/no/such/file:/etc/x"] {
            assert!(wrong.parse::<Put>().is_err(), "{wrong}");
        }
    }
}
