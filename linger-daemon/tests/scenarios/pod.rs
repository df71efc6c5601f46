//! `lingerd` as the Kubernetes manifests run it: in namespaces of its own, with three capabilities, a
//! filter of system calls, a read-only root, and of the host nothing but its cgroups.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use caps::{CapSet, Capability};
use linger_daemon::exercise::state;
use linger_daemon::exercise::tcp::{self, Family, Loopback};
use linger_daemon::probe;
use linger_ebpf::Plan;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chroot};
use serde_json::Value;

use crate::born::Cgroup;
use crate::child::not_run;
use crate::closes;
use crate::common::http;
use crate::common::scrape::Scrape;
use crate::netns;
use crate::scenario::Script;
use crate::seccomp;

pub(crate) const SCENARIOS: &[(&str, Script)] = &[("as_in_a_pod", Script::Daemon(as_in_a_pod))];

/// The configuration of the manifests; its port.
const CONFIG: &str = include_str!("../../packaging/kubernetes/base/lingerd.toml");
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10546);

/// The capabilities of the manifests.
const CAPABILITIES: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
];

/// What container runtimes refuse to those who have no other capabilities.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mbind,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The pod that closes.
const POD: &str = "6b39a0ac-6e4b-4a5f-8f1c-0a2f4f1d7e11";

/// `kubepods-burstable-pod….slice` of a pod, and its container, as the driver for systemd names them.
fn cgroups_of(pod: &str, container: char) -> [String; 2] {
    let pod = pod.replace('-', "_");
    let slice = format!("kubepods-burstable-pod{pod}.slice");
    let id: String = std::iter::repeat_n(container, 64).collect();
    [slice.clone(), format!("{slice}/cri-containerd-{id}.scope")]
}

fn as_in_a_pod(lingerd: &Path, plan: Plan) -> Result<()> {
    const CLOSES: u64 = 7;
    netns::in_own(|| {
        let cgroups: Vec<_> = [(POD, 'a'), ("11111111-2222-3333-4444-555555555555", 'b')]
            .into_iter()
            .flat_map(|(pod, container)| cgroups_of(pod, container))
            .map(|name| Cgroup::new(&name))
            .collect::<io::Result<_>>()?;
        let [_, closer, _, own] = &cgroups[..] else {
            bail!("two pods have four cgroups");
        };
        expect_usable(lingerd, plan, own)?;

        let mut pod = Pod::start(
            lingerd,
            plan,
            own,
            &["run", "--config=/etc/linger/lingerd.toml"],
        )?;
        pod.wait_until_ready()?;
        pod.expect_no_privileges()?;
        let loopback = Loopback::new(Family::V4)?;
        // SAFETY: it does nothing but call the kernel.
        unsafe {
            closer.bear(c"in-a-pod", || {
                (0..CLOSES).try_for_each(|_| tcp::close(loopback.socket()?).map(drop))
            })
        }?;
        state::wait_for("the closes to be counted", || {
            Ok(counted().map_err(io::Error::other)? == CLOSES)
        })?;
        let said = pod.stop()?;
        ensure!(!said.contains("WARN"), "it warned: {said}");
        // The innermost first.
        cgroups.into_iter().rev().try_for_each(Cgroup::remove)?;
        Ok(())
    })
}

/// Expects that `lingerd check` finds nothing in the way in there, and this plan usable.
fn expect_usable(lingerd: &Path, plan: Plan, own: &Cgroup) -> Result<()> {
    let mut pod = Pod::start(lingerd, plan, own, &["check", "--json"])?;
    let report: Value = serde_json::from_str(&pod.said()?).context("no report")?;
    let host = report["host"].as_array().context("nothing of the host")?;
    let problem = host.iter().find(|one| one["verdict"] == "problem");
    ensure!(
        problem.is_none(),
        "in a pod: {}",
        problem.unwrap_or(&Value::Null)
    );
    let plans = report["plans"].as_array().context("no plans")?;
    let found = plans.iter().find(|one| one["plan"] == plan.name());
    let found = found.context("not this plan")?;
    if plan == Plan::Kprobe && found["usable"] != true {
        return Err(not_run(format!(
            "not without CAP_SYS_ADMIN here: {}",
            found["reason"]
        ))
        .into());
    }
    ensure!(found["usable"] == true, "not usable in a pod: {found}");
    Ok(())
}

/// A process in a pod of its own, and the one that made that pod.
struct Pod {
    maker: Child,
    output: BufReader<std::process::ChildStdout>,
    process: Pid,
}

