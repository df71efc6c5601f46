//! Loads and attaches the programs: offsets from BTF, choice of a plan, load, attach, pin.

mod attach;
mod btf;
mod choose;
mod hooks;
mod kprobe;
mod load;
mod maps;
mod pins;
mod preemption;
mod programs;
mod reachability;
mod takeover;

pub use attach::{AttachError, Attachment, Loader, PlanError, cgroup_root, cgroups};
pub use btf::{Kernel, KernelError, Resolved};
pub use choose::{LoadOptions, ProbeError, choose};
pub use hooks::{Hook, Point, Traits, blind, hooks};
pub use kprobe::TRACEFS;
pub use maps::Maps;
pub use pins::{Pins, PinsError};
pub use preemption::Preemption;
pub use programs::Programs;
pub use takeover::{PinnedPrograms, open_pinned};
