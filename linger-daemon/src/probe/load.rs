//! Loads programs in parallel: the kernel's verifier takes most of the time of a start.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;
use std::thread;
use std::{io, iter};

use aya::programs::{Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::debug;

use super::error::{AttachError, with_causes};
use super::hooks::{Hook, Point};
use crate::sync::lock;
use crate::sys;

/// Creates a loader for the object, in which nothing depends on the kernel's types.
///
/// Creating a loader reads and parses all kernel types, which is of no use here, unless their file cannot be opened. So
/// the limit of open files is set to 0 meanwhile, if this thread is the only one.
pub(super) fn loader<'a>() -> EbpfLoader<'a> {
    const FILES: Resource = Resource::RLIMIT_NOFILE;
    let refused = getrlimit(FILES)
        .ok()
        .filter(|(_, most)| sys::has_one_thread() && setrlimit(FILES, 0, *most).is_ok());
    let loader = EbpfLoader::new();
    if let Some((usual, most)) = refused
        && let Err(error) = setrlimit(FILES, usual, most)
    {
        // Raising it again, up to the hard limit, is always allowed.
        unreachable!("the limit of open files stays at 0: {error}");
    }
    loader
}

/// Loads the programs of these hooks, as many at a time as there are CPUs, the last first: those that begin a
/// close are the largest. Fails with the first hook whose program does not load. `names` is BTF with the functions
/// and tracepoints of these hooks.
pub(super) fn in_parallel(
    ebpf: &mut Ebpf,
    hooks: &[Hook],
    names: Option<&Btf>,
) -> Result<(), (Hook, AttachError)> {
    let mut programs: HashMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let programs = hooks.iter().map(|hook| programs.remove(hook.program));
    let programs: Vec<_> = hooks.iter().zip(programs).enumerate().collect();
    let waiting = Mutex::new(programs);
    let next = || lock(&waiting).pop();
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some((place, (hook, program))) = next() {
            let loaded = match program {
                Some(program) => {
                    load(program, hook.point, names).map_err(|why| explain(&why, hook.point))
                }
                None => Err(no_program(*hook)),
            };
            if let Err(why) = loaded {
                lock(&failures).push((place, (*hook, why)));
            }
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(hooks.len());
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let first = lock(&failures).drain(..).min_by_key(|(place, _)| *place);
    first.map_or(Ok(()), |(_, failure)| Err(failure))
}

fn load(program: &mut Program, point: Point, names: Option<&Btf>) -> Result<(), ProgramError> {
    let names = || names.ok_or(ProgramError::UnexpectedProgramType);
    match (program, point) {
        (Program::FEntry(program), Point::Fentry(function)) => program.load(function, names()?),
        (Program::FExit(program), Point::Fexit(function)) => program.load(function, names()?),
        (Program::BtfTracePoint(program), Point::BtfTracepoint(name)) => {
            program.load(name, names()?)
        }
        (Program::KProbe(program), Point::Kprobe(_) | Point::Kretprobe(_)) => program.load(),
        (Program::RawTracePoint(program), Point::RawTracepoint(_) | Point::OnDemand) => {
            program.load()
        }
        (Program::CgroupSock(program), Point::SockRelease) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

pub(super) fn no_program(hook: Hook) -> AttachError {
    AttachError::Missing(format!("no program {}", hook.program))
}

/// Says in words why a program does not load or attach.
pub(super) fn explain(error: &ProgramError, point: Point) -> AttachError {
    let is_unsupported = code(error) == Some(ENOTSUPP);
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
            None if is_unsupported => {
                "the kernel cannot compile the program (arm64 has what it takes since Linux 5.18)"
                    .into()
            }
            None => format!("the program does not load: {io_error}"),
        });
    }
    AttachError::Refused(if is_unsupported {
        "this kernel has no trampolines for BPF programs (arm64 has them since Linux 6.4)".into()
    } else {
        with_causes(error)
    })
}

/// The kernel's internal error code for "not supported"; libc has no name for it.
///
/// kernel: v5.5.. kernel/bpf/trampoline.c: `bpf_trampoline_link_prog` passes on what `register_fentry` returns
/// kernel: v4.15.. kernel/bpf/core.c: `bpf_prog_select_runtime`, of a program that is not compiled
const ENOTSUPP: i32 = 524;

/// The operating system's code of an error, if it has one.
fn code(error: &ProgramError) -> Option<i32> {
    let mut errors = iter::successors(Some(error as &dyn Error), |&error| error.source());
    errors.find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

/// Whether this line belongs to the statistics at the end of every verifier log.
fn is_statistics(line: &str) -> bool {
    line.is_empty()
        || ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|prefix| line.starts_with(prefix))
}
