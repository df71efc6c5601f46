//! The cost of being attached: connections made and closed on loopback, bare and watched.

use std::path::Path;

use anyhow::Result;

use super::Extent;
use super::report::Report;
use super::rounds::{self, Done, Load, Round, values};
use super::tool;
use super::ways::Way;
use crate::churn::{self, Churn};
use crate::table;

const EVERY_LABEL: &[&str] = &[
    "--labels=unit,slice,container,pod,comm,exe,port,family",
    "--ports=1-65535",
];

/// The executables to compare.
pub(super) struct Builds<'a> {
    pub(super) lingerd: &'a Path,
    /// Another build of lingerd.
    pub(super) against: Option<&'a Path>,
    /// The executable of the floor.
    pub(super) floor: &'a Path,
    /// The plans that this kernel offers, best first.
    pub(super) plans: &'a [String],
}

/// Measures in rounds, and reports what each way adds to a close.
pub(super) fn run(builds: &Builds<'_>, extent: Extent, report: &mut Report) -> Result<()> {
    let ways = ways(builds, report)?;
    let loads = churn_loads(extent);
    let rounds = rounds::measure("closes", &ways, &loads, extent.rounds, report)?;
    report_added("closes", &ways, &loads, &rounds, report);
    report_ratios(&ways, &loads, &rounds, report);
    let text = format!(
        "Connections on loopback opened and closed one after another, both ends, under each tool in turn. Times \
         are those of the fastest tenth of batches of 32 connections, so that other work on the machine does not \
         count; ratios of rates are calculated from these times, but connections/s covers everything. Medians of \
         {} rounds of {:?}, with the middle half of the rounds in brackets; ratios are calculated within each \
         round. A connection is closed twice; added times are for one close. The last column is the CPU time of \
         the tool's own process per connection, which another CPU may spend.",
        extent.rounds, extent.churn
    );
    let tables: Vec<_> = loads
        .iter()
        .map(|load| full_table(&ways, &load.name, report))
        .collect();
    report.page("Closes", &text, &tables.join("\n"));
    Ok(())
}

fn ways<'a>(builds: &Builds<'a>, report: &mut Report) -> Result<Vec<Way<'a>>> {
    let mut ways = vec![Way::bare()];
    for plan in builds.plans {
        let name = format!("lingerd, {plan}");
        ways.push(Way::lingerd(name, builds.lingerd, plan, &[]));
        ways.push(Way::floor(builds.floor, plan));
    }
    let best = &builds.plans[0];
    for (what, args) in [("every label", EVERY_LABEL), ("no label", &["--labels="])] {
        let name = format!("lingerd, {best}, {what}");
        ways.push(Way::lingerd(name, builds.lingerd, best, args));
    }
    if let Some(against) = builds.against {
        let name = format!("lingerd, {best}, the other build");
        ways.push(Way::lingerd(name, against, best, &[]));
    }
    ways.extend(Way::tools(tool::installed(best, report)?));
    Ok(ways)
}

/// Returns a load for each kind of churn.
pub(super) fn churn_loads(extent: Extent) -> Vec<Load<'static>> {
    let loads = Churn::ALL.into_iter().map(|kind| Load {
        name: kind.name().to_owned(),
        run: Box::new(move || {
            let churned = churn::churn(extent.churn, kind)?;
            Ok(Done {
                connections: churned.made,
                orphans: if kind.leaves_data() { churned.made } else { 0 },
                rate: churned.rate(),
                micros: churned.micros,
            })
        }),
    });
    loads.collect()
}

