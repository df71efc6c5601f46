//! What happens to a close, its RST and its orphan, and where that is counted.

mod again;
pub(crate) mod close;
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
mod undecided;
mod watch;
mod who;
