//! Arrays of the kernel, mapped into memory.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use aya::maps::{Map, MapData};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::LedgerError;
use crate::probe::Maps;

/// An array map that was made with `BPF_F_MMAPABLE`, as 64-bit words.
pub(crate) struct Shared {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Shared {}

impl Shared {
    /// Maps the first `bytes` of an array.
    pub(crate) fn map(maps: &Maps, name: &'static str, bytes: usize) -> Result<Self, LedgerError> {
        let (Some(Map::Array(array)), Some(bytes)) = (maps.get(name), NonZeroUsize::new(bytes))
        else {
            return Err(LedgerError::NoMap(name));
        };
        let start =
            share(array, bytes).map_err(|source| LedgerError::Share { map: name, source })?;
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

fn share(array: &MapData, bytes: NonZeroUsize) -> io::Result<NonNull<c_void>> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping; beyond the array's end the kernel refuses it.
    let start = unsafe {
        mmap(
            None,
            bytes,
            access,
            MapFlags::MAP_SHARED,
            array.fd().as_fd(),
            0,
        )
    }?;
    Ok(start)
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nothing that refers to the mapping outlives it. It cannot fail: it is a mapping.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
