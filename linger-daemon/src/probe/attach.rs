//! Loads and attaches a plan, as a whole or not at all.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{Program, ProgramError};
use linger_ebpf::{Constants, FLOOR, HINTS, MAX_CLOSES, Offsets, PROGRAMS, Plan, keyed};
use tracing::warn;

use super::btf::{Kernel, KernelError};
use super::error::{AttachError, PlanError, ProbeError, innermost};
use super::hooks::{
    Answers, Hook, Point, Traits, has_new_timer, hooked_again, hooks, sees_returns,
};
use super::kprobe::{Kprobe, Owner};
use super::load::{self, explain, loader};
use super::maps::Maps;
use super::object;
use super::options::LoadOptions;
use super::pins::{Link, Pins};
use super::preemption::{self, Preemption};
use super::programs::{Links, Programs};
use super::reachability::first_unreached;
use crate::attribution::Cgroups;
use crate::sys;

/// Attached programs. Dropping this detaches and unloads them, unless they are pinned.
pub struct Attachment {
    /// The plan in use.
    pub plan: Plan,
    /// The attached hooks.
    pub hooks: Vec<Hook>,
    /// Owns the links that keep the programs attached, unless they are pinned.
    _ebpf: Option<Ebpf>,
    /// Kprobes attached without links.
    _kprobes: Vec<Kprobe>,
    /// The programs, until they are taken.
    pub programs: Programs,
}

impl Attachment {
    /// The attachment of pinned programs.
    pub(super) const fn pinned(plan: Plan, hooks: Vec<Hook>, programs: Programs) -> Self {
        Self {
            plan,
            programs,
            hooks,
            _ebpf: None,
            _kprobes: Vec::new(),
        }
    }
}

/// A plan whose programs are not attached yet.
pub struct LoadedPlan {
    plan: Plan,
    ebpf: Ebpf,
    /// The maps that are not taken yet.
    pub(super) maps: Maps,
}

/// Everything needed for loading, read once. Drop it when everything is loaded: it holds the kernel's types.
pub struct Loader {
    /// The kernel's types.
    pub kernel: Kernel,
    offsets: Offsets,
    options: LoadOptions,
    /// The kernel's traits.
    pub traits: Traits,
}

impl Loader {
    /// Reads the running kernel's types and finds the fields that the programs read.
    pub fn new(options: LoadOptions) -> Result<Self, KernelError> {
        let kernel = Kernel::running()?;
        let (offsets, _) = kernel.offsets(options.keyed)?;
        let traits = Traits {
            sees_returns: sees_returns(&kernel),
            preemption: Preemption::running(),
            preempts_tracepoints: preemption::preempts_tracepoints(),
            new_timer: has_new_timer(&kernel),
            answers: Answers::of(&kernel),
            sees_releases: whole_cgroup_root().is_ok(),
        };
        Ok(Self {
            kernel,
            offsets,
            options,
            traits,
        })
    }

    /// Key fields in use, a set of [`keyed`] bits.
    #[must_use]
    pub fn keyed(&self) -> u32 {
        self.options.keyed
    }

    /// Creates the maps for a plan.
    pub fn load(&self, plan: Plan) -> Result<LoadedPlan, PlanError> {
        let again = hooked_again(plan, self.traits);
        let mut ebpf = self.make_maps(again).map_err(|why| PlanError {
            plan,
            point: "maps".into(),
            why,
        })?;
        let maps = Maps::of(&mut ebpf);
        Ok(LoadedPlan { plan, ebpf, maps })
    }

