//! `lingerd check`: finds out what works on this kernel, by trying.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use linger_ebpf::{Plan, key_field};
use nix::sys::utsname::uname;
use serde::Serialize;

use crate::host::{self, Finding};
use crate::privileges;
use crate::probe::{self, AttachError, LoadOptions, Loader, Point, Resolved};
use crate::stdout;
use crate::table::{Column, row};

/// The findings about this host.
#[derive(Debug, Serialize)]
struct Report {
    /// Release of the kernel.
    kernel: String,
    /// Findings about the environment of this process.
    host: Vec<Finding>,
    /// Findings about the kernel's types.
    btf: BtfReport,
    /// Every plan that was tried, best first.
    plans: Vec<PlanReport>,
    /// The plan that `run` would use.
    plan: Option<&'static str>,
}

#[derive(Debug, Default, Serialize)]
struct BtfReport {
    usable: bool,
    /// The reason why they are not usable.
    reason: Option<String>,
    /// The fields found.
    fields: Vec<Resolved>,
}

#[derive(Debug, Serialize)]
struct PlanReport {
    plan: &'static str,
    /// Whether all its hooks attach together.
    usable: bool,
    /// The reason why it is not usable.
    reason: Option<String>,
    hooks: Vec<HookReport>,
    /// Its blind spots on this kernel.
    blind: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct HookReport {
    point: Point,
    program: &'static str,
    verdict: &'static str,
    reason: Option<String>,
}

/// Prints the report; succeeds if `run` would.
pub fn check(plan: Option<Plan>, json: bool) -> Result<ExitCode> {
    let report = Report::new(plan)?;
    if json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&report.text()?)?;
    }
    Ok(ExitCode::from(u8::from(report.plan.is_none())))
}

impl Report {
    fn new(wanted: Option<Plan>) -> Result<Self> {
        let mut report = Self {
            kernel: uname()?.release().to_string_lossy().into_owned(),
            host: host::findings(),
            btf: BtfReport::default(),
            plans: Vec::new(),
            plan: None,
        };
        // With all key fields: with fewer, less is loaded. Fields that only some labels need may be missing.
        let options = LoadOptions {
            key_fields: key_field::ALL,
            // Small maps, because there are several of each.
            max_groups: 1,
            ..LoadOptions::default()
        };
        let loader = match Loader::new(options) {
            Ok(loader) => {
                report.btf.usable = true;
                report.btf.fields = loader.kernel.offsets(key_field::ALL)?.1;
                Some(loader)
            }
            Err(error) => {
                report.btf.reason = Some(error.to_string());
                Loader::new(LoadOptions::default()).ok()
            }
        };
        if let Some(loader) = loader {
            let wanted = |plan: &&Plan| wanted.is_none_or(|wanted| wanted == **plan);
            let plans = Plan::ALL.iter().filter(wanted);
            report.plans = plans.map(|plan| PlanReport::new(&loader, *plan)).collect();
        }
        report.plan = report
            .plans
            .iter()
            .find(|plan| plan.usable)
            .map(|plan| plan.plan)
            .filter(|_| privileges::missing().is_empty());
        Ok(report)
    }

    /// The report for people.
    fn text(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        writeln!(out, "kernel {}\n", self.kernel)?;
        for finding in &self.host {
            write_finding(finding, &mut out)?;
        }
        writeln!(out)?;
        let BtfReport { reason, fields, .. } = &self.btf;
        match reason {
            None => {
                let found = fields.iter().filter(|field| field.offset.is_some());
                writeln!(out, "BTF: {} fields found", found.count())?;
            }
            Some(reason) => writeln!(out, "BTF: {reason}")?,
        }
        for field in fields {
            let cells = [&field.field, &place(field)];
            writeln!(out, "  {}", row(&[Column::Left(33)], &cells))?;
        }
        for plan in &self.plans {
            plan.write(&mut out)?;
        }
        match self.plan {
            Some(plan) => writeln!(out, "\n`lingerd run` would use the plan {plan}")?,
            None => writeln!(out, "\n`lingerd run` would not work")?,
        }
        Ok(out)
    }
}