impl Pod {
    /// Starts it in the network namespace of the calling thread.
    fn start(lingerd: &Path, plan: Plan, own: &Cgroup, arguments: &[&str]) -> Result<Self> {
        let mut maker = Command::new(env::current_exe()?)
            .arg("pod")
            .arg(own.processes())
            .arg(lingerd)
            .args(arguments)
            .args(["--plan", plan.name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(maker.stdout.take().context("a pipe")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let process = line.trim().parse().context("the pod was not made")?;
        Ok(Self {
            maker,
            output,
            process: Pid::from_raw(process),
        })
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        while !matches!(http::get(ADDRESS, "/readyz"), Ok((200, _))) {
            if let Some(status) = self.maker.try_wait()? {
                bail!("it ended before it was ready: {status}: {}", self.said()?);
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "it is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Once attached it has no capability, no way to one, and is still filtered.
    fn expect_no_privileges(&self) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process))?;
        for line in [
            "CapPrm:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            ensure!(status.contains(line), "no {line:?} in {status}");
        }
        Ok(())
    }

    /// All that it says until it ends.
    fn said(&mut self) -> Result<String> {
        let mut said = String::new();
        self.output.read_to_string(&mut said)?;
        Ok(said)
    }

    /// Ends it as a kubelet does; returns what it said.
    fn stop(mut self) -> Result<String> {
        kill(self.process, Signal::SIGTERM)?;
        let said = self.said()?;
        let status = self.maker.wait()?;
        ensure!(status.success(), "it ended with {status}: {said}");
        Ok(said)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // After the end there is nothing to kill.
        let _ = kill(self.process, Signal::SIGKILL);
        let _ = self.maker.wait();
    }
}

/// Closes counted for the pod that closes.
fn counted() -> Result<u64> {
    let (status, body) = http::get(ADDRESS, "/metrics")?;
    ensure!(status == 200, "/metrics answered {status}");
    let scrape = Scrape::parse(&body).map_err(anyhow::Error::msg)?;
    Ok(closes::sum(&scrape, "linger_closes_total", |sample| {
        let is_own = sample.label("pod") == POD && sample.label("comm") == "in-a-pod";
        is_own && sample.label("outcome") == "not_connected"
    }))
}

/// The process that makes a pod: tells the id of the one in it, and ends as that does.
pub(crate) fn run(order: &[&str]) -> Result<i32> {
    let [processes, lingerd, arguments @ ..] = order else {
        bail!("usage: pod PROCESSES LINGERD ARGUMENTS");
    };
    fs::write(processes, "0")?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP
            | CloneFlags::CLONE_NEWPID,
    )?;
    let uses_kprobes = arguments.contains(&Plan::Kprobe.name());
    enter_root(Path::new(lingerd), uses_kprobes).context("the root of the pod")?;
    let mut command = Command::new("/lingerd");
    command.args(arguments).env_clear();
    command.stderr(io::stdout().as_fd().try_clone_to_owned()?);
    // SAFETY: there are no other threads whose locks the new process could wait for.
    unsafe { command.pre_exec(enter_pod) };
    seccomp::refuse(&mut command, REFUSED, libc::EPERM)?;
    let mut child = command.spawn()?;
    println!("{}", child.id());
    io::stdout().flush()?;
    let status = child.wait()?;
    status
        .code()
        .with_context(|| format!("it ended with {status}"))
}

/// Moves to a root that shows what the container does: the program with its libraries, the
/// configuration, sysfs, and the host's cgroups.
fn enter_root(lingerd: &Path, uses_kprobes: bool) -> Result<()> {
    const ROOT: &str = "/run";
    let tracefs = Path::new(probe::TRACEFS[0]);
    let none = None::<&Path>;
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let root = Path::new(ROOT);
    let cgroups = probe::cgroup_root()?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(none, root, Some("tmpfs"), MsFlags::empty(), none)?;
    File::create(root.join("lingerd"))?;
    show(lingerd, &root.join("lingerd"))?;
    for libraries in ["lib", "lib64", "usr/lib", "usr/lib64"] {
        show_libraries(&Path::new("/").join(libraries), &root.join(libraries))?;
    }
    fs::create_dir_all(root.join("etc/linger"))?;
    fs::write(root.join("etc/linger/lingerd.toml"), CONFIG)?;
    fs::create_dir(root.join("proc"))?;
    let sys = root.join("sys");
    fs::create_dir(&sys)?;
    mount(
        none,
        &sys,
        Some("sysfs"),
        guarded | MsFlags::MS_RDONLY,
        none,
    )?;
    show(&cgroups, &sys.join("fs/cgroup"))?;
    if uses_kprobes {
        mount(
            Some(tracefs),
            &sys.join("kernel/tracing"),
            none,
            MsFlags::MS_BIND,
            none,
        )?;
    }
    env::set_current_dir(root)?;
    // Not pivot_root(2), which an initramfs does not allow.
    mount(Some("."), "/", none, MsFlags::MS_MOVE, none)?;
    chroot(".")?;
    env::set_current_dir("/")?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, "/", none, read_only, none)?;
    Ok(())
}

/// Shows a file or a folder of the host at a place of the pod, to be read only.
fn show(what: &Path, at: &Path) -> nix::Result<()> {
    let none = None::<&Path>;
    mount(
        Some(what),
        at,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )?;
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(none, at, none, read_only, none)
}

/// Those of the image are linked into the program; here they may not be.
fn show_libraries(folder: &Path, at: &Path) -> Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    if let Ok(target) = fs::read_link(folder) {
        symlink(target, at)?;
    } else if folder.is_dir() {
        fs::create_dir_all(at)?;
        show(folder, at)?;
    }
    Ok(())
}

/// What only a process in the namespace of processes can do, and what is done last.
fn enter_pod() -> io::Result<()> {
    mount_proc()?;
    keep_capabilities()
}

/// The processes of the pod, and the settings of the kernel, to be read only.
fn mount_proc() -> nix::Result<()> {
    let none = None::<&Path>;
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(none, "/proc", Some("proc"), guarded, none)?;
    show(Path::new("/proc/sys"), Path::new("/proc/sys"))
}

/// Gives up all other capabilities, for ever.
fn keep_capabilities() -> io::Result<()> {
    let keep = HashSet::from(CAPABILITIES);
    let drop_others = || {
        for capability in caps::runtime::procfs_all_supported(None)?.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &keep)?;
        caps::set(None, CapSet::Permitted, &keep)
    };
    drop_others().map_err(io::Error::other)
}
