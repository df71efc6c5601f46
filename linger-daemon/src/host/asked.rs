//! What the kernel answers when it is asked.

use std::os::fd::{FromRawFd as _, OwnedFd};

use caps::Capability;
use nix::errno::Errno;
use nix::libc;
use perf_event_open_sys as perf;

use crate::privileges;

/// The answers of the kernel to this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Capabilities that are missing.
    pub missing: Vec<Capability>,
    /// How even a command that there is not is refused by bpf(2); none if it is called unknown.
    pub bpf_refused: Option<Errno>,
    /// As `bpf_refused`, of `perf_event_open(2)` and its flags.
    pub perf_refused: Option<Errno>,
    /// Why no map can be made.
    pub map: Option<Errno>,
    /// Why no event of the whole host can be opened.
    pub event: Option<Errno>,
}

impl Asked {
    /// Asks.
    #[must_use]
    pub fn now() -> Self {
        Self {
            missing: privileges::missing(),
            bpf_refused: refusal(bpf(libc::c_int::MAX, &MapAttributes::default())),
            perf_refused: refusal(open_event(libc::c_ulong::MAX)),
            map: bpf(MAP_CREATE, &MapAttributes::SMALLEST).err(),
            event: open_event(0).err(),
        }
    }
}

fn refusal(answer: Result<(), Errno>) -> Option<Errno> {
    let refused = |errno: &Errno| [Errno::EPERM, Errno::ENOSYS].contains(errno);
    answer.err().filter(refused)
}

/// `BPF_MAP_CREATE`
const MAP_CREATE: libc::c_int = 0;

/// As much of `union bpf_attr` as making a map takes (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
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

fn bpf(command: libc::c_int, attributes: &MapAttributes) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many bytes of the attributes as it is told there are.
    let file = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<MapAttributes>(),
        )
    };
    close(Errno::result(file)?);
    Ok(())
}

/// Opens the event that never happens, of all processes on the first CPU.
fn open_event(flags: libc::c_ulong) -> Result<(), Errno> {
    let mut attributes = perf::bindings::perf_event_attr {
        type_: perf::bindings::PERF_TYPE_SOFTWARE,
        config: perf::bindings::PERF_COUNT_SW_DUMMY.into(),
        ..Default::default()
    };
    attributes.size = u32::try_from(size_of_val(&attributes)).unwrap_or_default();
    // SAFETY: the kernel reads as many bytes of the attributes as they say there are.
    let file = unsafe { perf::perf_event_open(&raw mut attributes, -1, 0, -1, flags) };
    close(Errno::result(file)?.into());
    Ok(())
}

/// Closes a file that the kernel just opened.
fn close(file: libc::c_long) {
    if let Ok(file) = libc::c_int::try_from(file) {
        // SAFETY: it is open, and no one else has it.
        drop(unsafe { OwnedFd::from_raw_fd(file) });
    }
}
