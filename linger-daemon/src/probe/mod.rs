//! Loads and attaches the programs: offsets from BTF, choice of a plan, load, attach, pin.
//!
//! Begin with `takeover`, whose [`attach_or_take_over`] is the whole of it, and `hooks`, the table of what is attached
//! where.
//!
//! | module | contents |
//! | --- | --- |
//! | `takeover` | attaches a plan, or continues with the pinned programs of another lingerd |
//! | `attach` | loads and attaches one plan, with `object`, `constants`, `load`, `link`, `kprobe` |
//! | `btf` | the kernel's types: offsets of fields, and which functions exist |
//! | `hooks` | the programs of each plan and their attach points |
//! | `traits`, `preemption` | what a kernel is like, as far as it decides which hooks are used |
//! | `reachability` | whether hooked functions are called at all |
//! | `pins`, `owner` | programs and counts that outlive a lingerd, and who left them |
//! | `programs` | the loaded programs: are they still attached, how often did they run |

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
pub use takeover::{PinnedPrograms, attach_or_take_over, open_pinned};
pub use traits::KernelTraits;
