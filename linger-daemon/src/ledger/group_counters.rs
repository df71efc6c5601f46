//! The per-CPU counters of groups: those in slots, and those in a hash map, which is read in batches.

use std::collections::BTreeMap;
use std::io;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use aya_obj::generated::bpf_cmd;
use linger_ebpf::pod::{words, words_mut};
use linger_ebpf::{Counters, GROUP_ROWS, Group, GroupSlot, SHARED_GROUPS};
use nix::libc;

use super::mapped_array::MappedArray;
use super::sum::{add, sum};
use super::{LedgerError, read, take, write};
use crate::probe::Maps;
use crate::sys::{attributes, bpf, number};

const NAME: &str = "LEDGER";
const ROWS_NAME: &str = "ROWS";

pub(super) struct GroupCounters {
    slots: MappedArray<GroupSlot>,
    /// The counters of [`Group::SHARED`], and behind them those of groups in slots.
    rows: PerCpuArray<MapData, Counters>,
    /// Those of groups whose slot is another's.
    crowded: MapData,
    /// Length of the keys, words: a group up to the last field in use.
    key_words: usize,
    cpus: usize,
}

/// Approximate size of a batch, bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// Minimum number of entries in a batch: as many as one bucket of the kernel's hash table may hold.
const BATCH_ENTRIES: usize = 32;

impl GroupCounters {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, LedgerError> {
        let cpus = nr_cpus().map_err(|(_, error)| read(NAME)(error.into()))?;
        let Some(Map::PerCpuHashMap(crowded)) = maps.remove(NAME) else {
            return Err(LedgerError::NoMap(NAME));
        };
        let key_size = crowded.info().map_err(read(NAME))?.key_size();
        Ok(Self {
            slots: MappedArray::map(maps, "GROUP_SLOTS")?,
            rows: take(maps, ROWS_NAME)?,
            crowded,
            key_words: key_size as usize / size_of::<u64>(),
            cpus,
        })
    }

    /// The counters in a row, summed over the CPUs; the first rows are those of [`Group::SHARED`].
    pub(super) fn read_row(&self, row: u32) -> Result<Counters, LedgerError> {
        let copies = self.rows.get(&row, 0).map_err(read(ROWS_NAME))?;
        Ok(sum(&copies))
    }

    /// Reads the counters of all groups with their own, summed over the CPUs. Only groups that come or go meanwhile may
    /// be missing, and none is read twice.
    pub(super) fn for_each(
        &self,
        mut each: impl FnMut(&Group, &mut Counters),
    ) -> Result<(), LedgerError> {
        // In the same order each time: readings number new groups in it.
        let mut in_slots = BTreeMap::new();
        for row in SHARED_GROUPS..GROUP_ROWS {
            if let Some(group) = self.group_of_row(row) {
                in_slots.insert(group, self.read_row(row)?);
            }
        }
        self.for_each_crowded(|group, counters| {
            if let Some(more) = in_slots.remove(group) {
                add(counters, &more);
            }
            each(group, counters);
        })?;
        for (group, mut counters) in in_slots {
            each(&group, &mut counters);
        }
        Ok(())
    }

