//! Finds the cgroups of units.

use std::path::Path;

use crate::attribution::{Cgroups, Names};

/// A cgroup with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CgroupAt {
    /// Its id.
    pub(super) id: u64,
    /// How many cgroups are above it.
    pub(super) level: i32,
}

/// The units to watch.
pub(super) struct Units {
    names: Vec<String>,
    cgroups: Cgroups,
}

impl Units {
    pub(super) fn new(names: &[String], cgroups: Cgroups) -> Self {
        Self {
            names: names.to_vec(),
            cgroups,
        }
    }

    /// The current outermost cgroups of these units: a restarted unit gets another one.
    pub(super) fn look(&self) -> Vec<CgroupAt> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let all = self.cgroups.all();
        let found = all.iter().filter(|(_, path)| self.is_outermost(path));
        found
            .map(|(&id, path)| CgroupAt {
                id,
                // The root is the first component, and at level 0.
                level: i32::try_from(path.components().count() - 1).unwrap_or(i32::MAX),
            })
            .collect()
    }

    fn is_outermost(&self, path: &Path) -> bool {
        self.is_asked(path) && !path.parent().is_some_and(|above| self.is_asked(above))
    }

    fn is_asked(&self, path: &Path) -> bool {
        let names = Names::of(&path.to_string_lossy());
        self.names.contains(&names.unit)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_unit_is_watched_from_its_outermost_cgroup() {
        let mount = tempfile::tempdir().unwrap();
        let deep = mount.path().join("system.slice/web.service/workers/one");
        fs::create_dir_all(deep).unwrap();
        fs::create_dir_all(mount.path().join("system.slice/other.service")).unwrap();
        let cgroups = || Cgroups::new(Some(mount.path().into()));
        let units = Units::new(&["web.service".into()], cgroups());
        let found = units.look();
        let all = cgroups().all();
        let paths: Vec<_> = found.iter().map(|cgroup| &all[&cgroup.id]).collect();
        assert_eq!(paths, [Path::new("/system.slice/web.service")]);
        assert_eq!(found[0].level, 2);
    }
}
