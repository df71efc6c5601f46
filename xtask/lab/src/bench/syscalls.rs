//! Counts the system calls of a process by perf events.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::unistd::read;
use perf_event_open_sys::{self as perf, bindings};

/// Counts the system calls of a process, including threads that it starts later.
pub(super) struct Syscalls {
    all: Vec<OwnedFd>,
    bpf: Vec<OwnedFd>,
}

/// Numbers of system calls.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) all: u64,
    /// Those that are bpf(2).
    pub(super) bpf: u64,
}

impl Counted {
    /// Divides the counts by `number`, rounding up.
    pub(super) fn per(self, number: u32) -> Self {
        let one = |count: u64| count.div_ceil(number.into());
        Self {
            all: one(self.all),
            bpf: one(self.bpf),
        }
    }
}

impl Syscalls {
    /// Starts to count the system calls of this process.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let id = fs::read_to_string("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
            .context("the kernel has no event of system calls")?;
        let id = id.trim().parse()?;
        let mut counts = Self {
            all: Vec::new(),
            bpf: Vec::new(),
        };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let tid = task?.file_name().to_string_lossy().parse()?;
            let open = || open(id, tid).context("count system calls");
            counts.all.push(open()?);
            let bpf = open()?;
            only(&bpf, libc::SYS_bpf).context("count calls of bpf(2)")?;
            counts.bpf.push(bpf);
        }
        Ok(counts)
    }

    /// Returns the counts so far.
    pub(super) fn count(&self) -> Result<Counted> {
        Ok(Counted {
            all: sum(&self.all)?,
            bpf: sum(&self.bpf)?,
        })
    }
}

fn sum(events: &[OwnedFd]) -> Result<u64> {
    let mut sum = 0;
    for event in events {
        let mut count = [0; 8];
        read(event, &mut count)?;
        sum += u64::from_ne_bytes(count);
    }
    Ok(sum)
}

/// Opens a counter of an event in a thread and those that it starts.
fn open(event: u64, tid: i32) -> io::Result<OwnedFd> {
    let mut attributes = bindings::perf_event_attr {
        type_: bindings::PERF_TYPE_TRACEPOINT,
        size: u32::try_from(size_of::<bindings::perf_event_attr>()).expect("a small struct"),
        config: event,
        ..Default::default()
    };
    attributes.set_inherit(1);
    let flags = bindings::PERF_FLAG_FD_CLOEXEC.into();
    // SAFETY: the attributes contain their own size.
    let fd = unsafe { perf::perf_event_open(&raw mut attributes, tid, -1, -1, flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: just opened, and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Restricts a counter to one system call.
fn only(event: &OwnedFd, syscall: c_long) -> io::Result<()> {
    let filter = format!("id == {syscall}\0");
    // SAFETY: the filter ends with a zero, and the kernel only reads it.
    let done =
        unsafe { perf::ioctls::SET_FILTER(event.as_raw_fd(), filter.as_ptr().cast_mut().cast()) };
    Errno::result(done)?;
    Ok(())
}
