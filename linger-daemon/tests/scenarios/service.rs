//! Programs that run as services do: each in a cgroup of its own.

use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use linger_daemon::exercise::state::{self, TcpState};
use linger_daemon::probe;
use linger_ebpf::Cause;
use linger_testkit::exposition::{Sample, Scrape};
use linger_testkit::tools;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::exposition::Counted;

/// Whom the metrics name for the closes of a service.
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
    /// Whether the sample is of this service.
    pub(crate) fn is_of(&self, sample: &Sample) -> bool {
        sample.label("unit") == self.unit && sample.label("comm") == self.comm
    }
}

/// All who make the closes of a scenario.
pub(crate) struct Closers {
    /// The name of its process.
    pub(crate) comm: String,
    /// Whether threads of the kernel are among them.
    pub(crate) kernel_threads: bool,
    pub(crate) services: Vec<ServiceName>,
}

impl Closers {
    /// What the metrics say of them together.
    pub(crate) fn counted(&self, scrape: &Scrape) -> Counted {
        Counted::of(scrape, |sample| {
            let comm = sample.label("comm");
            comm == self.comm
                || self.kernel_threads && comm.is_empty() && !is_by_timer(sample)
                || self.services.iter().any(|service| service.is_of(sample))
        })
    }
}

/// Whether a timer sent these RSTs, which is no process either.
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

/// The cgroups of a run's services; removed when this is dropped.
pub(crate) struct Slice(PathBuf);

impl Slice {
    /// The slice of the run of this harness, made when the first service is.
    pub(crate) fn of_run(harness: u32) -> io::Result<Self> {
        Ok(Self(probe::cgroup_root()?.join(slice_name(harness))))
    }
}

impl Slice {
    /// Its name, at the root of the hierarchy.
    pub(crate) fn name(&self) -> &Path {
        Path::new(self.0.file_name().unwrap_or_default())
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        /// A process that was killed may still be on its way out.
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

/// Removes what can be removed of a cgroup and those below; their files go with them.
fn remove(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // Tried anew until it is gone.
    let _ = fs::remove_dir(folder);
}

/// The slice of a run of the harness.
pub(crate) fn slice_name(harness: u32) -> String {
    format!("linger-test-{harness}.slice")
}

/// The path of a cgroup of this run below the root of the hierarchy.
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
    /// Starts a program in a new cgroup with this path, and waits until it listens on this port.
    pub(crate) fn start(cgroup: &str, port: u16, command: &Command) -> io::Result<Self> {
        let folder = probe::cgroup_root()?.join(cgroup.trim_start_matches('/'));
        fs::create_dir_all(&folder)?;
        let start = Instant::now();
        // The program is there from its first instruction on.
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

    /// The same in a unit of this run, with whom the metrics name for it: the only one that listens on this port.
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

    /// The name of its first process, which the others share.
    pub(crate) fn comm(&self) -> io::Result<String> {
        let comm = fs::read_to_string(format!("/proc/{}/comm", self.process.id()))?;
        Ok(comm.trim_end().to_owned())
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(&self, signal: Signal) -> io::Result<()> {
        let process = Pid::from_raw(self.process.id().cast_signed());
        Ok(kill(process, signal)?)
    }

    /// Waits until it has ended, successfully. Returns how long it lived.
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
        // None is left unless the scenario failed.
        let left = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for process in left.lines().filter_map(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        let _ = self.process.wait();
    }
}

/// Where a program is: on the path, or where `cargo xtask setup` unpacks it.
pub(crate) fn find(program: &str) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), tools::folder()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| io::Error::other(format!("there is no {program} here")))
}
