//! Maps with a copy of counters for every CPU, read many at a time.

use std::io;
use std::marker::PhantomData;

use aya::Pod;
use aya::maps::{Map, MapData};
use aya::util::nr_cpus;
use linger_ebpf::Counters;
use nix::errno::Errno;
use nix::libc;

use super::LedgerError;
use crate::probe::Maps;
use crate::sys::{bpf, number};

/// A map of counters for every CPU.
pub(super) struct PerCpu<K> {
    name: &'static str,
    map: MapData,
    cpus: usize,
    /// Entries that are read at a time.
    batch: usize,
    _keys: PhantomData<fn() -> K>,
}

/// Room for a batch of entries.
struct Batch<K> {
    keys: Vec<K>,
    /// A copy for every CPU.
    values: Vec<Counters>,
}

/// Bytes that are read at a time, about.
const BATCH_BYTES: usize = 256 * 1024;

/// Entries that are read at a time, at least: as many as one place of the kernel's table may hold.
const BATCH_ENTRIES: usize = 32;

impl<K: Pod + Default> PerCpu<K> {
    /// Takes the map.
    pub(super) fn take(maps: &mut Maps, name: &'static str) -> Result<Self, LedgerError> {
        let Some(Map::PerCpuHashMap(map) | Map::PerCpuArray(map)) = maps.take(name) else {
            return Err(LedgerError::NoMap(name));
        };
        let cpus = nr_cpus().map_err(|(_, source)| LedgerError::Call { map: name, source })?;
        Ok(Self {
            name,
            map,
            cpus,
            batch: (BATCH_BYTES / (cpus * size_of::<Counters>())).max(BATCH_ENTRIES),
            _keys: PhantomData,
        })
    }

    /// Reads all counters, summed over the CPUs. Those that come or go meanwhile may be left out, no
    /// other, and none is read twice.
    pub(super) fn for_each(
        &self,
        mut each: impl FnMut(&K, &mut Counters),
    ) -> Result<(), LedgerError> {
        let mut batch = Batch::new(self.batch, self.cpus);
        let mut from = None;
        loop {
            let (entries, next) = match self.read(from, &mut batch) {
                Ok(read) => read,
                // More share a place than there is room for.
                Err(Errno::ENOSPC) => {
                    batch = Batch::new(batch.keys.len() * 2, self.cpus);
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            let values = batch.values.chunks(self.cpus);
            for (key, copies) in batch.keys.iter().zip(values).take(entries) {
                each(key, &mut sum(copies));
            }
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the next entries: how many they are, and where the rest begins.
    fn read(&self, from: Option<u32>, batch: &mut Batch<K>) -> Result<(usize, Option<u32>), Errno> {
        let start = from.unwrap_or_default();
        let mut next = 0_u32;
        let mut call = LookupBatch {
            in_batch: from.map_or(0, |_| address(&raw const start)),
            out_batch: address(&raw mut next),
            keys: address(batch.keys.as_mut_ptr()),
            values: address(batch.values.as_mut_ptr()),
            count: u32::try_from(batch.keys.len()).unwrap_or(u32::MAX),
            map_fd: self.fd(),
            ..LookupBatch::default()
        };
        // SAFETY: the buffers hold as many keys, and values of every CPU, as `count` says, of the
        // sizes that the map was made with; the places of a batch are numbers of 32 bits.
        let done = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut call) };
        let entries = call.count as usize;
        match done {
            Ok(_) => Ok((entries, Some(next))),
            // That was the end.
            Err(Errno::ENOENT) => Ok((entries, None)),
            Err(error) => Err(error),
        }
    }

    /// The counters of one, summed over the CPUs; none if it is not there.
    pub(super) fn get(&self, key: &K) -> Result<Option<Counters>, LedgerError> {
        let mut copies = vec![Counters::ZERO; self.cpus];
        match self.call(BPF_MAP_LOOKUP_ELEM, key, address(copies.as_mut_ptr())) {
            Ok(()) => Ok(Some(sum(&copies))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Removes an entry, if it is there.
    pub(super) fn remove(&self, key: &K) -> Result<(), LedgerError> {
        match self.call(BPF_MAP_DELETE_ELEM, key, 0) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Does something to an entry; `value` is where its copies are written to, one for each CPU, or 0 if none is.
    fn call(&self, command: libc::c_long, key: &K, value: u64) -> Result<(), Errno> {
        let mut call = Element {
            map_fd: self.fd(),
            key: address(&raw const *key),
            value,
            ..Element::default()
        };
        // SAFETY: key and value are of the sizes that the map was made with, for every CPU; only what
        // takes none is called without a value.
        unsafe { bpf(command, &mut call) }.map(drop)
    }

    fn fd(&self) -> u32 {
        number(self.map.fd())
    }

    fn failed(&self, error: Errno) -> LedgerError {
        LedgerError::Call {
            map: self.name,
            source: io::Error::from(error),
        }
    }
}

impl<K: Clone + Default> Batch<K> {
    fn new(entries: usize, cpus: usize) -> Self {
        Self {
            keys: vec![K::default(); entries],
            values: vec![Counters::ZERO; entries * cpus],
        }
    }
}

fn sum(copies: &[Counters]) -> Counters {
    let mut sum = Counters::ZERO;
    for copy in copies {
        super::sum::add(&mut sum, copy);
    }
    sum
}

fn address<T>(of: *const T) -> u64 {
    of as u64
}

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// `union bpf_attr`, the part `batch` (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `union bpf_attr`, the part of commands on an element.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}
