//! The paths of cgroups and executables, as the kernel has written them down.

use aya::maps::{HashMap, MapData};
use linger_ebpf::{Exe, Path};

use super::{LedgerError, take};
use crate::attribution::Paths;
use crate::probe::Maps;

pub(crate) struct PathMaps {
    pub(super) cgroups: HashMap<MapData, u64, Path>,
    pub(super) exes: HashMap<MapData, Exe, Path>,
}

impl PathMaps {
    pub(crate) fn take(maps: &mut Maps) -> Result<Self, LedgerError> {
        Ok(Self {
            cgroups: take(maps, "CGROUPS")?,
            exes: take(maps, "EXES")?,
        })
    }
}

impl Paths for PathMaps {
    fn cgroup(&self, id: u64) -> Option<Path> {
        self.cgroups.get(&id, 0).ok()
    }

    fn exe(&self, exe: &Exe) -> Option<Path> {
        self.exes.get(exe, 0).ok()
    }
}
