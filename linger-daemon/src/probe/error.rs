//! Errors in attaching programs.

use std::error;
use std::fmt::Display;
use std::iter::successors;

use linger_ebpf::Plan;
use thiserror::Error;

use super::btf::KernelError;
use super::pins::PinsError;

/// The reason why a hook cannot be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel has no such function or tracepoint.
    #[error("missing: {0}")]
    Missing(String),
    /// The kernel refuses the program, its attachment, or the maps.
    #[error("refused: {0}")]
    Refused(String),
}

impl AttachError {
    /// The reason.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Missing(reason) | Self::Refused(reason) => reason,
        }
    }
}

/// The reason why a plan cannot be used.
#[derive(Debug, Error)]
#[error("plan {} cannot be used: {point}: {why}", plan.name())]
pub struct PlanError {
    /// The plan.
    pub plan: Plan,
    /// The hook that failed, or the step before any hook.
    pub point: String,
    /// The cause.
    pub why: AttachError,
}

impl PlanError {
    pub(super) fn new(plan: Plan, point: &dyn Display, why: AttachError) -> Self {
        let point = point.to_string();
        Self { plan, point, why }
    }
}

/// The reason why nothing is attached.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The kernel's types cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The requested plan does not work here.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The configuration cannot be written to the maps.
    #[error("the maps cannot be prepared")]
    Prepare(#[source] Box<dyn error::Error + Send + Sync>),
    /// Pins cannot be made or taken over.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// No plan works here.
    #[error("no plan works on this kernel: run `lingerd check` to find out why")]
    NoPlan,
}

/// Formats an error with its causes, as one line. Leaves out causes that are in the text already.
pub(super) fn with_causes(error: &dyn error::Error) -> String {
    let mut text = error.to_string();
    for cause in successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
