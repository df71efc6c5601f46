//! The programs, as far as the counts depend on them.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

use super::hooks::{Hook, Point};
use super::kprobe::{Owner, Profile};
use crate::sys;

/// The program of each hook.
#[derive(Default)]
pub struct Programs {
    programs: Vec<(Hook, OwnedFd)>,
    /// What is known of their kprobes, if any are.
    profile: Option<Profile>,
}

impl Programs {
    /// Of this lingerd.
    pub(super) fn new(programs: Vec<(Hook, OwnedFd)>, owner: Owner) -> io::Result<Self> {
        let mut points = programs.iter().map(|(hook, _)| hook.point);
        let has_kprobes =
            points.any(|point| matches!(point, Point::Kprobe(_) | Point::Kretprobe(_)));
        Ok(Self {
            profile: has_kprobes.then(|| Profile::open(owner)).transpose()?,
            programs,
        })
    }

    /// What settles orphans whose fate did not show; none before programs are attached.
    pub(crate) fn settler(&self) -> Option<&OwnedFd> {
        let mut programs = self.programs.iter();
        let found = programs.find(|(hook, _)| hook.point == Point::OnDemand)?;
        Some(&found.1)
    }

    /// Hooks the return of close(2), for as long as the link is held; none if the plan does not, on this kernel.
    /// Takes no capabilities.
    pub(crate) fn hook_returns(&self) -> Option<io::Result<OwnedFd>> {
        let mut programs = self.programs.iter();
        let (_, program) = programs.find(|(hook, _)| hook.sees_returns())?;
        Some(sys::hook_btf_tracepoint(program))
    }

    /// How often the kernel skipped each of those that it runs: the program, or the kprobe that runs it.
    pub(crate) fn skipped_runs(&self) -> io::Result<Vec<(&'static str, u64)>> {
        let missed = self.profile.as_ref().map(Profile::missed).transpose()?;
        let missed: HashMap<_, _> = missed.unwrap_or_default();
        let programs = self.programs.iter();
        let run_by_kernel = programs.filter(|(hook, _)| hook.point != Point::OnDemand);
        let skipped = run_by_kernel.map(|(hook, fd)| {
            let missed = missed.get(hook.program).copied().unwrap_or(0);
            Ok((hook.program, sys::skipped_runs(fd)? + missed))
        });
        skipped.collect()
    }
}
