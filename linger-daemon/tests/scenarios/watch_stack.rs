//! `lingerd watch --stack`: stacks have the names of functions, from files that processes choose.

use std::ffi::c_void;
use std::fs::{self, Permissions};
use std::mem;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::event::WatchEvent;
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;
use nix::libc::{self, c_long};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, mkfifo, pipe, read, write};
use tempfile::{NamedTempFile, TempPath};

use crate::daemon::wait_until;
use crate::netns;
use crate::scenario::Scenario;
use crate::watching::{Watching, closes};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("watch_stack", stack).by_plan_only(),
    Scenario::daemon("watch_stack_of_hostile", hostile_stack).once(),
    Scenario::daemon("watch_stack_of_user", stack_of_user).once(),
];

/// `CAP_SETGID`, `CAP_SETUID`, `CAP_SYS_PTRACE`, `CAP_CHECKPOINT_RESTORE`: needed to read the programs of other users.
const READING: [u32; 4] = [6, 7, 19, 40];

/// Starts a watch with stacks, until one close of this listener's connections is shown.
fn start(lingerd: &Path, plan: Plan, loopback: &Loopback) -> Result<Watching> {
    let port = tcp::port(loopback.listener())?.to_string();
    let options = [
        "--plan",
        plan.name(),
        "--port",
        &port,
        "--stack",
        "--count",
        "1",
    ];
    Watching::start(lingerd, &options)
}

/// The stack leads to the call of close, by name.
fn stack(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        let watching = start(lingerd, plan, &loopback)?;
        let pair = loopback.pair()?;
        // It says that it watches before it drops the others.
        wait_until("a watch with few capabilities", || {
            Ok(watching.expect_capabilities(&READING).is_ok())
        })?;
        tcp::close(pair.client)?;
        let (status, told, errors) = watching.end()?;
        ensure!(status.success(), "{status}: {errors}");
        let [WatchEvent::Close(close)] = &told[..] else {
            anyhow::bail!("one close was asked for: {told:?}")
        };
        let first = close.stack.first().context("there is no stack")?;
        ensure!(first.symbol.contains("close"), "{:?}", close.stack);
        Ok(())
    })
}

/// A function that calls close(2).
type CloseFunction = extern "C" fn(RawFd) -> c_long;

/// Makes [`CloseFunction`] outside of any file.
fn make_close() -> Result<CloseFunction> {
    #[cfg(target_arch = "x86_64")]
    const CODE: &[u8] = &[0xb8, 3, 0, 0, 0, 0x0f, 5, 0xc3];
    #[cfg(target_arch = "aarch64")]
    const CODE: &[u8] = &[0x28, 7, 0x80, 0xd2, 1, 0, 0, 0xd4, 0xc0, 3, 0x5f, 0xd6];
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC;
    let size = CODE.len().try_into()?;
    // SAFETY: it replaces no other memory, and has room for the code, which is a function of this type.
    unsafe {
        let memory = mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE)?;
        memory
            .cast::<u8>()
            .copy_from(NonNull::from(CODE).cast(), CODE.len());
        Ok(mem::transmute::<NonNull<c_void>, CloseFunction>(memory))
    }
}

/// The file that names the functions of code outside of any file is opened only if the user of the process may open it.
fn stack_of_user(lingerd: &Path, plan: Plan) -> Result<()> {
    const NOBODY: u32 = 65534;
    netns::in_own(|| {
        let close = make_close()?;
        let loopback = Loopback::new()?;
        let names = NamedTempFile::new()?;
        fs::write(&names, format!("{:x} 100 named\n", close as usize))?;
        for (mode, expected) in [(0o600, ""), (0o644, "named")] {
            fs::set_permissions(&names, Permissions::from_mode(mode))?;
            let mut watching = start(lingerd, plan, &loopback)?;
            let pair = loopback.pair()?;
            let client = pair.client.into_raw_fd();
            let (begins, begin) = pipe()?;
            let (ends, end) = pipe()?;
            // SAFETY: the child only calls the kernel.
            let child = match unsafe { fork() }? {
                ForkResult::Parent { child } => child,
                ForkResult::Child => {
                    drop(end);
                    let mut byte = [0];
                    let _ = read(&begins, &mut byte);
                    // SAFETY: it has no other threads.
                    let is_nobody = unsafe { libc::syscall(libc::SYS_setuid, NOBODY) } == 0;
                    let closed = is_nobody && close(client) == 0;
                    // The process is there until its stack is named.
                    let _ = read(&ends, &mut byte);
                    // SAFETY: it ends the child at once.
                    unsafe { libc::_exit(i32::from(!closed)) }
                }
            };
            drop((begins, ends));
            // SAFETY: its own descriptor, which nothing else owns.
            drop(unsafe { OwnedFd::from_raw_fd(client) });
            let map = PathBuf::from(format!("/tmp/perf-{child}.map"));
            symlink(&names, &map)?;
            let map = TempPath::try_from_path(map)?;
            write(&begin, &[0])?;
            watching.expect_end()?;
            drop(end);
            ensure!(
                waitpid(child, None)? == WaitStatus::Exited(child, 0),
                "it did not close"
            );
            let (status, told, errors) = watching.end()?;
            ensure!(status.success(), "{status}: {errors}");
            let first = closes(&told).flat_map(|close| &close.stack).next();
            let first = first.context("there is no stack")?;
            let name = first.symbol.split('+').next();
            ensure!(name == Some(expected), "{first:?} and not {expected:?}");
            drop(map);
        }
        Ok(())
    })
}

/// Code outside of any file closes, and the file that could name it is a FIFO: the watch does not wait for its writer.
fn hostile_stack(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let map = PathBuf::from(format!("/tmp/perf-{}.map", process::id()));
        mkfifo(&map, Mode::S_IRWXU)?;
        let map = TempPath::try_from_path(map)?;
        let close = make_close()?;
        let loopback = Loopback::new()?;
        let mut watching = start(lingerd, plan, &loopback)?;
        let pair = loopback.pair()?;
        ensure!(close(pair.client.into_raw_fd()) == 0, "close failed");
        watching.expect_end()?;
        let (status, told, errors) = watching.end()?;
        ensure!(status.success(), "{status}: {errors}");
        let symbols: Vec<_> = closes(&told)
            .flat_map(|close| &close.stack)
            .map(|frame| &frame.symbol)
            .collect();
        ensure!(
            symbols.first().is_some_and(|symbol| symbol.is_empty()),
            "{symbols:?}"
        );
        drop(map);
        Ok(())
    })
}
