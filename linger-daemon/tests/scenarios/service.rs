//! Programs that run as services do: each in its own cgroup.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use linger_daemon::attribution;
use linger_daemon::exercise::state::{self, TcpState};
use linger_ebpf::Cause;
use linger_testkit::exposition::{Sample, Scrape};
use linger_testkit::tools;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::exposition::Counted;

/// Labels of a service's closes in the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceName {
    pub(crate) unit: String,
    pub(crate) comm: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.comm, self.unit)
    }
}

impl ServiceName {
    /// Returns whether the sample is of this service.
    pub(crate) fn is_of(&self, sample: &Sample) -> bool {
        sample.label("unit") == self.unit && sample.label("comm") == self.comm
    }
}

/// Everything that closes for a scenario.
pub(crate) struct Closers {
    /// Name of the scenario's process.
    pub(crate) comm: String,
    /// Whether kernel threads close, too.
    pub(crate) kernel_threads: bool,
    pub(crate) services: Vec<ServiceName>,
}

impl Closers {
    /// Returns the counts of them all together.
    pub(crate) fn counted(&self, scrape: &Scrape) -> Counted {
        Counted::of(scrape, |sample| {
            let comm = sample.label("comm");
            comm == self.comm
                || self.kernel_threads && comm.is_empty() && !is_by_timer(sample)
                || self.services.iter().any(|service| service.is_of(sample))
        })
    }
}

/// Returns whether a timer sent these RSTs, which belongs to no process either.
fn is_by_timer(sample: &Sample) -> bool {
    let by_timer = [
        Cause::Keepalive,
        Cause::OrphanResources,
        Cause::FinWait2Expired,
    ];
    sample.name == "linger_resets_sent_total"
        && by_timer
            .iter()
            .any(|cause| sample.label("cause") == cause.name())
}

/// The cgroups of a run's services, removed when dropped.
pub(crate) struct Slice(PathBuf);

impl Slice {
    /// Returns the slice of this harness's run, which is created with the first service.
    pub(crate) fn of_run(harness: u32) -> io::Result<Self> {
        Ok(Self(attribution::cgroup_root()?.join(slice_name(harness))))
    }
}

impl Slice {
    /// Returns its name, at the root of the hierarchy.
    pub(crate) fn name(&self) -> &Path {
        Path::new(self.0.file_name().unwrap_or_default())
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        /// A killed process may not have exited yet.
        const PATIENCE: Duration = Duration::from_secs(5);
        let start = Instant::now();
        while self.0.exists() && start.elapsed() < PATIENCE {
            remove(&self.0);
            thread::sleep(Duration::from_millis(1));
        }
        if self.0.exists() {
            println!("cannot remove the cgroup {}", self.0.display());
        }
    }
}

/// Removes as much as possible of a cgroup and its descendants; their files go with them.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // Retried until it is gone.
    let _ = fs::remove_dir(folder);
}

/// Returns the name of the slice of a run of the harness.
pub(crate) fn slice_name(harness: u32) -> String {
    format!("linger-test-{harness}.slice")
}

/// Returns the path of a cgroup of this run below the root of the hierarchy.
pub(crate) fn cgroup(name: &str) -> String {
    format!("/{}/{name}", slice_name(parent_id()))
}

/// A running service, with all processes of its cgroup.
pub(crate) struct Service {
    process: Child,
    folder: PathBuf,
    start: Instant,
}

impl Service {
    /// Starts a program in a new cgroup with this path, and waits until this port has a listener.
    pub(crate) fn start(cgroup: &str, port: u16, command: &Command) -> io::Result<Self> {
        let folder = attribution::cgroup_root()?.join(cgroup.trim_start_matches('/'));
        fs::create_dir_all(&folder)?;
        let start = Instant::now();
        // The program is in the cgroup from its first instruction on.
        let process = Command::new("sh")
            .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
            .arg(folder.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let service = Self {
            process,
            folder,
            start,
        };
        state::wait_for_port_state(port, TcpState::Listen)?;
        Ok(service)
    }

    /// As [`Service::start`], in a unit of this run and with the only listener on this port. Returns its labels as
    /// well.
    pub(crate) fn start_unit(
        unit: &str,
        port: u16,
        command: &Command,
    ) -> io::Result<(Self, ServiceName)> {
        let service = Self::start(&cgroup(unit), port, command)?;
        let name = ServiceName {
            unit: unit.to_owned(),
            comm: service.comm()?,
        };
        Ok((service, name))
    }

    /// Returns the name of its first process, which the others share.
    pub(crate) fn comm(&self) -> io::Result<String> {
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.process.id()))?;
        Ok(comm.trim_end().to_owned())
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&self, signal: Signal) -> io::Result<()> {
        let process = Pid::from_raw(self.process.id().cast_signed());
        Ok(kill(process, signal)?)
    }

    /// Waits for its successful exit. Returns how long it ran.
    pub(crate) fn wait(mut self) -> io::Result<Duration> {
        state::wait_for("the end of a service", || {
            Ok(self.process.try_wait()?.is_some())
        })?;
        let status = self.process.wait()?;
        if status.success() {
            Ok(self.start.elapsed())
        } else {
            Err(io::Error::other(format!("a service ended: {status}")))
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Nothing is left, unless the scenario failed.
        let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for process in left.lines().filter_map(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}

/// Returns the path of a program in `PATH`, or where `cargo xtask setup` unpacks it.
pub(crate) fn find(program: &str) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), tools::folder()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| io::Error::other(format!("there is no {program} here")))
}
