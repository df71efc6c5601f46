//! Loading and attaching: a plan as a whole, or none of it.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use aya::programs::{CgroupAttachMode, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use linger_ebpf::{
    MAX_CLOSES, MAX_GROUPS, MAX_ORPHANS, OBJECT, Offsets, Plan, ROWS_PER_GROUP, keyed,
};
use thiserror::Error;
use tracing::{debug, info};

use super::btf::{Kernel, KernelError};
use super::hooks::{Hook, Point, hooks, sees_returns};
use super::kretprobe::Kretprobe;
use crate::attribution::Dimension;

/// Why a hook does not attach.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel has nothing to hook there.
    #[error("missing: {0}")]
    Missing(String),
    /// It is there, and the kernel does not let us.
    #[error("refused: {0}")]
    Refused(String),
}

impl AttachError {
    /// The reason alone.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Missing(reason) | Self::Refused(reason) => reason,
        }
    }
}

/// Why a plan cannot be used.
#[derive(Debug, Error)]
#[error("plan {} cannot be used: {point}: {why}", plan.name())]
pub struct PlanError {
    /// The plan.
    pub plan: Plan,
    /// The hook that failed, or what failed before any.
    pub point: String,
    /// Why.
    pub why: AttachError,
}

/// Why nothing is attached.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel's types cannot be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The plan asked for does not work here.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The maps do not take what is configured.
    #[error("the maps cannot be prepared")]
    Prepare(#[source] Box<dyn Error + Send + Sync>),
    /// No plan works here.
    #[error("no plan works on this kernel; `lingerd check` tells why")]
    NoPlan,
}

/// Programs at work. Dropping this detaches and unloads them.
pub struct Attached {
    /// The plan in use.
    pub plan: Plan,
    /// What is attached.
    pub hooks: Vec<Hook>,
    /// The maps that no one took, and the links that keep the programs attached.
    _ebpf: Ebpf,
    /// More of what keeps programs attached.
    _kretprobes: Vec<Kretprobe>,
}

/// What the programs are loaded for.
#[derive(Clone, Copy, Debug)]
pub struct Purpose {
    /// What of a group they read, a set of [`keyed`] bits.
    pub keyed: u32,
    /// How many groups have counters of their own.
    pub max_groups: u32,
    /// How many orphans have a record of their own.
    pub max_orphans: u32,
}

impl Default for Purpose {
    fn default() -> Self {
        Self {
            keyed: Dimension::keyed(Dimension::DEFAULT),
            max_groups: MAX_GROUPS,
            max_orphans: MAX_ORPHANS,
        }
    }
}

/// Attaches the plan asked for, or the best that works.
///
/// `prepare` gets the maps before anything is attached, and may take them; returns what it made of
/// them.
pub fn choose<T, E: Error + Send + Sync + 'static>(
    wanted: Option<Plan>,
    purpose: Purpose,
    prepare: impl Fn(&mut Ebpf, Plan) -> Result<T, E>,
) -> Result<(Attached, T), ProbeError> {
    let loader = Loader::new(purpose)?;
    let attempt = |plan| -> Result<_, ProbeError> {
        let mut maps = loader.load(plan)?;
        let prepared = prepare(&mut maps.ebpf, plan);
        let prepared = prepared.map_err(|error| ProbeError::Prepare(error.into()))?;
        Ok((loader.attach(maps)?, prepared))
    };
    if let Some(plan) = wanted {
        return attempt(plan);
    }
    for &plan in Plan::ALL {
        match attempt(plan) {
            Err(ProbeError::Plan(error)) => info!("{error}"),
            done => return done,
        }
    }
    Err(ProbeError::NoPlan)
}

/// The maps of a plan, whose programs are not attached yet.
pub struct Loaded {
    plan: Plan,
    ebpf: Ebpf,
}

/// All that loading takes, read once. Drop it when everything is loaded: it holds the kernel's types.
pub struct Loader {
    /// The kernel's types, for questions.
    pub kernel: Kernel,
    offsets: Offsets,
    btf: Option<Btf>,
    purpose: Purpose,
}

impl Loader {
    /// Reads the running kernel's types and finds the fields that the programs read.
    pub fn new(purpose: Purpose) -> Result<Self, KernelError> {
        let kernel = Kernel::running()?;
        let (offsets, _) = kernel.offsets()?;
        Ok(Self {
            kernel,
            offsets,
            btf: Btf::from_sys_fs().ok(),
            purpose,
        })
    }

    /// Makes the maps for a plan.
    pub fn load(&self, plan: Plan) -> Result<Loaded, PlanError> {
        let ebpf = self.make_maps().map_err(|why| PlanError {
            plan,
            point: "maps".into(),
            why,
        })?;
        Ok(Loaded { plan, ebpf })
    }

