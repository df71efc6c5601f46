//! From a kernel to attached programs: offsets from its BTF, the choice of a plan, load and attach.

mod attach;
mod btf;
mod hooks;
mod kretprobe;

pub use attach::{
    AttachError, Attached, Loader, PlanError, ProbeError, Purpose, cgroup_root, choose,
};
pub use btf::{Kernel, KernelError, Resolved};
pub use hooks::{Hook, Point, blind, hooks};
