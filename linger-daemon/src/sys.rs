//! System calls that crates do not offer, or not as needed.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{self, ForkResult, Pid};
use perf_event_open_sys as perf;

/// Runs `child` in a new process, which ends with what it returns and cleans nothing up. Fails if there are other
/// threads, for whose locks it could wait in vain.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    if !has_one_thread() {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // SAFETY: there are no other threads.
    match unsafe { unistd::fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = child();
            // SAFETY: has no preconditions.
            unsafe { libc::_exit(status.into()) }
        }
    }
}

/// Whether this thread is the only one of the process.
pub(crate) fn has_one_thread() -> bool {
    fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Calls bpf(2).
///
/// # Safety
///
/// `attributes` must match the command, and the memory they point to must have the size they give.
pub(crate) unsafe fn bpf<T>(
    command: libc::c_long,
    attributes: &mut T,
) -> Result<libc::c_long, Errno> {
    // SAFETY: as the caller promises.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    Errno::result(result)
}

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_CREATE: libc::c_long = 28;

/// The part of `union bpf_attr` for `BPF_OBJ_*` (include/uapi/linux/bpf.h).
#[repr(C)]
struct Object {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Calls bpf(2) with a file of a BPF file system.
fn object(command: libc::c_long, path: &Path, fd: u32) -> io::Result<libc::c_long> {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.push(0);
    let mut call = Object {
        path: name.as_ptr() as u64,
        fd,
        flags: 0,
    };
    // SAFETY: the name is zero-terminated, and outlives the call.
    Ok(unsafe { bpf(command, &mut call) }?)
}

/// Pins an object in a BPF file system.
pub(crate) fn pin(what: &impl AsFd, path: &Path) -> io::Result<()> {
    object(BPF_OBJ_PIN, path, number(what)).map(drop)
}

/// Opens an object pinned in a BPF file system.
pub(crate) fn get(path: &Path) -> io::Result<OwnedFd> {
    Ok(owned(object(BPF_OBJ_GET, path, 0)?)?)
}

/// `union bpf_attr`, the part `link_create`.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    cookie: u64,
}

/// Attaches a program to a perf event, by a link that keeps both.
///
/// kernel: v5.15.. kernel/bpf/syscall.c: `bpf_perf_link_attach`
pub(crate) fn link_to_event(program: &impl AsFd, event: &impl AsFd) -> io::Result<OwnedFd> {
    const BPF_PERF_EVENT: u32 = 41;
    let mut call = LinkCreate {
        program: number(program),
        target: number(event),
        attach_type: BPF_PERF_EVENT,
        ..LinkCreate::default()
    };
    // SAFETY: both are open, and nothing is pointed to.
    Ok(owned(unsafe { bpf(BPF_LINK_CREATE, &mut call) }?)?)
}

/// Attaches a program to the release of sockets in a cgroup and below, by a link that keeps both. Other programs may
/// be attached there too.
///
/// kernel: v5.9.. kernel/bpf/cgroup.c: `cgroup_bpf_link_attach`
pub(crate) fn link_to_releases(program: &impl AsFd, cgroup: &impl AsFd) -> io::Result<OwnedFd> {
    const BPF_CGROUP_INET_SOCK_RELEASE: u32 = 34;
    let mut call = LinkCreate {
        program: number(program),
        target: number(cgroup),
        attach_type: BPF_CGROUP_INET_SOCK_RELEASE,
        ..LinkCreate::default()
    };
    // SAFETY: both are open, and nothing is pointed to.
    Ok(owned(unsafe { bpf(BPF_LINK_CREATE, &mut call) }?)?)
}

/// `union bpf_attr`, the part `raw_tracepoint`.
#[repr(C)]
struct RawTracepoint {
    name: u64,
    program: u32,
    unused: u32,
    cookie: u64,
}

/// Attaches a program to the tracepoint for which it was loaded, while the link is held.
///
/// kernel: v5.5.. kernel/bpf/syscall.c: `bpf_raw_tracepoint_open`
pub(crate) fn hook_btf_tracepoint(program: &impl AsFd) -> io::Result<OwnedFd> {
    const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
    let mut call = RawTracepoint {
        name: 0,
        program: number(program),
        unused: 0,
        cookie: 0,
    };
    // SAFETY: there are no pointers: the program knows its tracepoint.
    Ok(owned(unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &mut call) }?)?)
}

/// `struct bpf_link_info`, up to the end of its part for links to cgroups.
///
/// The kernel also reads it: for a link to a perf event, whether there is a buffer for a name
/// (kernel/bpf/syscall.c `bpf_perf_link_fill_common`), in fields that end where `reserved` does. So all of it must be
/// zero, without padding, which the compiler need not initialize.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    unused: u32,
    /// For a link to a cgroup, the cgroup's id; 0 once it is detached.
    cgroup_id: u64,
    attach_type: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<LinkInfo>() == 6 * size_of::<u32>() + size_of::<u64>());

