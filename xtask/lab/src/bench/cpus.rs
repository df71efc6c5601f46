//! Instructions of a scrape, and of threads that close at the same time, by the number of CPUs, counted in QEMU.

use anyhow::Result;
use linger_xtask::kernels::{NEWEST, PLANS};

use super::emulated;
use super::inside::cpus::{OnCpus, THREADS};
use super::instructions::CLOSES;
use super::report::Report;
use crate::table;

/// Numbers of CPUs.
const CPUS: [u32; 3] = [1, 2, 8];

/// Boots a machine with each number of CPUs, and reports the counts.
pub(super) fn run(short: bool, report: &mut Report) -> Result<()> {
    let plan = PLANS[0];
    let (groups, scrapes, connections) = if short { (5, 1, 10) } else { (1000, 5, 500) };
    let work = format!(
        "cpus --plan {plan} --groups {groups} --scrapes {scrapes} --connections {connections}"
    );
    let all = CPUS.into_iter().filter(|&cpus| !short || cpus == 2);
    let counted: Vec<(u32, OnCpus)> = all
        .map(|cpus| Ok((cpus, emulated::count(cpus, &work, Vec::new())?)))
        .collect::<Result<_>>()?;
    let mut rows = Vec::new();
    for (cpus, counted) in &counted {
        let name = format!("cpus/{cpus} CPUs/lingerd, {plan}");
        let scrape = counted.scrape / f64::from(groups);
        report.figure(
            format!("{name}/scrape, a group"),
            "instructions",
            vec![scrape],
        );
        let mut row = vec![cpus.to_string(), format!("{scrape:.0}")];
        for (place, threads) in THREADS.into_iter().enumerate() {
            let bare = counted.bare[place];
            let [lingerd, floor] =
                [counted.lingerd, counted.floor].map(|with| (with[place] - bare) / CLOSES);
            report.figure(
                format!("{name}/added by {threads} threads"),
                "instructions",
                vec![lingerd],
            );
            row.push(format!("{lingerd:.0} ({floor:.0})"));
        }
        rows.push(row);
    }
    let mut head = vec!["CPUs".to_owned(), "a scrape, per group".to_owned()];
    head.extend(THREADS.map(|threads| match threads {
        1 => "a close, 1 thread".to_owned(),
        more => format!("{more} threads"),
    }));
    let text = format!(
        "Instructions of all CPUs together, on Linux {NEWEST} in QEMU, plan {plan}: of a scrape of {groups} \
         groups, including its client, and those added to a close (in brackets: by the floor) when that many \
         threads of one group close at the same time. A thread that waits for a lock spins, which is counted."
    );
    report.page(
        "By the number of CPUs",
        &text,
        &table::markdown(&head, &rows),
    );
    Ok(())
}
