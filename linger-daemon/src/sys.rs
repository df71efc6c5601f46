//! System calls that no crate offers as needed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_prog_info,
};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetStruct;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{self, ForkResult, Pid};
use perf_event_open_sys as perf;

/// Runs `child` in a new process, which exits with the returned status and cleans nothing up. Fails if there are other
/// threads, for whose locks the child could wait in vain.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> io::Result<Pid> {
    if count_threads()? != 1 {
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
    count_threads().is_ok_and(|threads| threads == 1)
}

fn count_threads() -> io::Result<usize> {
    const TASKS: &str = "/proc/self/task";
    let threads = fs::read_dir(TASKS);
    let why =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot read {TASKS}: {error}"));
    Ok(threads.map_err(why)?.count())
}

/// Calls bpf(2).
///
/// # Safety
///
/// `attributes` must match the command, and the memory they point to must have the size they give.
pub(crate) unsafe fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: as the caller promises.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    check(result)
}

/// Checks the result of a system call. Unlike [`Errno`], this keeps codes that are the kernel's own, such as 524.
pub(crate) fn check<T: Into<i64> + Copy>(result: T) -> io::Result<T> {
    if result.into() < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Attributes for [`bpf`], all zero.
pub(crate) fn attributes() -> bpf_attr {
    // SAFETY: it consists of integers, for which zero bytes are a value.
    unsafe { mem::zeroed() }
}

/// Calls bpf(2) with a file of a BPF file system.
fn object(command: bpf_cmd, path: &Path, fd: u32) -> io::Result<libc::c_long> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut call = attributes();
    call.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    call.__bindgen_anon_4.bpf_fd = fd;
    // SAFETY: the path is zero-terminated, and outlives the call.
    unsafe { bpf(command as u32, &mut call) }
}

/// Pins an object in a BPF file system.
pub(crate) fn pin(what: &impl AsFd, path: &Path) -> io::Result<()> {
    object(bpf_cmd::BPF_OBJ_PIN, path, number(what)).map(drop)
}

/// Opens an object pinned in a BPF file system.
pub(crate) fn get(path: &Path) -> io::Result<OwnedFd> {
    owned(object(bpf_cmd::BPF_OBJ_GET, path, 0)?)
}

/// Attaches a program to a perf event, or to a cgroup and those below, by a link that keeps both. Other programs may be
/// attached to the cgroup too.
///
/// kernel: v5.15.. kernel/bpf/syscall.c: `bpf_perf_link_attach`
/// kernel: v5.9.. kernel/bpf/cgroup.c: `cgroup_bpf_link_attach`
pub(crate) fn link(
    program: &impl AsFd,
    target: &impl AsFd,
    kind: bpf_attach_type,
) -> io::Result<OwnedFd> {
    let mut call = attributes();
    call.link_create.__bindgen_anon_1.prog_fd = number(program);
    call.link_create.__bindgen_anon_2.target_fd = number(target);
    call.link_create.attach_type = kind as u32;
    // SAFETY: both are open, and nothing is pointed to.
    owned(unsafe { bpf(bpf_cmd::BPF_LINK_CREATE as u32, &mut call) }?)
}

/// Attaches a program to the raw tracepoint with this name, while the link is held; without a name, to the function or
/// tracepoint for which it was loaded.
///
/// kernel: v5.5.. kernel/bpf/syscall.c: `bpf_raw_tracepoint_open`
pub(crate) fn open_raw_tracepoint(program: &impl AsFd, name: Option<&str>) -> io::Result<OwnedFd> {
    let name = name.map(CString::new).transpose()?;
    let mut call = attributes();
    call.raw_tracepoint.name = name.as_ref().map_or(0, |name| name.as_ptr() as u64);
    call.raw_tracepoint.prog_fd = number(program);
    // SAFETY: the name, if any, is zero-terminated, and outlives the call.
    owned(unsafe { bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN as u32, &mut call) }?)
}

/// Gets the kernel's information about a link or a program.
///
/// # Safety
///
/// `T` must be the type that the kernel uses for the object, and zero bytes and any that the kernel writes must be a
/// value of it.
unsafe fn get_info<T>(of: &impl AsFd) -> io::Result<T> {
    // The kernel also reads it: for some links, whether there is a buffer for a name (kernel/bpf/syscall.c
    // `bpf_perf_link_fill_common`). So all of it is zero, padding included.
    let mut info = MaybeUninit::<T>::zeroed();
    let mut call = attributes();
    call.info.bpf_fd = number(of);
    call.info.info_len = u32::try_from(size_of::<T>()).expect("a small struct");
    call.info.info = info.as_mut_ptr() as u64;
    // SAFETY: the kernel writes at most `info_len` bytes, the size of `info`, which points to no buffer.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD as u32, &mut call) }?;
    // SAFETY: it was zero, and the caller promises the rest.
    Ok(unsafe { info.assume_init() })
}

