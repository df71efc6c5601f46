//! Cgroup id → the unit that an operator knows.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tracing::debug;

/// Names of cgroups, kept once learned: a cgroup may be gone when its closes are read.
pub struct Cgroups {
    root: PathBuf,
    units: HashMap<u64, String>,
}

impl Cgroups {
    /// Reads the hierarchy mounted at `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let mut cgroups = Self {
            root,
            units: HashMap::new(),
        };
        cgroups.walk();
        cgroups
    }

    /// Looks for those of these cgroups that are not known yet. Those that cannot be found, because
    /// they are gone, are known as the empty unit from then on.
    pub fn resolve(&mut self, ids: impl Iterator<Item = u64>) {
        let unknown: Vec<u64> = ids.filter(|id| !self.units.contains_key(id)).collect();
        if unknown.is_empty() {
            return;
        }
        self.walk();
        for id in unknown {
            self.units.entry(id).or_default();
        }
    }

    /// The unit of a cgroup; empty if it was never seen.
    #[must_use]
    pub fn unit(&self, id: u64) -> String {
        self.units.get(&id).cloned().unwrap_or_default()
    }

    /// Learns the cgroups that exist now.
    fn walk(&mut self) {
        let mut pending = vec![self.root.clone()];
        while let Some(folder) = pending.pop() {
            // The id of a cgroup is the inode number of its folder (kernfs_node.id).
            match fs::metadata(&folder) {
                Ok(metadata) => {
                    let unit = unit(&folder, &self.root);
                    self.units.entry(metadata.ino()).or_insert(unit);
                }
                Err(error) => debug!("{}: {error}", folder.display()),
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
    }
}

/// The innermost systemd service or scope on the path, or else the plain path.
fn unit(folder: &Path, root: &Path) -> String {
    let path = folder.strip_prefix(root).unwrap_or(folder);
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
    names
        .iter()
        .rev()
        .find(|name| {
            let kind = Path::new(name.as_ref()).extension();
            kind.is_some_and(|kind| kind == "service" || kind == "scope")
        })
        .map_or_else(|| format!("/{}", names.join("/")), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str) -> String {
        unit(
            &Path::new("/sys/fs/cgroup").join(path),
            Path::new("/sys/fs/cgroup"),
        )
    }

    #[test]
    fn the_innermost_unit_names_the_group() {
        assert_eq!(of("system.slice/nginx.service"), "nginx.service");
        assert_eq!(
            of("user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope"),
            "app-x.scope"
        );
        assert_eq!(
            of("system.slice/docker-0123.scope/worker"),
            "docker-0123.scope"
        );
    }

    #[test]
    fn a_cgroup_of_no_unit_keeps_its_path() {
        assert_eq!(of(""), "/");
        assert_eq!(of("lxc/web/x"), "/lxc/web/x");
        assert_eq!(of("system.slice"), "/system.slice");
    }

    #[test]
    fn a_cgroup_is_known_by_its_inode_and_remembered_when_gone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a.service");
        fs::create_dir(&folder).unwrap();
        let id = fs::metadata(&folder).unwrap().ino();
        let mut cgroups = Cgroups::new(root.path().to_path_buf());
        fs::remove_dir(&folder).unwrap();
        cgroups.resolve([id, 1].into_iter());
        assert_eq!(cgroups.unit(id), "a.service");
        assert_eq!(cgroups.unit(1), "");
    }
}
