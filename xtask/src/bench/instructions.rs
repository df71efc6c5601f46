//! How many instructions being attached adds to a close, counted in a machine in QEMU.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::inside::{KINDS, PLANS, Part, Taken, Who};
use super::table;
use crate::artifacts;
use crate::churn::Churn;
use crate::initramfs;
use crate::kernels::{Kernel, NEWEST};
use crate::machine::{self, Machine};
use crate::shell::find;

/// Far more than it takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Each end of a connection is closed.
const CLOSES: f64 = 2.0;

/// What others show of the same events.
const PEERS: [&str; 2] = ["tcplife", "tcpstates"];

/// Boots the machine, lets it count, and prints tables.
pub(super) fn run() -> Result<()> {
    let taken = count()?;
    let bare = median(&taken, &Who::Nobody).context("the machine counted nothing")?;
    println!(
        "\nInstructions that being attached adds to a close, on Linux {NEWEST}; in brackets, how many times \
         those of the floor:\n"
    );
    let mut head = vec!["attached"];
    head.extend(KINDS.map(Churn::name));
    let mut rows = vec![line(
        "a whole close, nobody attached",
        bare.map(|all| format!("{:.0}", all / CLOSES)),
    )];
    for plan in PLANS {
        let floor = added(&taken, &Who::Floor(plan.into()), bare)?;
        let lingerd = added(&taken, &Who::Lingerd(plan.into()), bare)?;
        rows.push(line(
            &format!("floor of {plan}"),
            floor.map(|added| format!("{added:.0}")),
        ));
        let compared = std::array::from_fn(|kind| {
            format!("{:.0} ({:.2})", lingerd[kind], lingerd[kind] / floor[kind])
        });
        rows.push(line(&format!("lingerd, {plan}"), compared));
    }
    for taken in &taken {
        if let Who::Peer(name) = &taken.who {
            let added = added(std::slice::from_ref(taken), &taken.who, bare)?;
            rows.push(line(name, added.map(|added| format!("{added:.0}"))));
        }
    }
    table::print(&head, &rows);
    for plan in PLANS {
        print_parts(&taken, plan)?;
    }
    Ok(())
}

fn line(name: &str, cells: [String; KINDS.len()]) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells).collect()
}

/// Instructions of a connection; of several counts for the same, the mean.
fn median(taken: &[Taken], who: &Who) -> Option<[f64; KINDS.len()]> {
    let all: Vec<_> = taken.iter().filter(|taken| taken.who == *who).collect();
    #[expect(clippy::cast_precision_loss, reason = "one or two")]
    let count = all.len() as f64;
    (!all.is_empty()).then(|| {
        std::array::from_fn(|kind| {
            all.iter()
                .map(|taken| taken.connections[kind].median)
                .sum::<f64>()
                / count
        })
    })
}

/// Instructions that someone adds to a close.
fn added(taken: &[Taken], who: &Who, bare: [f64; KINDS.len()]) -> Result<[f64; KINDS.len()]> {
    let with = median(taken, who).with_context(|| format!("{who:?} was not counted"))?;
    Ok(std::array::from_fn(|kind| {
        (with[kind] - bare[kind]) / CLOSES
    }))
}

/// Prints what each program of a plan takes in a connection, and what the floor's takes there.
fn print_parts(taken: &[Taken], plan: &str) -> Result<()> {
    let of = |who: Who| {
        let found = taken.iter().find(|taken| taken.who == who);
        found.map(|taken| &taken.parts).context("it was counted")
    };
    let lingerd = of(Who::Lingerd(plan.into()))?;
    let floor = of(Who::Floor(plan.into()))?;
    let names: BTreeSet<&String> = lingerd.iter().flatten().map(|(name, _)| name).collect();
    println!(
        "\nInstructions of a run of each program, plan {plan}; behind a dash those of the floor's, \
         and × how many runs there are in a connection:\n"
    );
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
            line(name, cells)
        })
        .collect();
    table::print(&head, &rows);
    Ok(())
}

/// What the machine counted.
fn count() -> Result<Vec<Taken>> {
    let kernel = Kernel::of_series(NEWEST)?;
    let folder = machine::folder("bench")?;
    let own = folder.join("xtask");
    fs::copy(env::current_exe()?, &own)?;
    let mut programs = vec![own, artifacts::lingerd()?, artifacts::floor()?];
    let peers: Vec<PathBuf> = PEERS.iter().filter_map(|name| find(name)).collect();
    programs.push(find("bpftool").context("bpftool is not installed")?);
    let plans = PLANS.map(|plan| format!("--plan {plan}"));
    let named = peers.iter().filter_map(|peer| peer.file_name());
    let named = named.map(|name| format!("--peer {}", name.to_string_lossy()));
    let options: Vec<_> = plans.into_iter().chain(named).collect();
    let work = format!(
        "xtask inside --report /tmp/summary.json {}",
        options.join(" ")
    );
    programs.extend(peers);
    let archive = initramfs::pack(&folder, &kernel, &programs, &work)?;
    let report = Machine::new(&kernel, archive, String::new(), LIMIT)
        .counting_instructions(1)
        .run()?;
    if report.code != 0 {
        bail!(
            "counting ended with exit code {}; its console is above",
            report.code
        );
    }
    serde_json::from_str(&report.summary).context("the machine reports what it counted")
}