/// `union bpf_attr`, the part `info`.
#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// Gets the kernel's information about a link or a program.
///
/// # Safety
///
/// `info` must have the type that the kernel uses for the object, any bytes must be valid for it, and a buffer that it
/// points to must have the size it gives.
unsafe fn get_info<T>(of: &impl AsFd, info: &mut T) -> Result<(), Errno> {
    let mut call = GetInfo {
        fd: number(of),
        length: u32::try_from(size_of::<T>()).expect("a small struct"),
        info: (&raw mut *info) as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes, the size of `info`; the caller promises the rest.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut call) }.map(drop)
}

/// Whether a link is attached: links to cgroups can be detached by others.
pub(crate) fn is_link_attached(link: &impl AsFd) -> bool {
    const BPF_LINK_TYPE_CGROUP: u32 = 3;
    let mut info = LinkInfo::default();
    // SAFETY: all zero, so without pointers to buffers; it consists of integers.
    let known = unsafe { get_info(link, &mut info) };
    known.is_ok() && (info.kind != BPF_LINK_TYPE_CGROUP || info.cgroup_id != 0)
}

/// Words of `struct bpf_prog_info` up to and including `recursion_misses` (include/uapi/linux/bpf.h).
const PROGRAM_INFO: usize = 27;

/// How often the kernel skipped a program because it was already running on that CPU.
///
/// kernel: v5.12.. kernel/bpf/syscall.c: `bpf_prog_get_info_by_fd`
pub(crate) fn skipped_runs(program: &impl AsFd) -> io::Result<u64> {
    let mut info = [0_u64; PROGRAM_INFO];
    // SAFETY: all zero, so without pointers to buffers; any bytes are valid integers.
    unsafe { get_info(program, &mut info) }?;
    Ok(info[PROGRAM_INFO - 1])
}

/// `union bpf_attr`, the part `test`.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    data_in_length: u32,
    data_out_length: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_length: u32,
    context_out_length: u32,
    context: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    reserved: u32,
}

/// Runs a raw tracepoint program once, with these arguments.
///
/// kernel: v5.10.. `net/bpf/test_run.c`: `bpf_prog_test_run_raw_tp`
pub(crate) fn run(program: &impl AsFd, arguments: [u64; 2]) -> io::Result<()> {
    const BPF_PROG_TEST_RUN: libc::c_long = 10;
    let mut call = Run {
        program: number(program),
        context_length: u32::try_from(size_of_val(&arguments)).expect("two words"),
        context: (&raw const arguments) as u64,
        ..Run::default()
    };
    // SAFETY: the arguments are as long as given, and outlive the call.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut call) }?;
    Ok(())
}

/// The descriptor of an open file, as bpf(2) expects it.
#[expect(clippy::cast_sign_loss, reason = "an open file has no negative number")]
pub(crate) fn number(of: &impl AsFd) -> u32 {
    of.as_fd().as_raw_fd() as u32
}

/// Opens an event for all processes on the first CPU (for a tracepoint: on every CPU).
pub(crate) fn open_event(kind: u32, config: u64, flags: libc::c_ulong) -> Result<OwnedFd, Errno> {
    let mut attributes = perf::bindings::perf_event_attr {
        type_: kind,
        size: u32::try_from(size_of::<perf::bindings::perf_event_attr>()).expect("a small struct"),
        config,
        ..Default::default()
    };
    // SAFETY: the attributes are valid for the call, their size is given.
    let event = unsafe { perf::perf_event_open(&raw mut attributes, -1, 0, -1, flags) };
    owned(Errno::result(event)?.into())
}

/// Takes ownership of a descriptor that the kernel has just opened.
pub(crate) fn owned(number: libc::c_long) -> Result<OwnedFd, Errno> {
    let number = number.try_into().map_err(|_| Errno::EBADF)?;
    // SAFETY: it was just opened, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// `CLOCK_MONOTONIC` in nanoseconds, like `bpf_ktime_get_ns`.
pub(crate) fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let whole = u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000;
        whole + u64::try_from(now.tv_nsec()).unwrap_or(0)
    })
}

/// Sets `TCP_LINGER2`: seconds in `FIN_WAIT2` after the close; negative aborts.
pub fn set_linger2(socket: &impl AsRawFd, seconds: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&seconds)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `length` bytes, the size of `seconds`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const seconds).cast(),
            length,
        )
    };
    Errno::result(result)?;
    Ok(())
}
