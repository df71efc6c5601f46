//! Processes that are created in a cgroup, close sockets there and exit.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use linger_daemon::attribution;
use linger_daemon::exercise::{state, tcp};
use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use socket2::Socket;

use crate::service::slice_name;

/// `CLONE_INTO_CGROUP` (include/uapi/linux/sched.h), which is wider than the type that `libc` gives it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Resets a connection by closing `first`, then closes `other`. Does not allocate.
pub(crate) fn abort(first: Socket, other: Socket) -> io::Result<()> {
    first.set_linger(Some(Duration::ZERO))?;
    tcp::close(first)?;
    close_after_reset(other)
}

/// Waits for the RST of the peer, then closes. Does not allocate.
pub(crate) fn close_after_reset(socket: Socket) -> io::Result<()> {
    loop {
        match (&socket).read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Errno::EPROTO.into()),
        }
    }
    tcp::close(socket)?;
    Ok(())
}

/// A cgroup of this run, removed when dropped at the latest.
pub(crate) struct Cgroup {
    name: String,
    folder: PathBuf,
}

impl Cgroup {
    /// Creates one in the slice of the run.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        let slice = Self::slice();
        let folder = attribution::cgroup_root()?.join(&slice).join(name);
        // The slice exists for all cgroups but the first.
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&folder)?,
            result => result?,
        }
        Ok(Self {
            name: name.to_owned(),
            folder,
        })
    }

    /// Returns the name of the slice of all cgroups of this run.
    pub(crate) fn slice() -> String {
        slice_name(process::id())
    }

    /// Returns the unit that its closes are counted for: its name, if that is the name of a unit.
    pub(crate) fn unit(&self) -> &str {
        &self.name
    }

    /// Returns the path of its `cgroup.procs`.
    pub(crate) fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Removes it as soon as its last process has left.
    pub(crate) fn remove(self) -> io::Result<()> {
        state::wait_for(
            "the last process to leave a cgroup",
            || match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
                result => result.map(|()| true),
            },
        )
    }

    /// Runs `work` in a new process of this cgroup, with this name, and waits for its end.
    ///
    /// The process shares the descriptors of this one: its exit closes none of them, and it holds no copies of other
    /// threads' sockets.
    ///
    /// # Safety
    ///
    /// `work` must not allocate memory or take a lock: another thread may have held it at the fork, and it is never
    /// released in the new process.
    pub(crate) unsafe fn bear(
        &self,
        name: impl Into<Vec<u8>>,
        work: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let name = CString::new(name)?;
        let folder = File::open(&self.folder)?;
        // SAFETY: `clone_args` consists of integers, for which zero is a valid value.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = CLONE_INTO_CGROUP | u64::from(libc::CLONE_FILES.unsigned_abs());
        arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
        arguments.cgroup = folder.as_raw_fd().unsigned_abs().into();
        // SAFETY: the size is that of the arguments; as no memory is shared and no stack given, the new process
        // continues here on a copy of this one's memory, as after fork(2).
        let process = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                &raw const arguments,
                size_of_val(&arguments),
            )
        };
        if process == 0 {
            let done = Errno::result(
                // SAFETY: the name is NUL-terminated.
                unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) },
            );
            let result = done.map_err(io::Error::from).and_then(|_| work());
            let code = result.map_or_else(|error| error.raw_os_error().unwrap_or(255), |()| 0);
            // SAFETY: exits without running or dropping anything inherited from this process.
            unsafe { libc::_exit(code) }
        }
        let process =
            Pid::from_raw(i32::try_from(Errno::result(process)?).map_err(io::Error::other)?);
        match waitpid(process, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
            end => Err(io::Error::other(format!("a process ended: {end:?}"))),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Already gone, unless the scenario failed.
        let _ = fs::remove_dir(&self.folder);
    }
}
