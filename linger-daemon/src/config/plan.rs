//! The configured plan.

use clap::ValueEnum;
use linger_ebpf::Plan;
use serde::{Deserialize, Serialize};

/// Which plan to use.
#[expect(
    clippy::doc_markdown,
    reason = "the comments of its variants are help for a terminal"
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlanChoice {
    /// The best that attaches: fentry, then kprobe, then tracepoint
    Auto,
    /// BPF trampolines: exact, and the cheapest
    Fentry,
    /// Kprobes on the same functions, where there are no trampolines
    Kprobe,
    /// cgroup/sock_release and tracepoints, where the kernel refuses both
    Tracepoint,
}

impl PlanChoice {
    /// Returns the plan; `None` leaves the choice to lingerd.
    #[must_use]
    pub const fn plan(self) -> Option<Plan> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(Plan::Fentry),
            Self::Kprobe => Some(Plan::Kprobe),
            Self::Tracepoint => Some(Plan::Tracepoint),
        }
    }
}
