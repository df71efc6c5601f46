//! Sockets that kernel threads close: counted for the cgroup that made them, and for no process.

use std::env;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process;
use std::time::Duration;

use anyhow::Result;
use io_uring::IoUring;
use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::dup2;
use socket2::Socket;

use crate::born::{self, Cgroup};
use crate::closer::{Closer, Way};
use crate::closes::{self, Closes};
use crate::daemon::Daemon;
use crate::needs::Need;
use crate::netns;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::daemon("kernel_thread_closes", by_thread).needs(&[Need::IoUring]),
    Scenario::daemon("kernel_thread_closes_for_gone", for_gone).needs(&[Need::IoUring]),
    Scenario::daemon("kernel_collects_garbage", garbage).needs(&[Need::IoUring]),
    Scenario::daemon("io_uring_worker_closes", by_worker).needs(&[Need::IoUring]),
];

/// Unit of the sockets.
const UNIT: &str = "maker.service";

/// A connection whose client was made in a cgroup, by a process that is gone; closing it aborts it.
struct Made {
    client: OwnedFd,
    server: Socket,
}

impl Made {
    fn within(cgroup: &Cgroup) -> io::Result<Self> {
        let loopback = Loopback::new()?;
        let mut client = OwnedFd::from(File::open("/dev/null")?);
        let name = format!("{:x}-maker", process::id());
        let make = || {
            let made = loopback.connect()?;
            made.set_linger(Some(Duration::ZERO))?;
            dup2(&made, &mut client)?;
            tcp::close(made)?;
            Ok(())
        };
        // SAFETY: it only makes system calls.
        unsafe { cgroup.bear(name, make) }?;
        let server = loopback.accept()?;
        Ok(Self { client, server })
    }

    /// Leaves the last reference to the client to an `io_uring`, which a kernel thread dismantles once it is closed;
    /// then waits for the close.
    fn close_by_thread(self) -> io::Result<()> {
        let ring = ring()?;
        ring.submitter()
            .register_files(&[self.client.as_raw_fd()])?;
        drop(self.client);
        drop(ring);
        born::close_after_reset(self.server)
    }
}

fn ring() -> io::Result<IoUring> {
    IoUring::new(1)
}

/// Expects the closes of [`Made::client`]s, by unit and comm.
fn aborts(daemon: &Daemon, expected: &[(&str, &str, u64)]) -> Result<()> {
    let expected = expected.iter().map(|&(unit, comm, number)| {
        let labels = vec![unit.to_owned(), comm.to_owned()];
        (labels, number)
    });
    let expected: Closes = expected.collect();
    closes::expect(daemon, &expected, |scrape| {
        closes::closes(scrape, &["unit", "comm"], |sample| {
            sample.label("outcome") == "linger_aborted"
        })
    })
}

/// Not closed by a process: counts for the cgroup that made the socket.
fn by_thread(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        ring()?;
        let daemon = Daemon::start(lingerd, plan, &["--allow-unit", UNIT])?;
        let cgroup = Cgroup::new(UNIT)?;
        Made::within(&cgroup)?.close_by_thread()?;
        aborts(&daemon, &[(UNIT, "", 1)])?;
        cgroup.remove()?;
        daemon.stop()
    })
}

/// The cgroup that made the socket is gone, whether or not any of its sockets had been closed before.
fn for_gone(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        ring()?;
        let options = ["--allow-unit", UNIT, "--retire-after", "1s"];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new(UNIT)?;
        let (kept, other) = (Made::within(&cgroup)?, Made::within(&cgroup)?);
        other.close_by_thread()?;
        aborts(&daemon, &[(UNIT, "", 1)])?;
        cgroup.remove()?;
        aborts(&daemon, &[("retired", "retired", 1)])?;
        kept.close_by_thread()?;
        aborts(&daemon, &[("retired", "retired", 2)])?;
        daemon.stop()
    })
}

/// A socket in flight to a UNIX socket that is in flight to itself: the kernel finds that nothing can ever receive
/// them. Since Linux 6.10 a kernel thread collects them; before, any process that closes a UNIX socket.
fn garbage(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let daemon = Daemon::start(lingerd, plan, &[])?;
        let cgroup = Cgroup::new(UNIT)?;
        let Made { client, server } = Made::within(&cgroup)?;
        let (from, to) = UnixDatagram::pair()?;
        let sent = [to.as_raw_fd(), client.as_raw_fd()];
        sendmsg::<UnixAddr>(
            from.as_raw_fd(),
            &[IoSlice::new(b"x")],
            &[ControlMessage::ScmRights(&sent)],
            MsgFlags::empty(),
            None,
        )?;
        drop((client, to, from));
        state::wait_for("the kernel to collect garbage", || {
            drop(UnixDatagram::pair()?);
            Ok(state::state(&server)? == TcpState::Close)
        })?;
        let own = std::fs::read_to_string("/proc/self/comm")?;
        let by_thread = aborts(&daemon, &[(UNIT, "", 1)]);
        if by_thread.is_err() {
            closes::expect(&daemon, &1, |scrape| {
                closes::sum(scrape, "linger_closes_total", |sample| {
                    sample.label("outcome") == "linger_aborted"
                        && sample.label("comm") == own.trim_end()
                })
            })?;
            println!("kernel_collects_garbage: here it is collected by who closes");
        }
        cgroup.remove()?;
        daemon.stop()
    })
}

/// An `io_uring` worker closes for the process that it works for.
fn by_worker(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let name = format!("{:x}-ring", process::id());
        let options = ["--labels", "unit,comm,exe", "--allow-comm", &name];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("ring.service")?;
        let exe = env::current_exe()?.canonicalize()?;
        Closer::start(&exe, &name, Way::IoUring, &cgroup.processes())?.end()?;
        let mut expected = Closes::new();
        for outcome in ["graceful", "linger_aborted"] {
            let labels = [cgroup.unit(), &exe.to_string_lossy(), outcome];
            expected.insert(labels.map(str::to_owned).into(), 1);
        }
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["unit", "exe", "outcome"], |sample| {
                sample.label("comm") == name
            })
        })?;
        cgroup.remove()?;
        daemon.stop()
    })
}
