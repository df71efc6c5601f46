//! What happens to a close, its RST and its orphan, and where that is counted.
//!
//! Functions that are `extern "C"` and exported are what the kernel calls global functions: the
//! verifier goes through each once, by itself, and not again for every way that leads to a call. They
//! take numbers, and pointers to what they may not rely on being there.

mod again;
pub(crate) mod answers;
pub(crate) mod close;
mod closers;
pub(crate) mod exe;
pub(crate) mod functions;
pub(crate) mod in_flight;
mod ledger;
pub(crate) mod maps;
pub(crate) mod orphan;
mod path;
pub(crate) mod releases;
pub(crate) mod reset;
mod shared;
pub(crate) use shared::Shared;
mod group;
mod undecided;
mod watch;
