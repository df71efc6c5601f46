//! The life of a close, its RST and its orphan, and the counters they are added to.
//!
//! Exported `extern "C"` functions are global functions in the kernel's sense: the verifier checks
//! each once, on its own, instead of again at every call. They take numbers, and pointers that may
//! be null.

pub(crate) mod answers;
pub(crate) mod close;
mod closers;
pub(crate) mod copies;
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
