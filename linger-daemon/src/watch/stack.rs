//! Symbolizes user stacks.

use blazesym::Pid;
use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};
use caps::Capability;
use tracing::debug;

use crate::event::{Close, Frame};

/// Capabilities for reading the programs of other users: their memory maps, the mapped files, and links to
/// deleted files.
pub(super) const CAPABILITIES: &[Capability] = &[
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// Resolves addresses in programs to functions.
pub(super) struct Symbols(Symbolizer);

impl Symbols {
    pub(super) fn new() -> Self {
        Self(Symbolizer::new())
    }

    /// Names the frames of a close, as far as its process still exists and its binary has symbols.
    pub(super) fn name(&self, close: &mut Close) {
        let source = Source::from(Process::new(Pid::from(close.connection.pid)));
        for frame in &mut close.stack {
            let address = Input::AbsAddr(frame.address);
            match self.0.symbolize_single(&source, address) {
                Ok(Symbolized::Sym(symbol)) => name(frame, &symbol),
                Ok(Symbolized::Unknown(_)) => {}
                Err(error) => debug!("{:#x} has no name: {error:#}", frame.address),
            }
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
