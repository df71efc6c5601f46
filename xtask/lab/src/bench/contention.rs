//! The cost of a close when several threads of one group close at the same time.

use std::thread;

use anyhow::{Result, bail};

use super::Extent;
use super::closes::{self, Builds, added};
use super::process::own_cpu_time;
use super::report::Report;
use super::rounds::{self, Done, Load, values};
use super::ways::Way;
use crate::churn::{self, Churn, Churned};
use crate::table::float;

const THREADS: [u32; 4] = [1, 2, 4, 8];

/// Measures in rounds, and reports what each number of threads adds to a close.
pub(super) fn run(builds: &Builds<'_>, extent: Extent, report: &mut Report) -> Result<()> {
    let plan = &builds.plans[0];
    let name = format!("lingerd, {plan}");
    let ways = [
        Way::bare(),
        Way::lingerd(name.clone(), builds.lingerd, plan, &[]),
        Way::floor(builds.floor, plan),
    ];
    let loads: Vec<_> = THREADS
        .into_iter()
        .map(|threads| Load {
            name: match threads {
                1 => "1 thread".to_owned(),
                more => format!("{more} threads"),
            },
            run: Box::new(move || close_in_threads(threads, extent)),
        })
        .collect();
    let rounds = rounds::measure("contention", &ways, &loads, extent.few_rounds, report)?;
    closes::report_added("contention", &ways, &loads, &rounds, report);
    for (load, Load { name: threads, .. }) in loads.iter().enumerate().skip(1) {
        let alone = values(&rounds, [0, 1], 0, |[bare, way]| added(bare, way));
        let together = values(&rounds, [0, 1], load, |[bare, way]| added(bare, way));
        let ratio = together.iter().zip(alone);
        report.figure(
            format!("contention/{threads}/{name}/added, of 1 thread"),
            "",
            ratio.map(|(together, alone)| together / alone).collect(),
        );
    }
    let text = format!(
        "Threads of one process, and so of one group, each of which opens and aborts its own connections. CPU \
         time of that process, in microseconds, added to a close; medians of {} rounds of {:?}, with the middle \
         half of the rounds in brackets. More threads than CPUs show little.",
        extent.few_rounds, extent.churn
    );
    let table = closes::added_table("contention", &ways, &loads, report);
    report.page("Contention", &text, &table);
    Ok(())
}

/// Makes and aborts connections in this number of threads; the time reported is CPU time.
fn close_in_threads(threads: u32, extent: Extent) -> Result<Done> {
    let before = own_cpu_time()?;
    let churned = thread::scope(|scope| {
        let closing: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| churn::churn(extent.churn, Churn::Aborts)))
            .collect();
        let churned = closing.into_iter().map(|thread| match thread.join() {
            Ok(churned) => churned,
            Err(_) => bail!("a closing thread panicked"),
        });
        churned.collect::<Result<Vec<_>>>()
    })?;
    let cpu = own_cpu_time()?.saturating_sub(before);
    let connections: u64 = churned.iter().map(|churned| churned.made).sum();
    Ok(Done {
        connections,
        orphans: 0,
        rate: churned.iter().map(Churned::rate).sum(),
        micros: cpu.as_secs_f64() * 1e6 / float(connections),
    })
}