    /// Attaches every hook of a plan. When one fails, those before it are detached.
    pub fn attach(&self, loaded: Loaded) -> Result<Attached, PlanError> {
        let Loaded { plan, mut ebpf } = loaded;
        let hooks = hooks(plan, self.purpose.keyed, &self.kernel);
        let failed = |point: String, why| PlanError { plan, point, why };
        let mut kretprobes = Vec::new();
        for hook in &hooks {
            let kretprobe = self
                .attach_hook(&mut ebpf, *hook)
                .map_err(|why| failed(hook.point.to_string(), why))?;
            kretprobes.extend(kretprobe);
        }
        Ok(Attached {
            plan,
            hooks,
            _ebpf: ebpf,
            _kretprobes: kretprobes,
        })
    }

    /// Loads and attaches one hook alone and detaches it again.
    pub fn try_hook(&self, hook: Hook) -> Result<(), AttachError> {
        self.attach_hook(&mut self.make_maps()?, hook).map(drop)
    }

    /// Makes the maps; no program is loaded yet.
    fn make_maps(&self) -> Result<Ebpf, AttachError> {
        let close_syscall = if sees_returns(&self.kernel) {
            i32::try_from(nix::libc::SYS_close).expect("a small number")
        } else {
            -1
        };
        let Purpose {
            keyed,
            max_groups,
            max_orphans,
        } = self.purpose;
        let exes = keyed & keyed::EXE != 0;
        EbpfLoader::new()
            .btf(self.btf.as_ref())
            .override_global("KEYED", &keyed, true)
            .override_global("OFFSETS", &self.offsets, true)
            .override_global("CLOSE_SYSCALL", &close_syscall, true)
            .map_max_entries("GROUPS", max_groups)
            .map_max_entries("CGROUPS", max_groups)
            .map_max_entries("LEDGER", max_groups.saturating_mul(ROWS_PER_GROUP))
            .map_max_entries("EXES", if exes { max_groups } else { 1 })
            .map_max_entries("EXITING", if exes { MAX_CLOSES } else { 1 })
            .map_max_entries("ORPHANS", max_orphans)
            .load(OBJECT)
            .map_err(|error| AttachError::Refused(innermost(&error)))
    }

    /// Attaches a hook for as long as `ebpf` and what this returns live.
    fn attach_hook(&self, ebpf: &mut Ebpf, hook: Hook) -> Result<Option<Kretprobe>, AttachError> {
        if let Some(function) = hook.point.function()
            && !self.kernel.has_function(function)
        {
            return Err(AttachError::Missing(format!(
                "the kernel has no function {function}"
            )));
        }
        let program = ebpf
            .program_mut(hook.program)
            .ok_or_else(|| AttachError::Missing(format!("no program {}", hook.program)))?;
        self.load_and_attach(program, hook)
            .map_err(|error| explain(&error, hook.point))
    }

    fn load_and_attach(
        &self,
        program: &mut Program,
        hook: Hook,
    ) -> Result<Option<Kretprobe>, ProgramError> {
        let no_btf = || io::Error::new(io::ErrorKind::NotFound, "the kernel's BTF is unreadable");
        match (program, hook.point) {
            (Program::FEntry(program), Point::Fentry(function)) => {
                program.load(function, self.btf.as_ref().ok_or_else(no_btf)?)?;
                program.attach()?;
            }
            (Program::FExit(program), Point::Fexit(function)) => {
                program.load(function, self.btf.as_ref().ok_or_else(no_btf)?)?;
                program.attach()?;
            }
            (Program::KProbe(program), Point::Kprobe(function)) => {
                program.load()?;
                program.attach(function, 0)?;
            }
            (Program::KProbe(program), Point::Kretprobe(function)) => {
                program.load()?;
                let program = program.fd()?.as_fd();
                return Ok(Some(Kretprobe::attach(program, hook.program, function)?));
            }
            (Program::RawTracePoint(program), Point::RawTracepoint(name)) => {
                program.load()?;
                program.attach(name)?;
            }
            (Program::CgroupSock(program), Point::SockRelease) => {
                program.load()?;
                // Links of this type never exclude others; the kernel refuses any other mode.
                program.attach(File::open(cgroup_root()?)?, CgroupAttachMode::Single)?;
            }
            _ => return Err(ProgramError::UnexpectedProgramType),
        }
        Ok(None)
    }
}

/// Where the cgroup v2 hierarchy is mounted; beside v1 it is not at the usual place.
pub fn cgroup_root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .find_map(|line| {
            let mut words = line.split(' ');
            let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified",
            )
        })
}

/// Says in one line what a person can make of an error.
fn explain(error: &ProgramError, point: Point) -> AttachError {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        debug!(point = %point, "verifier: {verifier_log}");
        let log = verifier_log.to_string();
        let last = log.lines().rfind(|line| !is_statistics(line));
        return AttachError::Refused(match last {
            Some(line) => format!("the verifier rejects the program: {line} ({io_error})"),
            None => format!("the program does not load: {io_error}"),
        });
    }
    AttachError::Refused(innermost(error))
}

/// An error with its last cause, which says most.
fn innermost(error: &dyn Error) -> String {
    let mut source = error.source();
    let mut text = error.to_string();
    while let Some(next) = source {
        let inner = next.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = next.source();
    }
    text
}

/// Lines that end every log of the verifier.
fn is_statistics(line: &str) -> bool {
    line.is_empty()
        || ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|prefix| line.starts_with(prefix))
}
