//! Probes the kernel with harmless system calls.

use std::os::fd::OwnedFd;

use caps::Capability;
use nix::errno::Errno;
use nix::libc;
use perf_event_open_sys as perf;

use crate::privileges;
use crate::sys;

/// The answers of the kernel to this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelProbe {
    /// Capabilities that are missing.
    pub missing: Vec<Capability>,
    /// The error with which bpf(2) refuses even an unknown command; `None` if it only calls the command unknown.
    pub bpf_refused: Option<Errno>,
    /// Like `bpf_refused`, for `perf_event_open(2)` and an unknown flag.
    pub perf_refused: Option<Errno>,
    /// Why no map can be created.
    pub map: Option<Errno>,
    /// Why no event of the whole host can be opened.
    pub event: Option<Errno>,
}

impl KernelProbe {
    /// Probes the running kernel.
    #[must_use]
    pub fn now() -> Self {
        Self {
            missing: privileges::missing(),
            bpf_refused: refusal(bpf(i32::MAX.cast_unsigned(), &MapAttributes::default())),
            perf_refused: refusal(open_event(libc::c_ulong::MAX)),
            map: bpf(MAP_CREATE, &MapAttributes::SMALLEST).err(),
            event: open_event(0).err(),
        }
    }
}

fn refusal(answer: Result<OwnedFd, Errno>) -> Option<Errno> {
    let refused = |errno: &Errno| [Errno::EPERM, Errno::ENOSYS].contains(errno);
    answer.err().filter(refused)
}

/// `BPF_MAP_CREATE`
const MAP_CREATE: u32 = 0;

/// The part of `union bpf_attr` for creating a map (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MapAttributes {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

impl MapAttributes {
    /// An array of one number.
    const SMALLEST: Self = Self {
        map_type: 2,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
    };
}

fn bpf(command: u32, attributes: &MapAttributes) -> Result<OwnedFd, Errno> {
    let mut attributes = *attributes;
    // SAFETY: these are the attributes for creating a map, without pointers.
    sys::owned(unsafe { sys::bpf(command, &mut attributes) }?)
}

/// Opens the dummy event.
fn open_event(flags: libc::c_ulong) -> Result<OwnedFd, Errno> {
    use perf::bindings::{PERF_COUNT_SW_DUMMY, PERF_TYPE_SOFTWARE};
    sys::open_event(PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY.into(), flags)
}