/// Reports the time and rate of each load under each way, and what each way adds to bare, the first of them.
pub(super) fn report_added(
    part: &str,
    ways: &[Way<'_>],
    loads: &[Load<'_>],
    rounds: &[Round],
    report: &mut Report,
) {
    for (load, Load { name: kind, .. }) in loads.iter().enumerate() {
        for (place, way) in ways.iter().enumerate() {
            let mut figure = |measure: &str, unit, values| {
                let name = format!("{part}/{kind}/{}/{measure}", way.name);
                report.figure(name, unit, values);
            };
            let of_way = |value: fn(&rounds::Sample) -> f64| {
                values(rounds, [place], load, move |[way]| value(way))
            };
            figure("time", "µs a connection", of_way(|way| way.done.micros));
            figure("rate", "connections/s", of_way(|way| way.done.rate));
            if place == 0 {
                continue;
            }
            let watching = of_way(|way| way.watching_micros);
            figure("CPU time of what watches", "µs a connection", watching);
            let with_bare =
                |value: fn([&rounds::Sample; 2]) -> f64| values(rounds, [0, place], load, value);
            let added = with_bare(|[bare, way]| added(bare, way));
            figure("added", "µs a close", added);
            figure(
                "rate, of bare",
                "",
                with_bare(|[bare, way]| speed(way, bare)),
            );
            let overall = with_bare(|[bare, way]| way.done.rate / bare.done.rate);
            figure("rate over everything, of bare", "", overall);
        }
    }
}

/// Reports the cost of each way in relation to the floor and to tcplife.
///
/// Between threads, the added time is lost in the noise of the scheduler, so its ratios mean nothing and are left out.
fn report_ratios(ways: &[Way<'_>], loads: &[Load<'_>], rounds: &[Round], report: &mut Report) {
    let place = |name: &str| ways.iter().position(|way| way.name == name);
    let tcplife = place("tcplife");
    for (load, Load { name: kind, .. }) in loads.iter().enumerate() {
        let between_threads = Churn::ALL[load].takes_two_threads();
        for (own, way) in ways.iter().enumerate().skip(1) {
            let mut figure = |measure: &str, values| {
                report.figure(format!("closes/{kind}/{}/{measure}", way.name), "", values);
            };
            let added_ratio = |to| {
                values(rounds, [0, own, to], load, |[bare, own, to]| {
                    added(bare, own) / added(bare, to)
                })
            };
            if let Some(tcplife) = tcplife.filter(|&tcplife| tcplife != own) {
                let pair = [own, tcplife];
                let rate = values(rounds, pair, load, |[own, tcplife]| speed(own, tcplife));
                figure("rate, of tcplife", rate);
                let overall = values(rounds, pair, load, |[own, tcplife]| {
                    own.done.rate / tcplife.done.rate
                });
                figure("rate over everything, of tcplife", overall);
                if !between_threads {
                    figure("added, of tcplife", added_ratio(tcplife));
                }
            }
            let plan = way.name.split(", ").nth(1).unwrap_or_default();
            let floor = place(&format!("floor, {plan}")).filter(|&floor| floor != own);
            if let Some(floor) = floor.filter(|_| !between_threads) {
                figure("added, of the floor", added_ratio(floor));
            }
        }
    }
}

/// Returns what watching adds to each of the two closes of a connection, microseconds.
pub(super) fn added(bare: &rounds::Sample, way: &rounds::Sample) -> f64 {
    (way.done.micros - bare.done.micros) / 2.0
}

/// Returns the speed under one way relative to another: connections made in the time that one takes under the other.
fn speed(way: &rounds::Sample, other: &rounds::Sample) -> f64 {
    other.done.micros / way.done.micros
}

/// Returns the table of all figures of a load.
fn full_table(ways: &[Way<'_>], kind: &str, report: &Report) -> String {
    let head = [
        kind,
        "µs per connection",
        "connections/s",
        "vs. bare",
        "vs. tcplife",
        "added to a close, µs",
        "vs. the floor",
        "vs. tcplife",
        "own CPU, µs",
    ];
    let rows = ways.iter().map(|way| {
        let values = |measure| report.values(&format!("closes/{kind}/{}/{measure}", way.name));
        vec![
            way.name.clone(),
            table::median(values("time"), 2),
            table::median(values("rate"), 0),
            table::median(values("rate, of bare"), 3),
            table::median(values("rate, of tcplife"), 2),
            table::cell(values("added"), 2),
            table::median(values("added, of the floor"), 2),
            table::median(values("added, of tcplife"), 3),
            table::median(values("CPU time of what watches"), 2),
        ]
    });
    table::markdown(&head, &rows.collect::<Vec<_>>())
}

/// Returns the table of what each way adds to each load.
pub(super) fn added_table(
    part: &str,
    ways: &[Way<'_>],
    loads: &[Load<'_>],
    report: &Report,
) -> String {
    let head: Vec<_> = [""]
        .into_iter()
        .chain(loads.iter().map(|load| load.name.as_str()))
        .collect();
    let rows = ways.iter().skip(1).map(|way| {
        let cells = loads.iter().map(|load| {
            let name = format!("{part}/{}/{}/added", load.name, way.name);
            table::cell(report.values(&name), 2)
        });
        std::iter::once(way.name.clone()).chain(cells).collect()
    });
    table::markdown(&head, &rows.collect::<Vec<_>>())
}
