//! The per-CPU counters of groups, read in batches.

use std::io;

use aya::maps::{Map, MapData, MapError};
use aya::util::nr_cpus;
use aya_obj::generated::bpf_cmd;
use linger_ebpf::pod::words_mut;
use linger_ebpf::{Counters, Group};
use nix::libc;

use super::sum::sum;
use super::{LedgerError, read, write};
use crate::probe::Maps;
use crate::sys::{attributes, bpf, number};

const NAME: &str = "LEDGER";

/// The map of counters.
pub(super) struct GroupCounters {
    map: MapData,
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
        let Some(Map::PerCpuHashMap(map)) = maps.remove(NAME) else {
            return Err(LedgerError::NoMap(NAME));
        };
        let key_size = map.info().map_err(read(NAME))?.key_size();
        Ok(Self {
            map,
            key_words: key_size as usize / size_of::<u64>(),
            cpus,
        })
    }

    /// Reads all counters, summed over the CPUs. Only groups that come or go meanwhile may be missing, and none is read
    /// twice.
    pub(super) fn for_each(
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
            call.batch.map_fd = number(self.map.fd());
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

    /// The counters of one group, summed over the CPUs; `None` if it has no entry.
    pub(super) fn get(&self, group: &Group) -> Result<Option<Counters>, LedgerError> {
        let mut copies = vec![Counters::ZERO; self.cpus];
        let found = self.call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, group, Some(&mut copies));
        Ok(found.map_err(read(NAME))?.then(|| sum(&copies)))
    }

    /// Removes the entry of a group, if there is one.
    pub(super) fn remove(&mut self, group: &Group) -> Result<(), LedgerError> {
        let removed = self.call(bpf_cmd::BPF_MAP_DELETE_ELEM, group, None);
        removed.map(drop).map_err(write(NAME))
    }

    /// Calls bpf(2) for the entry of a group. Returns whether it has one.
    fn call(
        &self,
        command: bpf_cmd,
        group: &Group,
        copies: Option<&mut [Counters]>,
    ) -> Result<bool, MapError> {
        let mut call = attributes();
        call.__bindgen_anon_2.map_fd = number(self.map.fd());
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
