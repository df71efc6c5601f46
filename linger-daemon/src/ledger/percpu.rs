//! The per-CPU counters of groups, read in batches.

use std::io;

use aya::maps::{IterableMap as _, MapData, MapError, PerCpuHashMap};
use aya::util::nr_cpus;
use aya_obj::generated::bpf_cmd;
use linger_ebpf::{Counters, Group};
use nix::libc;

use super::sum::sum;
use super::{LedgerError, read, take, write};
use crate::probe::Maps;
use crate::sys::{attributes, bpf, number};

const NAME: &str = "LEDGER";

pub(super) struct GroupCounters {
    map: PerCpuHashMap<MapData, Group, Counters>,
    cpus: usize,
}

/// Approximate size of a batch, bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// Minimum number of entries in a batch: as many as one bucket of the kernel's hash table may hold.
const BATCH_ENTRIES: usize = 32;

impl GroupCounters {
    pub(super) fn take(maps: &mut Maps) -> Result<Self, LedgerError> {
        let cpus = nr_cpus().map_err(|(_, error)| read(NAME)(error.into()))?;
        Ok(Self {
            map: take(maps, NAME)?,
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
        let mut groups = vec![Group::ZERO; room];
        let mut copies = vec![Counters::ZERO; room * self.cpus];
        // The position of the next batch, and a pointer to it; null for the first batch.
        let mut start = 0_u32;
        let mut from = 0;
        loop {
            let mut call = attributes();
            call.batch.map_fd = number(self.map.map().fd());
            call.batch.count = u32::try_from(room).unwrap_or(u32::MAX);
            call.batch.in_batch = from;
            call.batch.out_batch = (&raw mut start) as u64;
            call.batch.keys = groups.as_mut_ptr() as u64;
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
                    groups.resize(room, Group::ZERO);
                    copies.resize(room * self.cpus, Counters::ZERO);
                    continue;
                }
                Err(error) => return Err(read(NAME)(error.into())),
            }
            // SAFETY: it was written above, and by the kernel.
            let read = unsafe { call.batch.count } as usize;
            let copies = copies.chunks(self.cpus);
            for (group, copies) in groups.iter().zip(copies).take(read) {
                each(group, &mut sum(copies));
            }
            if code.is_some() {
                return Ok(());
            }
            from = (&raw const start) as u64;
        }
    }

    /// The counters of one group, summed over the CPUs; `None` if it has no entry.
    pub(super) fn get(&self, group: &Group) -> Result<Option<Counters>, LedgerError> {
        match self.map.get(group, 0) {
            Ok(copies) => Ok(Some(sum(&copies))),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(read(NAME)(error)),
        }
    }

    pub(super) fn remove(&mut self, group: &Group) -> Result<(), LedgerError> {
        match self.map.remove(group) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            removed => removed.map_err(write(NAME)),
        }
    }
}
