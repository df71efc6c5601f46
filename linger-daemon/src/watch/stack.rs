//! Symbolizes user stacks.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use blazesym::Pid;
use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use caps::Capability;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgroups};
use tracing::debug;

use crate::event::{Close, Frame};

/// Capabilities for reading the programs of other users, as those users: their memory maps, and links to mapped and
/// deleted files.
pub(super) const CAPABILITIES: &[Capability] = &[
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_CHECKPOINT_RESTORE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
];

/// The stack of a process.
type Stack = (u32, Vec<Frame>);

/// Resolves addresses in programs to functions, in a thread: programs say which files name their functions, and opening
/// a FIFO among them would last until its writer comes.
pub(super) struct Symbols {
    stacks: Sender<Stack>,
    named: Receiver<Vec<Frame>>,
    /// The thread is still at a stack that was not waited for.
    is_held_up: bool,
}

/// Maximum time to wait for the names of a stack: together with the stacks of the same batch, less than the lease of a
/// watcher.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long files that were read are kept, open and in memory: long enough to be read once for many stacks.
const FILES_KEPT: Duration = Duration::from_secs(60);

impl Symbols {
    pub(super) fn new() -> Self {
        let (stacks, unnamed) = channel::<Stack>();
        let (done, named) = channel();
        if let Err(error) = setgroups(&[]) {
            debug!("cannot leave the groups of lingerd: {error}");
        }
        thread::spawn(move || {
            let mut symbolizer = Symbolizer::new();
            let mut begun = Instant::now();
            for (pid, mut stack) in unnamed {
                // It keeps every version of every file that it has read: of the maps that runtimes with a JIT compiler
                // write for their functions, for instance.
                if begun.elapsed() >= FILES_KEPT {
                    (symbolizer, begun) = (Symbolizer::new(), Instant::now());
                }
                match act_as_user_of(pid) {
                    Ok(()) => name_all(&symbolizer, pid, &mut stack),
                    Err(error) => debug!("the stack of process {pid} has no names: {error}"),
                }
                if done.send(stack).is_err() {
                    return;
                }
            }
        });
        Self {
            stacks,
            named,
            is_held_up: false,
        }
    }

    /// Names the frames of a close, as far as its process still exists and its binary has symbols.
    pub(super) fn name(&mut self, close: &mut Close) {
        if self.is_held_up && self.named.try_recv().is_err() {
            return;
        }
        let pid = close.connection.pid;
        let sent = self.stacks.send((pid, close.stack.clone()));
        let named = sent
            .ok()
            .and_then(|()| self.named.recv_timeout(PATIENCE).ok());
        self.is_held_up = named.is_none();
        match named {
            Some(stack) => close.stack = stack,
            None => super::report(&format!(
                "naming the functions of process {pid} takes long: until that is done, stacks have no names"
            )),
        }
    }
}

/// Has this thread open files as the user of a process does, and none that this user may not: the process says which
/// files name its functions.
fn act_as_user_of(pid: u32) -> io::Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    // The real, effective, saved and file system id.
    let id = |name| {
        let ids = status.lines().find_map(|line| line.strip_prefix(name))?;
        ids.split_whitespace().nth(1)?.parse().ok()
    };
    let (Some(user), Some(group)) = (id("Uid:").map(Uid::from_raw), id("Gid:").map(Gid::from_raw))
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    setfsgid(group);
    setfsuid(user);
    // They report no errors; an invalid id changes nothing.
    let (now_group, now_user) = (
        setfsgid(Gid::from_raw(u32::MAX)),
        setfsuid(Uid::from_raw(u32::MAX)),
    );
    if (now_user, now_group) != (user, group) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

fn name_all(symbolizer: &Symbolizer, pid: u32, stack: &mut [Frame]) {
    let source = Source::from(Process::new(Pid::from(pid)));
    for frame in stack {
        let address = Input::AbsAddr(frame.address);
        match symbolizer.symbolize_single(&source, address) {
            Ok(Symbolized::Sym(symbol)) => name(frame, &symbol),
            Ok(Symbolized::Unknown(_)) => {}
            Err(error) => debug!("{:#x} has no name: {error:#}", frame.address),
        }
    }
}

fn name(frame: &mut Frame, symbol: &Sym<'_>) {
    frame.symbol = if symbol.offset == 0 {
        symbol.name.to_string()
    } else {
        format!("{}+{:#x}", symbol.name, symbol.offset)
    };
    frame.source = symbol.code_info.as_deref().map(place).unwrap_or_default();
}

fn place(code: &CodeInfo<'_>) -> String {
    let path = code.to_path();
    match code.line {
        Some(line) => format!("{}:{line}", path.display()),
        None => path.display().to_string(),
    }
}
