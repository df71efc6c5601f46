//! Array maps of the kernel, mapped into memory.

use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Pod;
use aya::maps::Map;
use linger_ebpf::pod::words_mut;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{LedgerError, failed};
use crate::probe::Maps;

/// An array map that was made with `BPF_F_MMAPABLE`, with entries of this type, which are accessed as 64-bit words.
pub(crate) struct MappedArray<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    entries: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl<T> Send for MappedArray<T> {}

impl<T> MappedArray<T> {
    /// Maps a whole array.
    pub(crate) fn map(maps: &Maps, name: &'static str) -> Result<Self, LedgerError> {
        let Some(Map::Array(array)) = maps.get(name) else {
            return Err(LedgerError::NoMap(name));
        };
        let info = array.info().map_err(failed("read", name))?;
        let bytes = info.max_entries() as usize * size_of::<T>();
        let bytes = NonZeroUsize::new(bytes).ok_or(LedgerError::NoMap(name))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let shared = MapFlags::MAP_SHARED;
        // SAFETY: a new mapping; beyond the array's end the kernel refuses it.
        let start = unsafe { mmap(None, bytes, access, shared, array.fd(), 0) };
        let start = start.map_err(|error| failed("map", name)(io::Error::from(error)))?;
        Ok(Self {
            start,
            bytes,
            entries: PhantomData,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.get() / size_of::<T>()
    }

    /// The word at this offset in an entry, bytes.
    pub(crate) fn word(&self, index: usize, offset: usize) -> &AtomicU64 {
        let at = index * size_of::<T>() + offset;
        assert!(at.is_multiple_of(8) && at < self.bytes.get());
        // SAFETY: within the mapping, which lives as long as `self`, and aligned, as its start is;
        // words that change here are only written whole; others may be read half-written.
        unsafe { self.start.byte_add(at).cast::<AtomicU64>().as_ref() }
    }

    /// Reads a value at this offset in an entry, word by word from the first. Others may write them meanwhile.
    pub(super) fn read<V: Pod>(&self, index: usize, offset: usize, mut value: V) -> V {
        let offsets = (offset..).step_by(size_of::<u64>());
        for (word, offset) in words_mut(&mut value).iter_mut().zip(offsets) {
            *word = self.word(index, offset).load(Ordering::Acquire);
        }
        value
    }
}

impl<T> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: nothing that refers to the mapping outlives it. It cannot fail: it is a mapping.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
