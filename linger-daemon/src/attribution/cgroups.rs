//! The hierarchy of cgroups, as the file system shows it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The cgroup v2 hierarchy where it is mounted.
pub struct Cgroups {
    mount: PathBuf,
    /// The mount shows the whole hierarchy, not only what a cgroup namespace leaves of it.
    is_whole: bool,
}

/// Id, and inode number, of the hierarchy's root (`kernfs_create_root`).
const ROOT_ID: u64 = 1;

impl Cgroups {
    /// The hierarchy mounted at `mount`.
    #[must_use]
    pub fn new(mount: PathBuf) -> Self {
        let is_whole = inode(&mount) == Some(ROOT_ID);
        Self { mount, is_whole }
    }

    /// Whether all cgroups are seen, and not only those of a namespace.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Searches all that is there for the cgroup with this id: its path from the root, if it is there.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<PathBuf> {
        let mut pending = vec![self.mount.clone()];
        while let Some(folder) = pending.pop() {
            // The id of a cgroup is the inode number of its folder (kernfs_node.id).
            if inode(&folder) == Some(id) {
                let path = folder.strip_prefix(&self.mount).ok()?;
                return Some(Path::new("/").join(path));
            }
            pending.extend(
                fs::read_dir(&folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        None
    }

    /// Whether the cgroup with this path and id is no more. One that cannot be seen from here is not
    /// gone for all that is known.
    #[must_use]
    pub fn is_gone(&self, path: &Path, id: u64) -> bool {
        let folder = self.mount.join(path.strip_prefix("/").unwrap_or(path));
        self.is_whole && inode(&folder) != Some(id)
    }
}

fn inode(folder: &Path) -> Option<u64> {
    fs::metadata(folder).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_by_its_inode_and_gone_with_it() {
        let mount = tempfile::tempdir().unwrap();
        let folder = mount.path().join("a.slice/b.service");
        fs::create_dir_all(&folder).unwrap();
        let id = inode(&folder).unwrap();
        let cgroups = Cgroups {
            mount: mount.path().into(),
            is_whole: true,
        };
        let path = cgroups.find(id).unwrap();
        assert_eq!(path, Path::new("/a.slice/b.service"));
        assert!(!cgroups.is_gone(&path, id));
        // Another at the same place is another.
        assert!(cgroups.is_gone(&path, id + 1));
        fs::remove_dir(&folder).unwrap();
        assert!(cgroups.is_gone(&path, id));
        assert_eq!(cgroups.find(id), None);
    }

    #[test]
    fn a_part_of_the_hierarchy_tells_of_no_end() {
        let mount = tempfile::tempdir().unwrap();
        let part = Cgroups::new(mount.path().into());
        assert!(!part.is_gone(Path::new("/a.service"), 77));
    }
}