    /// Attaches every hook of a plan, and pins their links if `pins` is given. If one fails, those before it
    /// are detached.
    pub fn attach(
        &self,
        loaded: LoadedPlan,
        pins: Option<&Pins>,
    ) -> Result<Attachment, ProbeError> {
        let LoadedPlan {
            plan,
            mut ebpf,
            mut maps,
        } = loaded;
        self.expect_reached(plan, &self.hooks_once(plan))?;
        let hooks = self.hooks(plan);
        // The hook that sees returns is attached when needed.
        let (later, now): (Vec<_>, Vec<_>) = hooks.iter().partition(|hook| hook.sees_returns());
        let holders = self.attach_hooks(&mut ebpf, plan, &now, pins.is_some())?;
        self.load_programs(&mut ebpf, &later)
            .map_err(|(hook, why)| PlanError {
                plan,
                point: hook.point.to_string(),
                why,
            })?;
        let programs = programs(&ebpf, &hooks).map_err(|(hook, why)| PlanError {
            plan,
            point: hook.point.to_string(),
            why,
        })?;
        let mut kprobes = Vec::new();
        let mut own = Vec::new();
        for (hook, holder) in holders {
            match (holder, pins) {
                (Holder::Kprobe(kprobe), _) => kprobes.push(kprobe),
                (Holder::Link(link), Some(pins)) => pins.keep_link(hook, link)?,
                (Holder::Link(Link::Ours(link)), None) => own.push((hook, link)),
                (Holder::Link(Link::Loader(_)) | Holder::Loader, _) => {}
            }
        }
        let links = pins.map_or(Links::Held(own), Pins::links);
        if let Some(pins) = pins {
            pins.keep_programs(&programs)?;
            pins.seal(&mut maps, self.options.metadata(plan, self.traits))?;
        }
        let programs =
            Programs::new(programs, links, Owner::here()).map_err(|error| PlanError {
                plan,
                point: "kprobe_profile".into(),
                why: AttachError::Refused(error.to_string()),
            })?;
        Ok(Attachment {
            plan,
            hooks,
            // Pinned programs do not need it.
            _ebpf: pins.is_none().then_some(ebpf),
            _kprobes: kprobes,
            programs,
        })
    }

    /// Attaches programs with the names of a plan's to its hooks, each once, except the one attached only while
    /// closes wait. They stay attached while both the returned value and `ebpf` live.
    pub fn attach_alike(&self, ebpf: &mut Ebpf, plan: Plan) -> Result<impl Sized, PlanError> {
        let mut hooks = self.hooks_once(plan);
        hooks.retain(|hook| !hook.sees_returns());
        self.attach_hooks(ebpf, plan, &hooks, false)
    }

    /// Refuses a plan if the end of a connection does not reach all of these hooks: a function in the kernel's
    /// types may be inlined at its callers.
    pub fn expect_reached(&self, plan: Plan, hooks: &[Hook]) -> Result<(), PlanError> {
        let failed = |point: String, why| PlanError { plan, point, why };
        let mut ebpf = loader()
            .btf(None)
            .load(FLOOR)
            .map_err(|error| failed("maps".into(), AttachError::Refused(innermost(&error))))?;
        let _attached = self.attach_hooks(&mut ebpf, plan, hooks, false)?;
        match first_unreached(&ebpf, hooks) {
            Ok(None) => Ok(()),
            Ok(Some(hook)) => Err(failed(
                hook.point.to_string(),
                AttachError::Missing("connections end without it; it may be inlined".into()),
            )),
            Err(error) => {
                warn!(
                    "whether the ends of connections reach all hooks of the plan {} is not known, without \
                     a connection over loopback: {error}",
                    plan.name()
                );
                Ok(())
            }
        }
    }

    /// The hooks of a plan, each once.
    fn hooks_once(&self, plan: Plan) -> Vec<Hook> {
        let mut hooks = self.hooks(plan);
        hooks.retain(|hook| PROGRAMS.contains(&hook.program));
        hooks
    }

    /// The hooks of a plan.
    fn hooks(&self, plan: Plan) -> Vec<Hook> {
        hooks(plan, self.options.keyed, self.traits)
    }