    /// [`Self::for_each`] for the groups in the hash map.
    fn for_each_crowded(
        &self,
        mut each: impl FnMut(&Group, &mut Counters),
    ) -> Result<(), LedgerError> {
        let mut room = (BATCH_BYTES / (self.cpus * size_of::<Counters>())).max(BATCH_ENTRIES);
        let mut keys = vec![0; room * self.key_words];
        let mut copies = vec![Counters::ZERO; room * self.cpus];
        // The position of the next batch, and a pointer to it; null for the first batch.
        let mut start = 0_u32;
        let mut from = 0;
        loop {
            let mut call = attributes();
            call.batch.map_fd = number(self.crowded.fd());
            call.batch.count = u32::try_from(room).unwrap_or(u32::MAX);
            call.batch.in_batch = from;
            call.batch.out_batch = (&raw mut start) as u64;
            call.batch.keys = keys.as_mut_ptr() as u64;
            call.batch.values = copies.as_mut_ptr() as u64;
            // SAFETY: the buffers hold as many keys, and values of every CPU, as `count` says, of the
            // sizes that the map was made with; the position of a batch has 32 bits.
            let done = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH as u32, &mut call) };
            let code = done.as_ref().err().and_then(io::Error::raw_os_error);
            match done {
                Ok(_) => {}
                // There is no other batch.
                Err(_) if code == Some(libc::ENOENT) => {}
                // A bucket holds more entries than fit in the batch.
                Err(_) if code == Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room * self.key_words, 0);
                    copies.resize(room * self.cpus, Counters::ZERO);
                    continue;
                }
                Err(error) => return Err(read(NAME)(error.into())),
            }
            // SAFETY: it was written above, and by the kernel.
            let read = unsafe { call.batch.count } as usize;
            let copies = copies.chunks(self.cpus);
            for (key, copies) in keys.chunks(self.key_words).zip(copies).take(read) {
                let mut group = Group::ZERO;
                words_mut(&mut group)[..self.key_words].copy_from_slice(key);
                each(&group, &mut sum(copies));
            }
            if code.is_some() {
                return Ok(());
            }
            from = (&raw const start) as u64;
        }
    }

    /// The counters of one group, summed over the CPUs; `None` if it has none of its own.
    pub(super) fn get(&self, group: &Group) -> Result<Option<Counters>, LedgerError> {
        let mut copies = vec![Counters::ZERO; self.cpus];
        let found = self.call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, group, Some(&mut copies));
        let mut counters = found.map_err(read(NAME))?.then(|| sum(&copies));
        if let Some(row) = self.row_of(group) {
            add(counters.get_or_insert(Counters::ZERO), &self.read_row(row)?);
        }
        Ok(counters)
    }

    /// Removes the counters of a group, if there are any. Nothing may count for it any more.
    pub(super) fn remove(&mut self, group: &Group) -> Result<(), LedgerError> {
        if let Some(row) = self.row_of(group) {
            let zeros = vec![Counters::ZERO; self.cpus];
            let zeros =
                PerCpuValues::try_from(zeros).map_err(|error| write(ROWS_NAME)(error.into()))?;
            self.rows.set(row, zeros, 0).map_err(write(ROWS_NAME))?;
            self.stage(row).store(GroupSlot::FREE, Ordering::Release);
        }
        let removed = self.call(bpf_cmd::BPF_MAP_DELETE_ELEM, group, None);
        removed.map(drop).map_err(write(NAME))
    }

    fn row_of(&self, group: &Group) -> Option<u32> {
        let hash = GroupSlot::hash(words(group).iter().fold(0, |all, word| all ^ word));
        let row = GroupSlot::row(hash);
        (self.group_of_row(row) == Some(*group)).then_some(row)
    }

    /// The group in the slot of a row. It stays there until [`Self::remove`].
    fn group_of_row(&self, row: u32) -> Option<Group> {
        if row as usize >= self.slots.len() {
            return None;
        }
        let stage = self.stage(row).load(Ordering::Acquire);
        let offset = offset_of!(GroupSlot, group);
        let group = self.slots.read(row as usize, offset, Group::ZERO);
        GroupSlot { stage, group }.is_taken().then_some(group)
    }

    fn stage(&self, row: u32) -> &AtomicU64 {
        self.slots.word(row as usize, offset_of!(GroupSlot, stage))
    }

    /// Calls bpf(2) for the entry of a group in the hash map. Returns whether it has one.
    fn call(
        &self,
        command: bpf_cmd,
        group: &Group,
        copies: Option<&mut [Counters]>,
    ) -> Result<bool, MapError> {
        let mut call = attributes();
        call.__bindgen_anon_2.map_fd = number(self.crowded.fd());
        call.__bindgen_anon_2.key = (&raw const *group) as u64;
        call.__bindgen_anon_2.__bindgen_anon_1.value =
            copies.map_or(0, |copies| copies.as_mut_ptr() as u64);
        // SAFETY: a group is at least as long as a key; a lookup has room for the value of every CPU, and a removal
        // needs none.
        match unsafe { bpf(command as u32, &mut call) } {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
