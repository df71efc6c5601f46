//! The host's limit of orphans.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

use nix::sys::signal::{SigSet, SigmaskHow};

/// The host's limit of orphans, restored when dropped.
#[derive(Debug)]
pub struct OrphanLimit {
    file: File,
    before: String,
}

impl OrphanLimit {
    /// Opens the limit; works in the host's own network namespace only.
    pub fn open() -> io::Result<Self> {
        let path = "/proc/sys/net/ipv4/tcp_max_orphans";
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut before = String::new();
        file.read_to_string(&mut before)?;
        if before.trim() == "0" {
            // Restoring 0 would leave the host without orphans.
            let message = "it is 0 already: someone else is at it, or set it back yourself";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        }
        Ok(Self { file, before })
    }

    /// Allows so many orphans until this is dropped.
    pub fn allow(&self, orphans: u32) -> io::Result<()> {
        self.file.write_all_at(format!("{orphans}\n").as_bytes(), 0)
    }

    /// Runs `work` while no orphans are allowed. Signals for this thread are blocked until the limit is restored: one
    /// that ends the process meanwhile would leave the host without orphans.
    pub fn while_none_is_allowed<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let signals = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let done = self.allow(0).map(|()| work());
        let is_back = self.put_back();
        signals.thread_set_mask()?;
        is_back?;
        done
    }

    fn put_back(&self) -> io::Result<()> {
        self.file.write_all_at(self.before.as_bytes(), 0)
    }
}

impl Drop for OrphanLimit {
    fn drop(&mut self) {
        // An error can only be logged.
        if let Err(error) = self.put_back() {
            let before = self.before.trim_end();
            tracing::error!("set net.ipv4.tcp_max_orphans back to {before}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::signal::{Signal, raise};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_signal_waits_until_the_limit_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tcp_max_orphans");
        fs::write(&path, "8192\n").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let limit = OrphanLimit {
            file: file.unwrap(),
            before: "8192\n".to_owned(),
        };
        // SAFETY: the child does nothing but call the kernel, and ends.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let _ = limit.while_none_is_allowed(|| raise(Signal::SIGTERM));
                // SAFETY: ends the child without running or dropping anything of the parent's.
                unsafe { nix::libc::_exit(1) }
            }
            ForkResult::Parent { child } => {
                let end = waitpid(child, None).unwrap();
                assert!(
                    matches!(end, WaitStatus::Signaled(_, Signal::SIGTERM, _)),
                    "{end:?}"
                );
            }
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap().lines().next(),
            Some("8192")
        );
    }
}
