//! Instructions that being attached adds to a close, counted in a QEMU machine.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use linger_xtask::kernels::{NEWEST, PLANS};
use linger_xtask::shell::find;

use super::emulated;
use super::inside::Who;
use super::inside::closes::{KINDS, OTHER_CALL, Part, Taken, least, least_of};
use super::report::Report;
use crate::churn::Churn;
use crate::table;

/// Closes per connection: both ends are closed.
pub(super) const CLOSES: f64 = 2.0;

/// Other tools that show the same events.
const PEERS: [&str; 2] = ["tcplife", "tcpstates"];

/// Counts in the machine, and reports.
pub(super) fn run(short: bool, report: &mut Report) -> Result<()> {
    let taken = count(short)?;
    let bare = least(&taken, &Who::Nobody)?;
    let bare_call = other_call(&taken, &Who::Nobody)?;
    let added = |who: &Who| -> Result<_> {
        let with = least(&taken, who)?;
        let added: [f64; KINDS.len()] =
            std::array::from_fn(|kind| (with[kind] - bare[kind]) / CLOSES);
        Ok((added, other_call(&taken, who)? - bare_call))
    };
    let mut head = vec!["attached"];
    head.extend(KINDS.map(Churn::name));
    head.push(OTHER_CALL);
    let whole = shown(bare.map(|all| format!("{:.0}", all / CLOSES)));
    let mut rows = vec![line("total, nothing attached", whole, Some(bare_call))];
    let plain = |name: &str, (added, call): ([f64; KINDS.len()], f64)| {
        let cells = added.map(|added| format!("{added:.0}"));
        line(name, shown(cells), Some(call))
    };
    for plan in PLANS {
        let floor = added(&Who::Floor(plan.into()))?;
        rows.push(plain(&format!("floor of {plan}"), floor));
        let (floor, _) = floor;
        let (lingerd, call) = added(&Who::Lingerd(plan.into()))?;
        let compared = std::array::from_fn(|kind| {
            format!("{:.0} ({:.2})", lingerd[kind], lingerd[kind] / floor[kind])
        });
        let name = format!("lingerd, {plan}");
        rows.push(line(&name, shown(compared), Some(call)));
        let mut figure = |kind: &str, measure: &str, unit, value| {
            let name = format!("instructions/{kind}/{name}/{measure}");
            report.figure(name, unit, vec![value]);
        };
        figure(OTHER_CALL, "added", "instructions", call);
        for (kind, churn) in KINDS.into_iter().enumerate() {
            if !churn.waits() {
                let of_floor = lingerd[kind] / floor[kind];
                figure(churn.name(), "added", "instructions", lingerd[kind]);
                figure(churn.name(), "added, of the floor", "", of_floor);
            }
        }
    }
    for taken in &taken {
        if let Who::Peer(name) = &taken.who {
            rows.push(plain(name, added(&taken.who)?));
        }
    }
    let text = format!(
        "Instructions added to a close, and to getppid(2) as long as no close has waited, on Linux {NEWEST} in QEMU \
         under `-icount`; in brackets, as a multiple of the floor's. Other work on the machine does not affect \
         them. A close that waits under `SO_LINGER` is counted by program only, below."
    );
    report.page("Instructions", &text, &table::markdown(&head, &rows));
    for plan in PLANS {
        add_parts(&taken, plan, report)?;
    }
    Ok(())
}

/// Clears the cells of closes that wait: the time that passes meanwhile is not work.
fn shown(mut cells: [String; KINDS.len()]) -> [String; KINDS.len()] {
    for (cell, kind) in cells.iter_mut().zip(KINDS) {
        if kind.waits() {
            cell.clear();
        }
    }
    cells
}

/// Returns a line of a table, ending with the instructions of another system call.
fn line(name: &str, cells: [String; KINDS.len()], other_call: Option<f64>) -> Vec<String> {
    let other_call = other_call.map(|call| format!("{call:.0}"));
    std::iter::once(name.to_owned())
        .chain(cells)
        .chain(other_call)
        .collect()
}

/// Returns the instructions of another system call.
fn other_call(taken: &[Taken], who: &Who) -> Result<f64> {
    least_of(taken, who, |taken| taken.other_call)
}

/// Reports the instructions of each BPF program of a plan, with those of the floor's program on the same hook.
fn add_parts(taken: &[Taken], plan: &str, report: &mut Report) -> Result<()> {
    let of = |who: Who| {
        let found = taken.iter().find(|taken| taken.who == who);
        found.map(|taken| &taken.parts).context("it was counted")
    };
    let lingerd = of(Who::Lingerd(plan.into()))?;
    let floor = of(Who::Floor(plan.into()))?;
    let names: BTreeSet<&String> = lingerd.iter().flatten().map(|(name, _)| name).collect();
    let mut head = vec!["program"];
    head.extend(KINDS.map(Churn::name));
    let rows: Vec<_> = names
        .into_iter()
        .map(|name| {
            let cells = std::array::from_fn(|kind| match lingerd[kind].get(name) {
                Some(Part { runs, instructions }) => {
                    let floor = floor[kind]
                        .get(name)
                        .map_or(f64::NAN, |part| part.instructions);
                    format!("{instructions:.0} - {floor:.0} ×{runs:.0}")
                }
                None => String::new(),
            });
            line(name, cells, None)
        })
        .collect();
    let title = format!("Instructions of each program, {plan}");
    let text = "Instructions per run; after the dash, those of the floor's program on the same hook; after the ×, \
                the runs per connection. All include the cost of the kernel's own statistics.";
    report.page(&title, text, &table::markdown(&head, &rows));
    Ok(())
}

/// Counts in the machine; if `short`, with few connections and no peers, to see that it works.
fn count(short: bool) -> Result<Vec<Taken>> {
    let peers = if short { &[][..] } else { &PEERS };
    let peers: Vec<PathBuf> = peers.iter().filter_map(|name| find(name)).collect();
    let plans = PLANS.map(|plan| format!("--plan {plan}"));
    let named = peers.iter().filter_map(|peer| peer.file_name());
    let named = named.map(|name| format!("--peer {}", name.to_string_lossy()));
    let options: Vec<_> = plans.into_iter().chain(named).collect();
    let connections = if short { 10 } else { 1000 };
    let work = format!("closes --connections {connections} {}", options.join(" "));
    emulated::count(1, &work, peers)
}
