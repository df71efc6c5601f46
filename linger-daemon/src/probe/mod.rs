//! Loads and attaches the programs: offsets from BTF, choice of a plan, load, attach, pin.

mod attach;
mod btf;
mod constants;
mod error;
mod hooks;
mod kprobe;
mod link;
mod load;
mod object;
mod options;
mod owner;
mod pins;
mod preemption;
mod programs;
mod reachability;
mod takeover;
mod traits;

pub use attach::{Attachment, Loader};
pub use btf::{Kernel, KernelError, Resolved};
pub use error::{AttachError, PlanError, ProbeError};
pub use hooks::{Hook, Point, blind};
pub use kprobe::TRACEFS;
pub use options::LoadOptions;
pub use pins::{Pins, PinsError};
pub use preemption::Preemption;
pub use programs::{Maps, ProgramRuns, Programs};
pub use takeover::{PinnedPrograms, choose, open_pinned};
pub use traits::Traits;