    /// Attaches these hooks of a plan, while both the returned value and `ebpf` live.
    fn attach_hooks(
        &self,
        ebpf: &mut Ebpf,
        plan: Plan,
        hooks: &[Hook],
        keep: bool,
    ) -> Result<Vec<(Hook, Holder)>, PlanError> {
        let failed = |(hook, why): (Hook, AttachError)| PlanError {
            plan,
            point: hook.point.to_string(),
            why,
        };
        // The first shows whether functions can be hooked here, before much is loaded.
        let first = hooks
            .iter()
            .position(|hook| hook.point.function().is_some());
        let (first, rest) = hooks.split_at(first.map_or(0, |at| at + 1));
        let mut holders = Vec::new();
        for part in [first, rest] {
            self.load_programs(ebpf, part).map_err(failed)?;
            for &hook in part {
                let holder = attach_program(ebpf, hook, keep).map_err(|why| failed((hook, why)))?;
                holders.push((hook, holder));
            }
        }
        Ok(holders)
    }

    /// Loads and attaches a plan and detaches it again.
    pub fn try_plan(&self, plan: Plan) -> Result<(), PlanError> {
        self.expect_reached(plan, &self.hooks_once(plan))?;
        let mut loaded = self.load(plan)?;
        self.attach_hooks(&mut loaded.ebpf, plan, &self.hooks(plan), false)
            .map(drop)
    }

    /// Loads and attaches one hook alone and detaches it again.
    pub fn try_hook(&self, hook: Hook) -> Result<(), AttachError> {
        let mut ebpf = self.make_maps(0)?;
        let loaded = self.load_programs(&mut ebpf, &[hook]);
        loaded.map_err(|(_, why)| why)?;
        attach_program(&mut ebpf, hook, false).map(drop)
    }

    /// Creates the maps; no program is loaded yet. `again` is of [`Constants`].
    fn make_maps(&self, again: u32) -> Result<Ebpf, AttachError> {
        let close_syscall = if self.traits.sees_returns {
            u32::try_from(nix::libc::SYS_close).expect("a small number")
        } else {
            Constants::NO_SYSCALL
        };
        let LoadOptions {
            keyed,
            max_groups,
            max_orphans,
        } = self.options;
        let exes = keyed & keyed::EXE != 0;
        let constants = Constants {
            offsets: self.offsets,
            keyed,
            close_syscall,
            again,
        };
        let object = object::of(&self.kernel, &constants)?;
        loader()
            .btf(None)
            .map_max_entries("NOTES", max_groups)
            .map_max_entries("CGROUPS", max_groups)
            .map_max_entries("LEDGER", max_groups)
            .map_max_entries("NUMBERS", max_groups)
            .map_max_entries("EXES", if exes { max_groups } else { 1 })
            .map_max_entries("EXITING", if exes { MAX_CLOSES } else { 1 })
            .map_max_entries("ORPHANS", max_orphans)
            .map_max_entries("RESETS", if again == 0 { 1 } else { HINTS })
            .load(&object)
            .map_err(|error| AttachError::Refused(innermost(&error)))
    }

    /// Loads the programs of these hooks. Fails with the first that does not load.
    fn load_programs(&self, ebpf: &mut Ebpf, hooks: &[Hook]) -> Result<(), (Hook, AttachError)> {
        for &hook in hooks {
            if let Some(missing) = self.missing(hook.point) {
                let missing = format!("the kernel has no {missing}");
                return Err((hook, AttachError::Missing(missing)));
            }
        }
        let functions = hooks.iter().filter_map(|hook| match hook.point {
            Point::Fentry(function) | Point::Fexit(function) => Some(function),
            _ => None,
        });
        let tracepoints = hooks.iter().filter_map(|hook| match hook.point {
            Point::BtfTracepoint(name) => Some(name),
            _ => None,
        });
        let names = self.kernel.names(functions, tracepoints);
        load::all(ebpf, hooks, names.as_ref())
    }

    /// The function or tracepoint that this kernel lacks for a point.
    fn missing(&self, point: Point) -> Option<String> {
        match point {
            Point::BtfTracepoint(name) => {
                (!self.kernel.has_tracepoint(name)).then(|| format!("tracepoint {name}"))
            }
            _ => point
                .function()
                .filter(|function| !self.kernel.has_function(function))
                .map(|function| format!("function {function}")),
        }
    }
}

