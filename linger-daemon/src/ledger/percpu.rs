//! Maps with a copy of each row for every CPU, read many rows at a time.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Map, MapData};
use aya::util::nr_cpus;
use aya::{Ebpf, Pod};
use linger_ebpf::Row;
use nix::errno::Errno;
use nix::libc;

use super::LedgerError;

/// A map of rows for every CPU, and the room to read it into.
pub(super) struct PerCpu<K> {
    name: &'static str,
    map: MapData,
    cpus: usize,
    keys: Vec<K>,
    values: Vec<Row>,
}

/// Bytes that are read at a time, about.
const BATCH_BYTES: usize = 256 * 1024;

/// Rows that are read at a time, at least: as many as one place of the kernel's table may hold.
const BATCH_ROWS: usize = 32;

impl<K: Pod + Default> PerCpu<K> {
    /// Takes the map.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, LedgerError> {
        let Some(Map::PerCpuHashMap(map) | Map::PerCpuArray(map)) = ebpf.take_map(name) else {
            return Err(LedgerError::NoMap(name));
        };
        let cpus = nr_cpus().map_err(|(_, source)| LedgerError::Call { map: name, source })?;
        let rows = (BATCH_BYTES / (cpus * size_of::<Row>())).max(BATCH_ROWS);
        let mut taken = Self {
            name,
            map,
            cpus,
            keys: Vec::new(),
            values: Vec::new(),
        };
        taken.make_room(rows);
        Ok(taken)
    }

    fn make_room(&mut self, rows: usize) {
        self.keys.resize(rows, K::default());
        self.values.resize(rows * self.cpus, Row::ZERO);
    }

    /// Reads every row, summed over the CPUs. Those that come or go meanwhile may be left out, no
    /// other, and none is read twice.
    pub(super) fn for_each(&mut self, mut each: impl FnMut(&K, &Row)) -> Result<(), LedgerError> {
        let mut from = None;
        loop {
            let batch = self.read(from);
            let (rows, next) = match batch {
                Ok(batch) => batch,
                // More rows share a place than there is room for.
                Err(Errno::ENOSPC) => {
                    self.make_room(self.keys.len() * 2);
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };
            let values = self.values.chunks(self.cpus);
            for (key, copies) in self.keys.iter().zip(values).take(rows) {
                each(key, &sum(copies));
            }
            from = next;
            if from.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the next rows: how many they are, and where the rest begins.
    fn read(&mut self, from: Option<u32>) -> Result<(usize, Option<u32>), Errno> {
        let start = from.unwrap_or_default();
        let mut next = 0_u32;
        let mut call = LookupBatch {
            in_batch: from.map_or(0, |_| address(&raw const start)),
            out_batch: address(&raw mut next),
            keys: address(self.keys.as_mut_ptr()),
            values: address(self.values.as_mut_ptr()),
            count: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
            map_fd: self.fd(),
            ..LookupBatch::default()
        };
        // SAFETY: the buffers hold as many keys, and values of every CPU, as `count` says, of the
        // sizes that the map was made with; the places of a batch are numbers of 32 bits.
        let done = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut call) };
        let rows = call.count as usize;
        match done {
            Ok(()) => Ok((rows, Some(next))),
            // That was the end.
            Err(Errno::ENOENT) => Ok((rows, None)),
            Err(error) => Err(error),
        }
    }

    /// Takes a row out of the map; none if it is not there.
    pub(super) fn remove(&self, key: &K) -> Result<Option<Row>, LedgerError> {
        let mut copies = vec![Row::ZERO; self.cpus];
        let mut call = TakeElement {
            map_fd: self.fd(),
            key: address(&raw const *key),
            value: address(copies.as_mut_ptr()),
            ..TakeElement::default()
        };
        // SAFETY: key and value are of the sizes that the map was made with, for every CPU.
        match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut call) } {
            Ok(()) => Ok(Some(sum(&copies))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    #[expect(clippy::cast_sign_loss, reason = "an open file has no negative number")]
    fn fd(&self) -> u32 {
        self.map.fd().as_fd().as_raw_fd() as u32
    }

    fn failed(&self, error: Errno) -> LedgerError {
        LedgerError::Call {
            map: self.name,
            source: io::Error::from(error),
        }
    }
}

fn sum(copies: &[Row]) -> Row {
    let mut sum = Row::ZERO;
    for copy in copies {
        super::sum::add_row(&mut sum, copy);
    }
    sum
}

fn address<T>(of: *const T) -> u64 {
    of as u64
}

const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
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
struct TakeElement {
    map_fd: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Calls bpf(2).
///
/// # Safety
///
/// `attributes` must be those of the command, and what they point to as large as they say.
unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> Result<(), Errno> {
    // SAFETY: as the caller promises.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    Errno::result(result).map(drop)
}
