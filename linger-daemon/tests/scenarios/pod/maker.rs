//! The process that makes a pod, as a container runtime does.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use caps::{CapSet, Capability};
use linger_daemon::{attribution, probe};
use linger_ebpf::Plan;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chroot;

use crate::seccomp;

/// The configuration of the manifests.
const CONFIG: &str = include_str!("../../../packaging/kubernetes/base/lingerd.toml");

/// The capabilities of the manifests.
const CAPABILITIES: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
];

/// System calls that container runtimes refuse without further capabilities.
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

/// Makes the pod: prints the ID of its process, and returns that process's exit code.
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

/// Moves to a root with what the container has: the program with its libraries, the configuration, sysfs, and the
/// host's cgroups.
fn enter_root(lingerd: &Path, uses_kprobes: bool) -> Result<()> {
    const ROOT: &str = "/run";
    let tracefs = Path::new(probe::TRACEFS[0]);
    let none = None::<&Path>;
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let root = Path::new(ROOT);
    let cgroups = attribution::cgroup_root()?;
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

/// Mounts a file or a folder of the host in the pod, read-only.
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

/// Mounts libraries: the program in the image is linked statically, this one may not be.
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

/// Does what only a process in the new PID namespace can do, and what comes last.
fn enter_pod() -> io::Result<()> {
    mount_proc()?;
    keep_capabilities()
}

/// Mounts the pod's processes, and the settings of the kernel read-only.
fn mount_proc() -> nix::Result<()> {
    let none = None::<&Path>;
    let guarded = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(none, "/proc", Some("proc"), guarded, none)?;
    show(Path::new("/proc/sys"), Path::new("/proc/sys"))
}

/// Drops all other capabilities for good.
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
