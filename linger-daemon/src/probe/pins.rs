//! Programs and counts pinned in a BPF file system, where they outlive the daemon.
//!
//! A folder holds the maps and the links, so that the programs keep counting while no daemon runs, and the next one
//! takes over their counts. The map `ORIGIN`, with the metadata of the programs, is pinned last: a folder without it is
//! left over from a start that did not finish. The daemon that uses the folder holds a lock on it, which is released
//! with the process, however that ends.

use std::error;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData, MapError};
use linger_ebpf::PinMetadata;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs, statfs};
use nix::unistd::geteuid;
use thiserror::Error;
use tracing::debug;

use super::hooks::{Hook, Point};
use super::kprobe;
use super::owner::Owner;
use super::programs::{Links, Maps, Programs, is_pin_attached};
use crate::sys;

const MAPS: &str = "maps";
const LINKS: &str = "links";
/// The folder of programs: for the kernel's statistics about each, and to run or attach those without a pinned link.
const PROGRAMS: &str = "programs";
const FOLDERS: [&str; 3] = [LINKS, PROGRAMS, MAPS];
const ORIGIN: &str = "ORIGIN";

/// The reason why pinning fails.
#[derive(Debug, Error)]
pub enum PinsError {
    /// There is no BPF file system.
    #[error(
        "{0} is not in a BPF file system: choose a folder in one with --pins; if there is none, \
         mount -t bpf bpf /sys/fs/bpf, or run without `persist`"
    )]
    NoBpfFs(PathBuf),
    /// There is no folder to create it in.
    #[error(
        "{0} cannot be created, because the folder above it does not exist: create that, in a BPF file \
         system such as /sys/fs/bpf, or choose another folder with --pins"
    )]
    NoParent(PathBuf),
    /// Another daemon uses it.
    #[error(
        "{0} is in use by another lingerd: stop that first, or choose another folder with --pins"
    )]
    InUse(PathBuf),
    /// It belongs to another user.
    #[error(
        "{path} belongs to the user with the id {owner}: run lingerd as that user, or as root \
         `lingerd unload`, after which counting starts from zero"
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// The id of its owner.
        owner: u32,
    },
    /// It has pins that no lingerd made.
    #[error(
        "{0} has pins of another program, or not all of lingerd's: choose another folder with --pins or, if no \
         other program uses it, remove it and all in it"
    )]
    Foreign(PathBuf),
    /// An operation failed.
    #[error("cannot {what} {path}")]
    Io {
        /// The operation.
        what: &'static str,
        /// Its file, or the name of its map.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A folder of pins, locked against other daemons unless it is opened as another's.
pub struct Pins {
    folder: PathBuf,
    _lock: Option<Flock<File>>,
}

impl Pins {
    /// Opens the folder, and creates it if it does not exist.
    pub fn open(folder: &Path) -> Result<Self, PinsError> {
        let failed = |what, source| failed(what, folder, source);
        loop {
            // Checks the parent only if there is no folder: a sandboxed service may see nothing above its own.
            if let Some(above) = folder.parent().filter(|_| !folder.exists()) {
                match statfs(above) {
                    Ok(found) if found.filesystem_type() == BPF_FS_MAGIC => {}
                    Err(Errno::ENOENT) => return Err(PinsError::NoParent(folder.to_owned())),
                    _ => return Err(PinsError::NoBpfFs(folder.to_owned())),
                }
            }
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("make the folder", error));
                }
                _ => {}
            }
            if let Some(pins) = Self::existing(folder)? {
                return Ok(pins);
            }
        }
    }

    /// Opens the folder if it exists. In any other file system its files are not pins, and nobody's to remove.
    pub fn existing(folder: &Path) -> Result<Option<Self>, PinsError> {
        let file = match File::open(folder) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(
                    not_ours(folder).unwrap_or_else(|| failed("open the folder", folder, error))
                );
            }
            Err(error) => return Err(failed("open the folder", folder, error)),
        };
        if !fstatfs(&file).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC) {
            return Err(PinsError::NoBpfFs(folder.to_owned()));
        }
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Err(PinsError::InUse(folder.to_owned())),
            Err((_, error)) => return Err(failed("lock the folder", folder, error.into())),
        };
        // The previous holder of the lock may have removed it.
        let (ours, there) = (lock.metadata(), fs::metadata(folder));
        let is_there = matches!((ours, there), (Ok(ours), Ok(there)) if ours.ino() == there.ino());
        Ok(is_there.then(|| Self {
            folder: folder.to_owned(),
            _lock: Some(lock),
        }))
    }

    /// Refers to the folder without locking it: another daemon may use and change it.
    pub(super) fn unlocked(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            _lock: None,
        }
    }

    /// Whether a folder has pins, or what is left of them.
    #[must_use]
    pub fn exist_in(folder: &Path) -> bool {
        FOLDERS.iter().any(|name| folder.join(name).exists())
    }

    /// Returns whether the folder has pins. Fails if they belong to another user.
    pub(super) fn exist(&self) -> Result<bool, PinsError> {
        let mut folders = FOLDERS.iter().map(|name| self.folder.join(name));
        match folders.find_map(|folder| not_ours(&folder)) {
            Some(error) => Err(error),
            None => Ok(Self::exist_in(&self.folder)),
        }
    }

    /// The metadata of the programs; `None` if pinning did not finish or this daemon cannot read it.
    pub(super) fn metadata(&self) -> Option<PinMetadata> {
        let map = self.map(ORIGIN).ok()?;
        let map = Array::<_, PinMetadata>::try_from(map).ok()?;
        map.get(&0, 0).ok()
    }

    pub(super) fn maps(&self) -> Result<Maps, PinsError> {
        let path = self.folder.join(MAPS);
        let names = names(&path).map_err(|error| failed("list", &path, error))?;
        let map = |name: String| Ok((name.clone(), self.map(&name)?));
        names.into_iter().map(map).collect()
    }

    pub(super) fn has_map(&self, name: &str) -> bool {
        self.folder.join(MAPS).join(name).exists()
    }

    fn map(&self, name: &str) -> Result<Map, PinsError> {
        let map = MapData::from_pin(self.folder.join(MAPS).join(name));
        map.and_then(Map::from_map_data)
            .map_err(|error| failed_map("take over the map", name, error))
    }

    pub(super) fn open_links(&self) -> Result<File, PinsError> {
        let path = self.folder.join(LINKS);
        File::open(&path).map_err(|error| failed("open the folder", &path, error))
    }

    pub(super) fn links(&self) -> Links {
        Links::Pinned(self.folder.join(LINKS))
    }

    /// Whether the program of this hook is still pinned and, if it has a pinned link, still attached.
    pub(super) fn is_attached(&self, hook: Hook) -> bool {
        let has_link = hook.point != Point::OnDemand && !hook.sees_returns();
        self.program(hook).exists() && (!has_link || is_pin_attached(&self.link(hook)))
    }

    /// The pinned programs of these hooks, attached by the lingerd `owner`.
    pub(super) fn programs(&self, hooks: &[Hook], owner: Owner) -> Result<Programs, PinsError> {
        let program = |&hook: &Hook| Some((hook, sys::get(&self.program(hook)).ok()?));
        let programs = hooks.iter().filter_map(program).collect();
        Programs::new(programs, self.links(), owner)
            .map_err(|error| failed("know more of", &self.folder, error))
    }

    fn link(&self, hook: Hook) -> PathBuf {
        self.folder.join(LINKS).join(hook.program)
    }

    fn program(&self, hook: Hook) -> PathBuf {
        self.folder.join(PROGRAMS).join(hook.program)
    }

    /// Creates the folders, and pins all maps except `ORIGIN`, which [`Self::pin_metadata`] pins last.
    pub(super) fn pin_maps(&self, maps: &Maps) -> Result<(), PinsError> {
        self.refuse_foreign()?;
        for name in FOLDERS {
            let path = self.folder.join(name);
            let made = DirBuilder::new().mode(0o700).create(&path);
            made.map_err(|error| failed("make the folder", &path, error))?;
        }
        let mut maps = maps.iter().filter(|(name, _)| *name != ORIGIN);
        maps.try_for_each(|(name, map)| self.pin_map(name, map))
    }

    fn pin_map(&self, name: &str, map: &Map) -> Result<(), PinsError> {
        let pinned = map.pin(self.folder.join(MAPS).join(name));
        pinned.map_err(|error| failed_map("pin the map", name, error))
    }

    pub(super) fn pin_link(&self, hook: Hook, link: &OwnedFd) -> Result<(), PinsError> {
        let path = self.link(hook);
        sys::pin(link, &path).map_err(|error| failed("pin the link", &path, error))
    }

    pub(super) fn pin_programs(&self, programs: &[(Hook, OwnedFd)]) -> Result<(), PinsError> {
        programs.iter().try_for_each(|(hook, program)| {
            let path = self.program(*hook);
            sys::pin(program, &path).map_err(|error| failed("pin the program", &path, error))
        })
    }

    /// Pins the metadata, which marks everything else as pinned.
    pub(super) fn pin_metadata(
        &self,
        maps: &mut Maps,
        metadata: PinMetadata,
    ) -> Result<(), PinsError> {
        let failed = |error| failed_map("take over the map", ORIGIN, error);
        let name = ORIGIN.to_owned();
        let map = maps.get_mut(ORIGIN).ok_or(MapError::InvalidName { name });
        let values = map.and_then(Array::<_, PinMetadata>::try_from);
        let mut values = values.map_err(failed)?;
        values.set(0, metadata, 0).map_err(failed)?;
        self.pin_map(ORIGIN, &maps[ORIGIN])
    }

    /// Fails if there are pins that are not provably lingerd's: it pins nothing before all its folders exist. If one of
    /// these was removed since, the metadata is proof.
    fn refuse_foreign(&self) -> Result<(), PinsError> {
        let folders = FOLDERS.map(|name| names(&self.folder.join(name)));
        let have_pins = folders.iter().flatten().any(|names| !names.is_empty());
        let are_complete = folders.iter().all(Result::is_ok);
        if have_pins && !are_complete && self.metadata().is_none() {
            return Err(PinsError::Foreign(self.folder.clone()));
        }
        Ok(())
    }

    /// Detaches and removes everything except the folder itself.
    pub(super) fn clear(&self) -> Result<(), PinsError> {
        self.refuse_foreign()?;
        let metadata = self.exist()?.then(|| self.metadata()).flatten();
        // First the metadata, then the programs, then their counts.
        let first = self.folder.join(MAPS).join(ORIGIN);
        remove(&first, fs::remove_file(&first))?;
        let folders = FOLDERS.map(|name| self.folder.join(name));
        for path in &folders {
            let inside = match names(path) {
                Ok(inside) => inside,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("list", path, error)),
            };
            for name in inside {
                let path = path.join(name);
                remove(&path, fs::remove_file(&path))?;
            }
        }
        for path in &folders {
            remove(path, fs::remove_dir(path))?;
        }
        // The probes that its daemon defined in tracefs, and those left by daemons that are gone.
        let (owner, start) = (metadata.as_ref().map(Owner::of), Instant::now());
        while !kprobe::remove_stale(owner) && start.elapsed() < PROBES {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Detaches and removes everything, and the folder too unless it belongs to another user or is a mount point.
    pub fn unload(self) -> Result<(), PinsError> {
        self.clear()?;
        let folder = fs::metadata(&self.folder);
        if folder.is_ok_and(|folder| folder.uid() != geteuid().as_raw()) {
            return Ok(());
        }
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
            result => remove(&self.folder, result),
        }
    }
}

/// Maximum time to wait for the kernel, which releases a probe some time after its link is gone.
const PROBES: Duration = Duration::from_secs(2);

/// Returns an error if the file belongs to another user and this one is not root.
fn not_ours(path: &Path) -> Option<PinsError> {
    let user = geteuid();
    let owner = fs::metadata(path).ok()?.uid();
    (owner != user.as_raw() && !user.is_root()).then(|| PinsError::NotOurs {
        path: path.to_owned(),
        owner,
    })
}

fn failed_map(
    what: &'static str,
    name: &str,
    error: impl error::Error + Send + Sync + 'static,
) -> PinsError {
    failed(what, Path::new(name), io::Error::other(error))
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> PinsError {
    PinsError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Checks the result of a removal; a missing file is no error.
fn remove(path: &Path, result: io::Result<()>) -> Result<(), PinsError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => {
            debug!("removed {}", path.display());
            Ok(())
        }
    }
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_created_has_the_right_reason() {
        let folder = tempfile::tempdir().unwrap();
        for (name, words) in [
            ("pins", "is not in a BPF file system"),
            ("a/b/pins", "the folder above it does not exist"),
        ] {
            let path = folder.path().join(name);
            let error = Pins::open(&path).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
