//! A scenario's own BPF file system, and what daemons pin there.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::programs::links::{FdLink, PinnedLink};
use aya_obj::generated::bpf_cmd;
use linger_ebpf::{
    Counters, Group, GroupSlot, Note, ORPHAN_SLOTS, Orphan, OrphanSlot, Past, PinMetadata, Plan,
    SHARED_GROUPS, hint,
};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::daemon::Daemon;

/// The orphans that programs follow. None of them shares a slot.
pub(crate) struct Orphans {
    slots: Array<MapData, OrphanSlot>,
    crowded: HashMap<MapData, u64, Orphan>,
}

impl Orphans {
    pub(crate) fn all(&self) -> Result<Vec<Orphan>> {
        let slots = self.slots.iter().collect::<Result<Vec<_>, _>>()?;
        let in_slots = slots.into_iter().map(|slot| slot.orphan);
        let mut all: Vec<_> = in_slots.filter(|orphan| orphan.sk != 0).collect();
        for record in &self.crowded {
            all.push(record?.1);
        }
        Ok(all)
    }

    pub(crate) fn remove(&mut self, orphan: &Orphan) -> Result<()> {
        if self.has_slots() {
            self.set_slot(orphan.sk, Orphan::ZERO)
        } else {
            Ok(self.crowded.remove(&orphan.sk)?)
        }
    }

    pub(crate) fn insert(&mut self, orphan: &Orphan) -> Result<()> {
        if self.has_slots() {
            self.set_slot(orphan.sk, *orphan)
        } else {
            Ok(self.crowded.insert(orphan.sk, orphan, 0)?)
        }
    }

    fn has_slots(&self) -> bool {
        self.slots.len() > ORPHAN_SLOTS
    }

    fn set_slot(&mut self, sk: u64, orphan: Orphan) -> Result<()> {
        let slot = OrphanSlot { crowded: 0, orphan };
        Ok(self.slots.set(OrphanSlot::index(hint(sk)), slot, 0)?)
    }
}

