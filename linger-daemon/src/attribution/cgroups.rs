//! The cgroup hierarchy in the file system.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The mounted cgroup v2 hierarchy.
#[derive(Clone)]
pub struct Cgroups {
    mount: Option<PathBuf>,
    /// The mount shows the whole hierarchy, not only the part in a cgroup namespace.
    pub is_whole: bool,
}

/// Id and inode number of the root (`kernfs_create_root`).
const ROOT_ID: u64 = 1;

impl Cgroups {
    /// The hierarchy mounted at `mount`, if it is mounted.
    #[must_use]
    pub fn new(mount: Option<PathBuf>) -> Self {
        let is_whole = mount.as_deref().is_some_and(is_whole);
        Self { mount, is_whole }
    }

    /// The hierarchy of this host, as far as visible.
    #[must_use]
    pub fn of_host() -> Self {
        Self::new(cgroup_root().ok())
    }

    /// Restrictions on this host of the labels that follow from cgroups, with a fix; `None` if there are none.
    #[must_use]
    pub fn shortcoming(&self) -> Option<&'static str> {
        const USE_OTHERS: &str = "no cgroup v2 is in use, only v1: the labels unit, slice, container and pod \
             tell nothing, all is in the unit \"/\"; boot with systemd.unified_cgroup_hierarchy=1, or \
             tell closes apart by comm and exe";
        const PARTLY: &str = "the cgroups of the host are not all visible from here (a cgroup namespace): \
             units are named, but those that are gone are not retired; run in the host's cgroup namespace";
        let Some(mount) = &self.mount else {
            return Some(USE_OTHERS);
        };
        if !self.is_whole {
            return Some(PARTLY);
        }
        // Beside v1, systemd may leave v2 empty.
        folders(mount).next().is_none().then_some(USE_OTHERS)
    }

    /// The paths of all cgroups from the root, by id.
    #[must_use]
    pub fn all(&self) -> HashMap<u64, PathBuf> {
        let mut all = HashMap::new();
        let Some(mount) = &self.mount else { return all };
        let mut pending = vec![mount.clone()];
        while let Some(folder) = pending.pop() {
            pending.extend(folders(&folder));
            // The id of a cgroup is the inode number of its folder (kernfs_node.id).
            if let (Some(id), Ok(path)) = (inode(&folder), folder.strip_prefix(mount)) {
                all.insert(id, Path::new("/").join(path));
            }
        }
        all
    }

    /// Whether the cgroup with this path and id is gone. If not all cgroups are visible from here, none counts as
    /// gone, and neither does one in a folder that this process may not enter.
    #[must_use]
    pub fn is_gone(&self, path: &Path, id: u64) -> bool {
        let Some(mount) = self.mount.as_ref().filter(|_| self.is_whole) else {
            return false;
        };
        let path = path.strip_prefix("/").unwrap_or(path);
        match fs::metadata(mount.join(path)) {
            Ok(metadata) => metadata.ino() != id,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Finds the mount point of the cgroup v2 hierarchy, which differs from the usual one beside v1. If a container has
/// mounts of both the whole hierarchy and its namespace's part, returns the whole one.
pub fn cgroup_root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    // Of several equal ones, this is the first.
    mounts.min_by_key(|mount| !is_whole(mount)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    })
}

/// [`cgroup_root`], if that is the whole hierarchy: a hook below the root would count only a part of all closes.
pub(crate) fn whole_cgroup_root() -> io::Result<PathBuf> {
    let root = cgroup_root()?;
    if is_whole(&root) {
        return Ok(root);
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "only a part of all cgroups is visible here, and the rest would not be counted: run in the host's \
         cgroup namespace, or mount the host's /sys/fs/cgroup in the container",
    ))
}

/// Whether a mount shows the root of the hierarchy, and with it all cgroups.
fn is_whole(mount: &Path) -> bool {
    inode(mount) == Some(ROOT_ID)
}

/// The folders in a folder, none if it cannot be read.
fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

fn inode(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::thread;

    use nix::unistd::setfsuid;

    use super::*;

    #[test]
    fn a_cgroup_is_found_by_its_inode_and_gone_with_it() {
        let mount = tempfile::tempdir().unwrap();
        let folder = mount.path().join("a.slice/b.service");
        fs::create_dir_all(&folder).unwrap();
        let id = inode(&folder).unwrap();
        let cgroups = Cgroups {
            mount: Some(mount.path().into()),
            is_whole: true,
        };
        let path = cgroups.all().remove(&id).unwrap();
        assert_eq!(path, Path::new("/a.slice/b.service"));
        assert!(!cgroups.is_gone(&path, id));
        // Another cgroup at the same path has another id.
        assert!(cgroups.is_gone(&path, id + 1));
        fs::remove_dir(&folder).unwrap();
        assert!(cgroups.is_gone(&path, id));
        assert_eq!(cgroups.all().get(&id), None);
    }

    #[test]
    fn a_cgroup_in_a_folder_that_may_not_be_entered_is_not_gone() {
        const NOBODY: u32 = 65534;
        let mount = tempfile::tempdir().unwrap();
        let closed = mount.path().join("a.slice");
        fs::create_dir_all(closed.join("b.service")).unwrap();
        let id = inode(&closed.join("b.service")).unwrap();
        let permit = |path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        permit(mount.path(), 0o755);
        permit(&closed, 0);
        let cgroups = Cgroups {
            mount: Some(mount.path().into()),
            is_whole: true,
        };
        let is_gone = |path: &str| {
            // Root enters any folder; this changes only the thread.
            setfsuid(NOBODY.into());
            cgroups.is_gone(Path::new(path), id)
        };
        let found = thread::scope(|scope| {
            let thread = scope.spawn(|| ["/a.slice/b.service", "/c.slice"].map(is_gone));
            thread.join().unwrap()
        });
        permit(&closed, 0o755);
        assert_eq!(found, [false, true]);
    }

    #[test]
    fn a_part_of_the_hierarchy_shows_no_cgroup_as_gone() {
        let mount = tempfile::tempdir().unwrap();
        let part = Cgroups::new(Some(mount.path().into()));
        assert!(!part.is_gone(Path::new("/a.service"), 77));
        assert!(part.shortcoming().is_some());
    }
}