/// Attaches the loaded program of a hook while the returned value lives and, for most kinds, `ebpf`. `keep`
/// asks for a link that can be pinned.
fn attach_program(ebpf: &mut Ebpf, hook: Hook, keep: bool) -> Result<Holder, AttachError> {
    let program = ebpf.program_mut(hook.program);
    let program = program.ok_or_else(|| load::no_program(hook))?;
    attach(program, hook, keep).map_err(|error| explain(&error, hook.point))
}

fn attach(program: &mut Program, hook: Hook, keep: bool) -> Result<Holder, ProgramError> {
    let link = match (program, hook.point) {
        (Program::FEntry(program), Point::Fentry(_)) => {
            let id = program.attach()?;
            keep.then(|| program.take_link(id).map(FdLink::from))
        }
        (Program::FExit(program), Point::Fexit(_)) => {
            let id = program.attach()?;
            keep.then(|| program.take_link(id).map(FdLink::from))
        }
        (Program::KProbe(program), Point::Kprobe(_) | Point::Kretprobe(_)) => {
            let program = program.fd()?.as_fd();
            return Ok(if keep {
                Holder::Link(Link::Ours(Kprobe::link(program, hook)?))
            } else {
                Holder::Kprobe(Kprobe::attach(program, hook)?)
            });
        }
        (Program::RawTracePoint(program), Point::RawTracepoint(name)) => {
            let id = program.attach(name)?;
            keep.then(|| program.take_link(id).map(FdLink::from))
        }
        (Program::RawTracePoint(_), Point::OnDemand) => return Ok(Holder::Loader),
        (Program::BtfTracePoint(program), Point::BtfTracepoint(_)) => {
            let id = program.attach()?;
            keep.then(|| program.take_link(id).map(FdLink::from))
        }
        (Program::CgroupSock(program), Point::SockRelease) => {
            let cgroup = File::open(whole_cgroup_root()?)?;
            let link = sys::link_to_releases(&program.fd()?.as_fd(), &cgroup)?;
            return Ok(Holder::Link(Link::Ours(link)));
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    let link = link.transpose()?;
    Ok(link.map_or(Holder::Loader, |link| Holder::Link(Link::Loader(link))))
}

/// The loaded programs of these hooks.
fn programs(ebpf: &Ebpf, hooks: &[Hook]) -> Result<Vec<(Hook, OwnedFd)>, (Hook, AttachError)> {
    let program = |hook: Hook| {
        let program = ebpf.program(hook.program);
        let program = program.ok_or_else(|| load::no_program(hook))?;
        let fd = program.fd().map_err(|error| explain(&error, hook.point))?;
        let fd = fd.as_fd().try_clone_to_owned();
        fd.map_err(|error| AttachError::Refused(error.to_string()))
    };
    let programs = hooks.iter().map(|&hook| match program(hook) {
        Ok(program) => Ok((hook, program)),
        Err(why) => Err((hook, why)),
    });
    programs.collect()
}

/// Keeps a program attached.
enum Holder {
    /// The loader.
    Loader,
    Kprobe(Kprobe),
    /// A link, which can be pinned.
    Link(Link),
}

/// The cgroups of this host, as far as visible.
#[must_use]
pub fn cgroups() -> Cgroups {
    Cgroups::new(cgroup_root().ok())
}

/// The mount point of the cgroup v2 hierarchy, which differs from the usual one beside v1. If a container has
/// both a mount of the whole hierarchy and one of its namespace's part, the whole one.
pub fn cgroup_root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    });
    // The first of several equal ones.
    mounts.min_by_key(|mount| !is_whole(mount)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified",
        )
    })
}

/// [`cgroup_root`], if that is the whole hierarchy: a hook below the root would count only a part of all
/// closes.
fn whole_cgroup_root() -> io::Result<PathBuf> {
    let root = cgroup_root()?;
    if is_whole(&root) {
        return Ok(root);
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "only a part of all cgroups is visible here, and the rest would not be counted: run in the host's \
         cgroup namespace, or mount the host's /sys/fs/cgroup in the container",
    ))
}

fn is_whole(mount: &Path) -> bool {
    Cgroups::new(Some(mount.into())).is_whole()
}
