//! A program that someone detaches shows: the daemon reports what the kernel says.

use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use linger_ebpf::Plan;
use nix::errno::Errno;
use nix::libc;

use crate::closes::whole;
use crate::daemon::Daemon;
use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("cut_off_is_shown", shown)];

/// Target of the programs that can be detached.
const RELEASE: &str = "cgroup:sock_release";

fn shown(lingerd: &Path, plan: Plan) -> Result<()> {
    let daemon = Daemon::start(lingerd, plan, &[])?;
    let before = attached(&daemon)?;
    ensure!(
        before.iter().all(|(_, attached)| *attached == 1),
        "not attached from the start: {before:?}"
    );
    let links = daemon.cgroup_links()?;
    let expected = before.iter().filter(|(target, _)| target == RELEASE);
    // The others only have one on kernels that preempt.
    let is_cut = !links.is_empty() || plan != Plan::Tracepoint;
    ensure!(
        is_cut && links.len() == expected.count(),
        "the links {links:?}, and {before:?}"
    );
    for link in links {
        cut(link).context("cut a link")?;
    }
    let after = attached(&daemon)?;
    let expected = before.into_iter().map(|(target, _)| {
        let attached = u64::from(target != RELEASE);
        (target, attached)
    });
    let expected: Vec<_> = expected.collect();
    ensure!(after == expected, "shown: {after:?}, expected {expected:?}");
    daemon.stop()
}

/// Returns the target of each program, and 1 if it is attached, 0 otherwise.
fn attached(daemon: &Daemon) -> Result<Vec<(String, u64)>> {
    let scrape = daemon.scrape()?;
    let samples = scrape.of("linger_probe_attached");
    Ok(samples
        .map(|sample| (sample.label("target").to_owned(), whole(sample.value)))
        .collect())
}

/// Detaches the program of the link with this ID, as `bpftool link detach` does.
fn cut(link: u32) -> io::Result<()> {
    const BPF_LINK_GET_FD_BY_ID: u32 = 30;
    const BPF_LINK_DETACH: u32 = 34;
    let open = bpf(BPF_LINK_GET_FD_BY_ID, link)?;
    let detached = bpf(BPF_LINK_DETACH, open);
    // SAFETY: the descriptor was opened above, and nothing else owns it.
    unsafe { libc::close(open.cast_signed()) };
    detached.map(drop)
}

/// Calls bpf(2) with a number, which is all that these commands take.
fn bpf(command: u32, number: u32) -> io::Result<u32> {
    let attributes = [number, 0, 0, 0];
    // SAFETY: the size is that of the attributes, which hold no pointers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    u32::try_from(Errno::result(result)?).map_err(io::Error::other)
}
