//! Attaches single programs to their hooks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::programs::ProgramError;
use aya::sys::SyscallError;
use aya_obj::generated::bpf_attach_type;

use super::error::AttachError;
use super::hooks::{Hook, Point};
use super::kprobe::{self, Definition};
use super::load::{self, explain};
use crate::attribution::whole_cgroup_root;
use crate::sys;

/// Attaches the loaded program of a hook, by a link that can be pinned if `is_pinnable`; `None` if it only runs on
/// demand.
pub(super) fn attach(
    ebpf: &Ebpf,
    hook: Hook,
    is_pinnable: bool,
) -> Result<Option<Attached>, AttachError> {
    let program = &program(ebpf, hook)?;
    let open = |name| {
        sys::open_raw_tracepoint(program, name).map_err(|io_error| {
            ProgramError::from(SyscallError {
                call: "bpf_raw_tracepoint_open",
                io_error,
            })
        })
    };
    let link = match hook.point {
        Point::Fentry(_) | Point::Fexit(_) | Point::BtfTracepoint(_) => open(None),
        Point::RawTracepoint(name) => open(Some(name)),
        Point::Kprobe(_) | Point::Kretprobe(_) => {
            let attached = kprobe::attach(program.as_fd(), hook, is_pinnable);
            return attached
                .map(|(link, definition)| {
                    let probe = Some(definition);
                    Some(Attached { link, probe })
                })
                .map_err(|error| explain(&error.into(), hook.point));
        }
        Point::SockRelease => link_to_releases(program).map_err(ProgramError::from),
        Point::OnDemand => return Ok(None),
    };
    let link = link.map_err(|error| explain(&error, hook.point))?;
    Ok(Some(Attached { link, probe: None }))
}

fn link_to_releases(program: &OwnedFd) -> io::Result<OwnedFd> {
    let cgroup = File::open(whole_cgroup_root()?)?;
    let kind = bpf_attach_type::BPF_CGROUP_INET_SOCK_RELEASE;
    sys::link(program, &cgroup, kind)
}

pub(super) fn program(ebpf: &Ebpf, hook: Hook) -> Result<OwnedFd, AttachError> {
    let program = ebpf.program(hook.program);
    let program = program.ok_or_else(|| load::no_program(hook))?;
    let fd = program.fd().map_err(|error| explain(&error, hook.point))?;
    let fd = fd.as_fd().try_clone_to_owned();
    fd.map_err(|error| AttachError::Refused(error.to_string()))
}

pub(super) struct Attached {
    /// Dropped first, because a probe in use cannot be removed.
    link: OwnedFd,
    /// The probe in tracefs to which it is attached.
    probe: Option<Definition>,
}

impl Attached {
    /// Returns the link, and keeps the probe.
    pub(super) fn into_link(self) -> OwnedFd {
        if let Some(mut probe) = self.probe {
            probe.is_kept = true;
        }
        self.link
    }
}