/// The file system, unmounted when dropped.
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

    /// Returns the path that daemons get for `--pins`.
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

    /// Returns the IDs of the programs that the pinned links attach.
    pub(crate) fn programs(&self) -> Result<BTreeSet<u32>> {
        let links = fs::read_dir(self.links())?;
        let ids = links.map(|link| {
            let link = FdLink::from(PinnedLink::from_pin(link?.path())?);
            Ok(link.info()?.program_id())
        });
        let ids = ids.collect::<Result<BTreeSet<_>>>()?;
        ensure!(!ids.is_empty(), "no links are pinned");
        Ok(ids)
    }

    /// Detaches a program.
    pub(crate) fn detach(&self, program: &str) -> Result<()> {
        fs::remove_file(self.link(program)).with_context(|| format!("detach {program}"))
    }

    /// Returns whether a program is attached.
    pub(crate) fn attaches(&self, program: &str) -> bool {
        self.link(program).exists()
    }

    fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    fn links(&self) -> PathBuf {
        self.path().join("links")
    }

    fn map(&self, name: &str) -> Result<aya::maps::Map> {
        let data = MapData::from_pin(self.path().join("maps").join(name))?;
        Ok(aya::maps::Map::from_map_data(data)?)
    }

    /// Changes the metadata of how the programs were loaded.
    pub(crate) fn change_origin(&self, change: impl FnOnce(&mut PinMetadata)) -> Result<()> {
        let mut map: Array<_, PinMetadata> = self.map("ORIGIN")?.try_into()?;
        let mut origin = map.get(&0, 0)?;
        change(&mut origin);
        Ok(map.set(0, origin, 0)?)
    }

    /// Changes the totals that daemons keep themselves.
    pub(crate) fn change_past(&self, change: impl FnOnce(&mut Past)) -> Result<()> {
        let mut map: Array<_, Past> = self.map("PAST")?.try_into()?;
        let mut past = map.get(&0, 0)?;
        change(&mut past);
        Ok(map.set(0, past, 0)?)
    }

    /// Sets the note that daemons keep on a group.
    pub(crate) fn set_note(&self, group: &Group, note: &Note) -> Result<()> {
        let mut map: HashMap<_, Group, Note> = self.map("NOTES")?.try_into()?;
        Ok(map.insert(group, note, 0)?)
    }

    /// Returns the orphans that the programs follow.
    pub(crate) fn orphans(&self) -> Result<Orphans> {
        Ok(Orphans {
            slots: self.map("ORPHAN_SLOTS")?.try_into()?,
            crowded: self.map("ORPHANS")?.try_into()?,
        })
    }

    /// Returns the groups of processes with this name, with the counters of all CPUs.
    pub(crate) fn counters(&self, comm: &str) -> Result<Vec<(Group, Vec<Counters>)>> {
        let mut groups = self.in_slots(comm)?;
        for entry in &self.ledger()? {
            let (key, copies) = entry?;
            let mut group = Group::ZERO;
            (group.cgroup_id, group.comm) = (key[0], [key[1], key[2]]);
            if is_named(&group, comm) {
                groups.push((group, copies.to_vec()));
            }
        }
        Ok(groups)
    }

    /// [`Self::counters`] of the groups in slots.
    pub(crate) fn in_slots(&self, comm: &str) -> Result<Vec<(Group, Vec<Counters>)>> {
        let rows = self.rows()?.into_iter();
        let taken = rows.filter(|(slot, _)| slot.is_taken() && is_named(&slot.group, comm));
        Ok(taken.map(|(slot, copies)| (slot.group, copies)).collect())
    }

    /// Returns whether the counters of every free slot are zero.
    pub(crate) fn free_rows_are_zero(&self) -> Result<bool> {
        let rows = self.rows()?;
        // The first ones are not those of slots.
        let mut free = rows[SHARED_GROUPS as usize..]
            .iter()
            .filter(|(slot, _)| !slot.is_taken());
        Ok(free.all(|(_, copies)| copies.iter().all(|one| *one == Counters::ZERO)))
    }

    /// Returns all slots, with the counters of their rows on all CPUs.
    fn rows(&self) -> Result<Vec<(GroupSlot, Vec<Counters>)>> {
        let slots: Array<_, GroupSlot> = self.map("GROUP_SLOTS")?.try_into()?;
        let counters: PerCpuArray<_, Counters> = self.map("ROWS")?.try_into()?;
        let rows = (0..).zip(slots.iter());
        rows.map(|(row, slot)| Ok((slot?, counters.get(&row, 0)?.to_vec())))
            .collect()
    }

    /// Returns whether a group has counters.
    pub(crate) fn has_counters(&self, group: &Group) -> Result<bool> {
        let all = self.counters("")?;
        Ok(all.iter().any(|(other, _)| other == group))
    }

    /// Gives a group counters again, as the programs do if it closes once more while its slot is another's.
    pub(crate) fn set_counters(&self, group: &Group, copies: &[Counters]) -> Result<()> {
        let copies = PerCpuValues::try_from(copies.to_vec())?;
        Ok(self.ledger()?.insert(key(group), copies, 0)?)
    }

    /// Has the kernel refuse every system call that would change counters of groups, from now on.
    pub(crate) fn freeze_ledger(&self) -> Result<()> {
        ["LEDGER", "ROWS"]
            .into_iter()
            .try_for_each(|name| self.freeze(name))
    }

    fn freeze(&self, name: &str) -> Result<()> {
        let map = MapData::from_pin(self.path().join("maps").join(name))?;
        let mut attributes = map.fd().as_fd().as_raw_fd();
        let command = bpf_cmd::BPF_MAP_FREEZE as u32;
        // SAFETY: the attributes of this command begin with the descriptor of a map, and the rest is optional.
        let frozen = unsafe {
            let size = size_of_val(&attributes);
            libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size)
        };
        Errno::result(frozen)
            .map(drop)
            .with_context(|| format!("freeze {name}"))
    }

    fn ledger(&self) -> Result<PerCpuHashMap<MapData, [u64; 3], Counters>> {
        Ok(self.map("LEDGER")?.try_into()?)
    }
}

/// Whether the name of a group's processes begins like this.
fn is_named(group: &Group, comm: &str) -> bool {
    group.comm().starts_with(comm.as_bytes())
}

/// The key of a group in the ledger with the default labels: its cgroup and its process name.
fn key(group: &Group) -> [u64; 3] {
    [group.cgroup_id, group.comm[0], group.comm[1]]
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The file system is removed with its last user.
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
