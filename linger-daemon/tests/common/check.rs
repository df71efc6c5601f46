//! The daemon's check of the plans on this kernel.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use linger_ebpf::Plan;
use serde::Deserialize;

/// The report of `lingerd check --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Check {
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Every plan that was checked.
    pub(crate) plans: Vec<PlanCheck>,
}

/// The report on one plan.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanCheck {
    pub(crate) plan: String,
    pub(crate) usable: bool,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

impl Check {
    /// Checks one plan, or all, with the daemon's binary. (Its exit code says whether any is usable.)
    pub(crate) fn run(lingerd: &Path, plan: Option<Plan>) -> Result<Self> {
        let plan = plan.map_or("auto", Plan::name);
        let output = Command::new(lingerd)
            .args(["check", "--json", "--plan", plan])
            .output()
            .with_context(|| format!("run {}", lingerd.display()))?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("`lingerd check --json` printed no JSON: {}", errors.trim())
        })
    }

    /// Returns why this plan is not usable, if it is not.
    pub(crate) fn refused(&self, plan: Plan) -> Option<String> {
        let check = self.plans.iter().find(|check| check.plan == plan.name());
        match check {
            Some(check) if check.usable => None,
            Some(check) => Some(check.reason.clone().unwrap_or_default()),
            None => Some("`lingerd check` says nothing of this plan".into()),
        }
    }
}
