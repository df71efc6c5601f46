//! Array maps of the kernel, mapped into memory.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use aya::maps::Map;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{LedgerError, failed};
use crate::probe::Maps;

/// An array map that was made with `BPF_F_MMAPABLE`, as 64-bit words.
pub(crate) struct MappedArray {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for MappedArray {}

impl MappedArray {
    /// Maps the first `bytes` of an array.
    pub(crate) fn map(maps: &Maps, name: &'static str, bytes: usize) -> Result<Self, LedgerError> {
        let (Some(Map::Array(array)), Some(bytes)) = (maps.get(name), NonZeroUsize::new(bytes))
        else {
            return Err(LedgerError::NoMap(name));
        };
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let shared = MapFlags::MAP_SHARED;
        // SAFETY: a new mapping; beyond the array's end the kernel refuses it.
        let start = unsafe { mmap(None, bytes, access, shared, array.fd(), 0) };
        let start = start.map_err(|error| failed("map", name)(io::Error::from(error)))?;
        Ok(Self { start, bytes })
    }

    /// The word that begins at this byte.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < self.bytes.get());
        // SAFETY: within the mapping, which lives as long as `self`, and aligned, as its start is;
        // all that write to it, here and in the kernel, write whole words.
        unsafe { self.start.byte_add(at).cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: nothing that refers to the mapping outlives it. It cannot fail: it is a mapping.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