/// Whether a link is attached: links to cgroups can be detached by others.
pub(crate) fn is_link_attached(link: &impl AsFd) -> bool {
    // SAFETY: it consists of integers.
    let Ok(info) = (unsafe { get_info::<bpf_link_info>(link) }) else {
        return false;
    };
    // SAFETY: a link to a cgroup has this part. The cgroup's id is 0 once it is detached.
    info.type_ != bpf_link_type::BPF_LINK_TYPE_CGROUP as u32
        || unsafe { info.__bindgen_anon_1.cgroup.cgroup_id } != 0
}

/// Gets the kernel's information about a program: how often it ran, and for how long, while BPF statistics were switched
/// on; and how often the kernel skipped it, because it was already running on that CPU.
///
/// kernel: v5.12.. kernel/bpf/syscall.c: `bpf_prog_get_info_by_fd`
pub(crate) fn program_info(program: &impl AsFd) -> io::Result<bpf_prog_info> {
    // SAFETY: it consists of integers.
    unsafe { get_info(program) }
}

/// Runs a raw tracepoint program once, with these arguments.
///
/// kernel: v5.10.. `net/bpf/test_run.c`: `bpf_prog_test_run_raw_tp`
pub(crate) fn run(program: &impl AsFd, arguments: [u64; 2]) -> io::Result<u32> {
    let mut call = attributes();
    call.test.prog_fd = number(program);
    call.test.ctx_size_in = u32::try_from(size_of_val(&arguments)).expect("two words");
    call.test.ctx_in = (&raw const arguments) as u64;
    // SAFETY: the arguments are as long as given, and outlive the call.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN as u32, &mut call) }?;
    // SAFETY: an integer, of the attributes of this command.
    Ok(unsafe { call.test.retval })
}

/// The descriptor of an open file, as bpf(2) expects it.
#[expect(clippy::cast_sign_loss, reason = "an open file has no negative number")]
pub(crate) fn number(of: &impl AsFd) -> u32 {
    of.as_fd().as_raw_fd() as u32
}

/// Opens an event for all processes on the first CPU (for a tracepoint: on every CPU).
pub(crate) fn open_event(kind: u32, config: u64, flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let mut attributes = perf::bindings::perf_event_attr {
        type_: kind,
        size: u32::try_from(size_of::<perf::bindings::perf_event_attr>()).expect("a small struct"),
        config,
        ..Default::default()
    };
    // SAFETY: the attributes are valid for the call, their size is given.
    let event = unsafe { perf::perf_event_open(&raw mut attributes, -1, 0, -1, flags) };
    owned(check(event)?.into())
}

/// Takes ownership of a descriptor that the kernel has just opened.
pub(crate) fn owned(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = number.try_into().map_err(|_| Errno::EBADF)?;
    // SAFETY: it was just opened, and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Stops this process until it is continued, as the terminal does by Ctrl-Z, although it handles that signal. Unlike
/// `SIGSTOP`, this does nothing where no shell of the session could continue it.
pub(crate) fn stop_as_by_terminal() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of this process.
    let handler = unsafe { sigaction(Signal::SIGTSTP, &default) }?;
    let raised = raise(Signal::SIGTSTP);
    // SAFETY: this puts back what was in place before.
    unsafe { sigaction(Signal::SIGTSTP, &handler) }?;
    Ok(raised?)
}

/// `CLOCK_MONOTONIC` in nanoseconds, like `bpf_ktime_get_ns`.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

#[derive(Clone, Copy)]
struct Linger2;

nix::setsockopt_impl!(
    Linger2,
    libc::IPPROTO_TCP,
    libc::TCP_LINGER2,
    i32,
    SetStruct<i32>
);

/// Sets `TCP_LINGER2`: seconds in `FIN_WAIT2` after the close; negative aborts.
pub fn set_linger2(socket: &impl AsFd, seconds: i32) -> io::Result<()> {
    Ok(setsockopt(socket, Linger2, &seconds)?)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::kill;
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

    use super::*;

    #[test]
    fn a_process_that_no_shell_could_continue_is_not_stopped() {
        // SAFETY: the child does nothing but call the kernel, and ends.
        match unsafe { unistd::fork() }.unwrap() {
            ForkResult::Child => {
                // The first process of a session has no shell above it.
                let goes_on = unistd::setsid().is_ok() && stop_as_by_terminal().is_ok();
                // SAFETY: ends the child without running or dropping anything of the parent's.
                unsafe { libc::_exit(i32::from(!goes_on)) }
            }
            ForkResult::Parent { child } => {
                let status = waitpid(child, Some(WaitPidFlag::WUNTRACED)).unwrap();
                if matches!(status, WaitStatus::Stopped(..)) {
                    kill(child, Signal::SIGKILL).unwrap();
                }
                assert_eq!(status, WaitStatus::Exited(child, 0));
            }
        }
    }
}