/// Writes a line for the finding, and one for its fix.
fn write_finding(finding: &Finding, out: &mut String) -> std::fmt::Result {
    const COLUMNS: [Column; 2] = [Column::Left(25), Column::Left(7)];
    let cells = [finding.what, finding.verdict.into(), &finding.found];
    writeln!(out, "{}", row(&COLUMNS, &cells))?;
    match finding.fix {
        Some(fix) => writeln!(out, "{}", row(&COLUMNS, &["", "", &format!("fix: {fix}")])),
        None => Ok(()),
    }
}

fn place(field: &Resolved) -> String {
    match (field.offset, field.mask) {
        (None, _) => "not in this kernel, not needed".into(),
        (Some(offset), None) => format!("{offset}"),
        (Some(offset), Some(mask)) => format!("{offset}, mask {mask:#04x}"),
    }
}

impl PlanReport {
    fn new(loader: &Loader, plan: Plan) -> Self {
        let failure = loader.try_plan(plan).err();
        let hooks = loader
            .hooks(plan)
            .into_iter()
            .map(|hook| {
                // If the plan has attached, all its hooks have.
                let failed = failure.as_ref();
                let error = failed.and_then(|_| loader.try_hook(hook).err());
                HookReport {
                    point: hook.point,
                    program: hook.program,
                    verdict: match &error {
                        None => "usable",
                        Some(AttachError::Missing(_)) => "missing",
                        Some(AttachError::Refused(_)) => "refused",
                    },
                    reason: error.map(|error| error.detail().to_owned()),
                }
            })
            .collect();
        Self {
            plan: plan.name(),
            usable: failure.is_none(),
            reason: failure.map(|error| format!("{}: {}", error.point, error.why)),
            hooks,
            blind: probe::blind(plan, loader.traits),
        }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let verdict = if self.usable { "usable" } else { "not usable" };
        writeln!(out, "\nplan {}: {verdict}", self.plan)?;
        for hook in &self.hooks {
            let reason = hook.reason.as_deref().unwrap_or_default();
            let columns = [Column::Left(7), Column::Left(35)];
            let point = match hook.point {
                Point::OnDemand => format!("{}, {}", hook.program, hook.point),
                point => point.to_string(),
            };
            let cells = [hook.verdict, &point, reason];
            writeln!(out, "  {}", row(&columns, &cells))?;
        }
        // Each hook may work alone, and not all together, or connections may end without reaching one.
        if let Some(reason) = &self.reason
            && self.hooks.iter().all(|hook| hook.reason.is_none())
        {
            writeln!(out, "  {reason}")?;
        }
        for blind in &self.blind {
            writeln!(out, "  does not see: {blind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a plan with one hook, for people.
    fn written(reason: Option<&str>, point: Point, refusal: Option<&str>) -> String {
        let hook = HookReport {
            point,
            program: "program",
            verdict: if refusal.is_some() {
                "refused"
            } else {
                "usable"
            },
            reason: refusal.map(str::to_owned),
        };
        let report = PlanReport {
            plan: "fentry",
            usable: reason.is_none(),
            reason: reason.map(str::to_owned),
            hooks: vec![hook],
            blind: Vec::new(),
        };
        let mut text = String::new();
        report.write(&mut text).unwrap();
        text
    }

    #[test]
    fn a_program_that_the_daemon_runs_is_named() {
        assert_eq!(
            written(None, Point::OnDemand, None),
            "\nplan fentry: usable\n  usable   program, on demand\n"
        );
    }

    #[test]
    fn a_plan_whose_hooks_work_alone_has_a_reason_of_its_own() {
        let reason = Some("fentry:tcp_close: missing: it may be inlined");
        let point = Point::Fentry("tcp_close");
        assert_eq!(
            written(reason, point, None),
            "\nplan fentry: not usable\n  usable   fentry:tcp_close\n  \
             fentry:tcp_close: missing: it may be inlined\n"
        );
        assert!(!written(reason, point, Some("no trampolines")).contains("inlined"));
    }
}
