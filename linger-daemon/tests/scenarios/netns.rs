//! A network namespace beside the scenario's own, connected to it by a veth pair.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::process::{self, Command};
use std::thread;

use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::Loopback;
use nix::sched::{CloneFlags, setns};

use crate::child;

/// Names of the veth pair's ends.
const OUTER: &str = "outer";
const INNER: &str = "inner";

/// The other network namespace. Sockets made in it keep it alive after this is dropped.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    /// Creates one, connected to that of the calling thread.
    pub(crate) fn new() -> io::Result<Self> {
        let inner = Self(in_thread(|| {
            child::enter_network()?;
            File::open("/proc/thread-self/ns/net")
        })?);
        run(&format!("ip link add {OUTER} type veth peer name {INNER}"))?;
        let path = format!("/proc/{}/fd/{}", process::id(), inner.0.as_raw_fd());
        run(&format!("ip link set {INNER} netns {path}"))?;
        run(&format!("ip addr add 10.0.0.1/24 dev {OUTER}"))?;
        run(&format!("ip link set {OUTER} up"))?;
        inner.within(|| {
            run(&format!("ip addr add 10.0.0.2/24 dev {INNER}"))?;
            run(&format!("ip link set {INNER} up"))
        })?;
        Ok(inner)
    }

    /// Returns a listener outside that it can reach.
    #[expect(clippy::unused_self, reason = "there is no such address without it")]
    pub(crate) fn listener(&self) -> io::Result<Loopback> {
        Loopback::at(SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 0)))
    }

    /// Does the work in a thread that is in the namespace.
    pub(crate) fn within<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        in_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Makes the path slow and lossy, in both directions.
    pub(crate) fn impair(&self) -> io::Result<()> {
        let impair = |end: &str| {
            let add = format!("tc qdisc add dev {end} root");
            run(&format!("{add} netem delay 10ms 5ms loss 3%"))
                // Without netem, a narrow path loses what exceeds it.
                .or_else(|_| run(&format!("{add} tbf rate 20mbit burst 5kb latency 5ms")))
        };
        impair(OUTER)?;
        self.within(|| impair(INNER))
    }
}

/// Waits until the other namespace is removed: its end of the veth pair takes this one with it.
pub(crate) fn wait_for_removal() -> io::Result<()> {
    state::wait_for("the network namespace to be removed", || {
        let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
        Ok(!devices.contains(OUTER))
    })
}

/// Does the work in a thread in its own network namespace.
pub(crate) fn in_own<T: Send>(
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    in_thread(|| {
        child::enter_network()?;
        work()
    })
}

fn in_thread<T: Send, E: From<io::Error> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let done = thread::scope(|scope| scope.spawn(work).join());
    done.map_err(|_| io::Error::other("a thread panicked"))?
}

/// Runs a tool in the network namespace of the calling thread.
pub(crate) fn run(command: &str) -> io::Result<()> {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let message = format!("{command}: {}", errors.trim());
    Err(io::Error::other(message))
}
