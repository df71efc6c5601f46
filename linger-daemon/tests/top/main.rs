//! `lingerd top`, as a person at a terminal meets it: the real program, driven by keys in tmux, while real closes are
//! made. These tests need root, a kernel on which lingerd works, and tmux.

mod lingerd;
mod printed;
mod secured;
mod service;
mod typed;

/// Path of the program under test.
const LINGERD: &str = env!("CARGO_BIN_EXE_lingerd");
