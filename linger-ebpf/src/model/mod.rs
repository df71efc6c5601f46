//! The life of a close, its RST and its orphan, and the counters they are added to.
//!
//! Begin with the plan that interests you. `function_plans` (`fentry`, `kprobe`) and `tracepoint_plan` have a function
//! for each hook that shows a part of a close. Both call:
//!
//! | module | contents |
//! | --- | --- |
//! | `close` | the steps of a close: `begin`, `decide`, `finish` |
//! | `reset` | RSTs that this host sends on its own initiative |
//! | `answers`, `closers` | RSTs that answer a packet, and the group that closed last at each port |
//! | `orphan`, `undecided` | orphans, and those that ended before their fate was known |
//! | `group`, `exe`, `path` | who closed, and the names of cgroups and executables |
//! | `ledger` | the counters of each group |
//! | `watch` | events of single closes |
//! | `in_flight`, `orphan_table` | the records of closes in flight and of orphans |
//! | `maps`, `shared` | the maps, and access to memory that others write too |
//! | `copies` | whether several programs may see the same event |
//!
//! Exported `extern "C"` functions are global functions in the kernel's sense: the verifier checks each once, on its
//! own, instead of again at every call. They take numbers, and pointers that may be null.

pub(crate) mod answers;
pub(crate) mod close;
mod closers;
pub(crate) mod copies;
pub(crate) mod exe;
pub(crate) mod function_plans;
mod group;
pub(crate) mod in_flight;
mod ledger;
pub(crate) mod maps;
pub(crate) mod orphan;
mod orphan_table;
mod path;
pub(crate) mod reset;
mod shared;
pub(crate) mod tracepoint_plan;
mod undecided;
mod watch;

pub(crate) use shared::Shared;
