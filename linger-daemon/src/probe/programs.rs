//! The loaded programs and their state.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use aya::maps::Map;

use super::hooks::{Hook, MISSED_END, Point, SETTLE};
use super::kprobe::Profile;
use super::owner::Owner;
use crate::sys;

/// The maps that programs share with the daemon and that are not taken yet, by name.
pub type Maps = HashMap<String, Map>;

/// The links that keep programs attached and that others can detach.
pub(super) enum Links {
    /// Held by this process. Only links to cgroups can be detached by others.
    Held(Vec<(Hook, OwnedFd)>),
    /// Pinned in this folder of a BPF file system, under the names of the programs.
    Pinned(PathBuf),
}

impl Default for Links {
    fn default() -> Self {
        Self::Held(Vec::new())
    }
}

impl Links {
    fn is_attached(&self, hook: Hook) -> bool {
        match self {
            Self::Held(links) => {
                let mut links = links.iter().filter(|(of, _)| *of == hook);
                links.all(|(_, link)| sys::is_link_attached(link))
            }
            Self::Pinned(folder) => is_pin_attached(&folder.join(hook.program)),
        }
    }
}

/// Whether this file in a BPF file system is an attached link.
pub(super) fn is_pin_attached(path: &Path) -> bool {
    sys::get(path).is_ok_and(|link| sys::is_link_attached(&link))
}

/// Hooks, and whether each is attached.
pub(crate) type HookStates = Vec<(Hook, bool)>;

/// The kernel's counts of the runs of a program.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramRuns {
    /// The program.
    pub program: &'static str,
    /// Runs that the kernel skipped.
    pub skipped: u64,
    /// Runs while BPF statistics were switched on (`bpf_stats_enabled`).
    pub timed: u64,
    /// Time of these, nanoseconds.
    pub time_ns: u64,
}

/// The program of each hook.
#[derive(Default)]
pub struct Programs {
    all: Vec<(Hook, OwnedFd)>,
    links: Links,
    /// The profile of their kprobes, if there are any.
    profile: Option<Profile>,
}

impl Programs {
    /// Wraps the programs of the lingerd `owner`.
    pub(super) fn new(
        programs: Vec<(Hook, OwnedFd)>,
        links: Links,
        owner: Owner,
    ) -> io::Result<Self> {
        let mut points = programs.iter().map(|(hook, _)| hook.point);
        let has_kprobes =
            points.any(|point| matches!(point, Point::Kprobe(_) | Point::Kretprobe(_)));
        Ok(Self {
            profile: has_kprobes.then(|| Profile::open(owner)).transpose()?,
            all: programs,
            links,
        })
    }

    /// Asks the kernel which hooks are attached, and how often it ran and skipped each program, or the kprobe that runs
    /// it. The hook of the return of close(2) is included only if `returns_hooked`.
    pub(crate) fn states(
        &self,
        returns_hooked: bool,
    ) -> io::Result<(HookStates, Vec<ProgramRuns>)> {
        let profile = self.profile.as_ref().map(Profile::missed).transpose()?;
        let profile = profile.unwrap_or_default();
        let (mut states, mut runs) = (Vec::new(), Vec::new());
        for (hook, program) in &self.all {
            let missed = profile.get(hook.program).copied();
            let is_attached = match hook.point {
                Point::OnDemand => true,
                _ if hook.sees_returns() => true,
                Point::Kprobe(_) | Point::Kretprobe(_) if missed.is_none() => false,
                _ => self.links.is_attached(*hook),
            };
            if returns_hooked || !hook.sees_returns() {
                states.push((*hook, is_attached));
            }
            if hook.point != Point::OnDemand {
                let info = sys::program_info(program)?;
                runs.push(ProgramRuns {
                    program: hook.program,
                    skipped: info.recursion_misses + missed.unwrap_or(0),
                    timed: info.run_cnt,
                    time_ns: info.run_time_ns,
                });
            }
        }
        Ok((states, runs))
    }

    /// The program that settles undecided orphans; `None` before programs are attached.
    pub(crate) fn settler(&self) -> Option<&OwnedFd> {
        self.find(|hook| hook == SETTLE)
    }

    /// The program that ends orphans whose end was missed; `None` before programs are attached.
    pub(crate) fn missed_end(&self) -> Option<&OwnedFd> {
        self.find(|hook| hook == MISSED_END)
    }

    fn find(&self, is_wanted: fn(Hook) -> bool) -> Option<&OwnedFd> {
        let mut programs = self.all.iter();
        programs.find_map(|(hook, program)| is_wanted(*hook).then_some(program))
    }

    /// Hooks the return of close(2) for as long as the returned link is held. Returns `None` if the plan does not do
    /// so on this kernel. Needs no capabilities.
    pub(crate) fn hook_returns(&self) -> Option<io::Result<OwnedFd>> {
        let program = self.find(Hook::sees_returns)?;
        Some(sys::open_raw_tracepoint(program, None))
    }
}
