//! A BPF file system of a scenario's own, and what daemons pin there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuHashMap};
use aya::programs::links::{FdLink, PinnedLink};
use linger_ebpf::{Group, Origin, Past, Plan, Row, RowKey};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::daemon::Daemon;

/// The file system, mounted as long as this lives.
pub(crate) struct Pinned {
    folder: TempDir,
}

impl Pinned {
    pub(crate) fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let none: Option<&str> = None;
        mount(none, folder.path(), Some("bpf"), MsFlags::empty(), none).context("mount bpf")?;
        Ok(Self { folder })
    }

    /// What daemons are told of it.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("lingerd")
    }

    /// Starts a daemon that keeps its counts there.
    pub(crate) fn start(&self, lingerd: &Path, plan: Plan, options: &[&str]) -> Result<Daemon> {
        let path = self.path();
        let path = path.to_str().context("a path of text")?;
        let mut all = vec!["--persist", "--pins", path];
        all.extend(options);
        Daemon::start_keeping(lingerd, plan, &all)
    }

    /// Runs `lingerd` with this command on the folder.
    pub(crate) fn command(&self, lingerd: &Path, command: &[&str]) -> Result<Output> {
        let mut lingerd = Command::new(lingerd);
        Ok(lingerd
            .args(command)
            .arg("--pins")
            .arg(self.path())
            .output()?)
    }

    /// The ids of the programs that are attached by what is pinned.
    pub(crate) fn programs(&self) -> Result<BTreeSet<u32>> {
        let links = fs::read_dir(self.path().join("links"))?;
        let ids = links.map(|link| {
            let link = FdLink::from(PinnedLink::from_pin(link?.path())?);
            Ok(link.info()?.program_id())
        });
        let ids = ids.collect::<Result<BTreeSet<_>>>()?;
        ensure!(!ids.is_empty(), "no links are pinned");
        Ok(ids)
    }

    fn map(&self, name: &str) -> Result<aya::maps::Map> {
        let data = MapData::from_pin(self.path().join("maps").join(name))?;
        Ok(aya::maps::Map::from_map_data(data)?)
    }

    /// Changes what is said of how the programs were loaded.
    pub(crate) fn change_origin(&self, change: impl FnOnce(&mut Origin)) -> Result<()> {
        let mut map: Array<_, Origin> = self.map("ORIGIN")?.try_into()?;
        let mut origin = map.get(&0, 0)?;
        change(&mut origin);
        Ok(map.set(0, origin, 0)?)
    }

    /// Changes what daemons have counted themselves.
    pub(crate) fn change_past(&self, change: impl FnOnce(&mut Past)) -> Result<()> {
        let mut map: Array<_, Past> = self.map("PAST")?.try_into()?;
        let mut past = map.get(&0, 0)?;
        change(&mut past);
        Ok(map.set(0, past, 0)?)
    }

    /// The rows of the group of this process's name, with the copies of all CPUs.
    pub(crate) fn rows(&self, comm: &str) -> Result<Vec<(RowKey, Vec<Row>)>> {
        let map: PerCpuHashMap<_, RowKey, Row> = self.map("LEDGER")?.try_into()?;
        let is_named = |group: &Group| group.comm().starts_with(comm.as_bytes());
        let mut rows = Vec::new();
        for key in map.keys() {
            let key = key?;
            if is_named(&key.group) {
                rows.push((key, map.get(&key, 0)?.to_vec()));
            }
        }
        Ok(rows)
    }

    /// Whether a group has a place.
    pub(crate) fn has_place(&self, group: &Group) -> Result<bool> {
        let map: HashMap<_, Group, u64> = self.map("GROUPS")?.try_into()?;
        Ok(map.get(group, 0).is_ok())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What is left of it goes with its last user.
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
