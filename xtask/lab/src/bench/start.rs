//! The time from the start until lingerd is attached.

use std::path::Path;

use anyhow::Result;

use super::Extent;
use super::daemon::Daemon;
use super::report::Report;
use crate::table;

/// Starts the daemon repeatedly by each plan, and reports.
pub(super) fn run(
    lingerd: &Path,
    plans: &[String],
    extent: Extent,
    report: &mut Report,
) -> Result<()> {
    let mut rows = Vec::new();
    for plan in plans {
        let (mut ready, mut cpu) = (Vec::new(), Vec::new());
        for start in 0..extent.starts {
            let daemon = Daemon::start(lingerd, &["--plan", plan])?;
            cpu.push(daemon.ready_cpu.as_secs_f64() * 1000.0);
            ready.push(daemon.ready.as_secs_f64() * 1000.0);
            daemon.stop()?;
            println!(
                "start by the plan {plan}: {} of {}",
                start + 1,
                extent.starts
            );
        }
        let name = format!("lingerd, {plan}");
        rows.push(vec![
            name.clone(),
            table::cell(&ready, 0),
            table::cell(&cpu, 0),
        ]);
        report.figure(format!("start/run/{name}/start to attached"), "ms", ready);
        report.figure(format!("start/run/{name}/CPU time until then"), "ms", cpu);
    }
    let text = format!(
        "From the start of `lingerd run` until `/readyz` reports that everything is attached, and the CPU time \
         spent until then; milliseconds, medians of {} starts.",
        extent.starts
    );
    let head = ["", "attached after", "CPU time"];
    report.page("Start", &text, &table::markdown(&head, &rows));
    Ok(())
}
