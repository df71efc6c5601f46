//! Instructions that lingerd adds to a close, and to other system calls, held against those that are written down.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use linger_xtask::kernels::{Kernel, NEWEST, PLANS};
use linger_xtask::shell::root;
use serde::{Deserialize, Serialize};

use super::emulated;
use super::inside::Who;
use super::inside::closes::{KINDS, OTHER_CALL, Quarters, Taken};
use super::instructions::CLOSES;
use crate::table;

/// A close may cost so much more or less than is written down, in percent of that: more than two runs differ.
const TOLERANCE: u64 = 2;

/// Connections of each kind that are counted in a round.
const CONNECTIONS: u32 = 100;

/// Rounds, in each of which lingerd is attached anew. In some, every connection takes some 280 instructions more,
/// with and without it: the least is what it costs.
const ROUNDS: u32 = 6;

/// How often the machine is booted at most. The least of all boots is what is written down, and what must not be more.
///
/// In about half of all boots a connection takes 174 to 282 instructions more with nothing attached, and the same with
/// lingerd: then a close would seem to cost 80 to 140 less. So what is written down for a bare connection counts too,
/// on the same kernel.
const BOOTS: usize = 3;

/// Options of `cargo xtask lab gate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Write down what a close costs now, instead of comparing
    #[arg(long)]
    update: bool,
    /// Count on this kernel of the table, a name of `cargo xtask vm --list`, against what is written down
    #[arg(long, value_name = "KERNEL", default_value = NEWEST, conflicts_with = "update")]
    kernel: String,
}

/// Instructions by plan and kind of connection.
type Figures = BTreeMap<String, BTreeMap<String, u64>>;

/// What is written down.
#[derive(Debug, Deserialize, Serialize)]
struct Baseline {
    /// Release of the kernel they were counted on.
    kernel: String,
    /// Instructions of a connection, by kind, with nothing attached.
    bare: BTreeMap<String, f64>,
    /// Instructions that being attached adds to a close.
    added: Figures,
}

/// A figure that is no longer what is written down.
#[derive(Debug, PartialEq)]
struct Compared {
    plan: String,
    kind: String,
    baseline: Option<u64>,
    now: Option<u64>,
}

impl Compared {
    /// What is written down, and what is counted now, if it can be compared.
    fn both(&self) -> Option<(u64, u64)> {
        Some((self.baseline?, self.now?))
    }

    /// Whether it is not more than it may be.
    fn passes(&self) -> bool {
        self.both()
            .is_some_and(|(baseline, now)| 100 * now <= (100 + TOLERANCE) * baseline)
    }

    fn verdict(&self) -> &'static str {
        match self.both() {
            None => "FAILED: not in both",
            Some(_) if !self.passes() => "FAILED",
            Some((baseline, now)) if 100 * now < (100 - TOLERANCE) * baseline => {
                "less: write it down with --update"
            }
            Some(_) => "ok",
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "some thousand instructions")]
    fn row(&self) -> Vec<String> {
        let number = |number: Option<u64>| number.map_or_else(String::new, |some| some.to_string());
        let change = self
            .both()
            .filter(|(baseline, _)| *baseline > 0)
            .map(|(baseline, now)| now as f64 / baseline as f64 - 1.0);
        vec![
            self.plan.clone(),
            self.kind.clone(),
            number(self.baseline),
            number(self.now),
            change.map_or_else(String::new, |change| format!("{:+.1} %", 100.0 * change)),
            self.verdict().to_owned(),
        ]
    }
}

/// Counts, and compares or writes down; whether no close costs more than it may.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let release = Kernel::of_label(&options.kernel)?.release();
    let mut taken = count(options)?;
    if options.update {
        for _ in 1..BOOTS {
            taken.extend(count(options)?);
        }
        let bare = of_kinds(&taken, &Who::Nobody)?;
        write(&Baseline {
            kernel: release,
            added: figures(&taken, &bare)?,
            bare,
        })?;
        return Ok(true);
    }
    let baseline = read()?;
    let compare_now = |taken: &[Taken]| -> Result<Vec<Compared>> {
        let mut bare = of_kinds(taken, &Who::Nobody)?;
        if baseline.kernel == release {
            for (kind, written) in &baseline.bare {
                bare.entry(kind.clone())
                    .and_modify(|now| *now = (*now).min(*written));
            }
        }
        Ok(compare(&baseline.added, &figures(taken, &bare)?))
    };
    let mut compared = compare_now(&taken)?;
    for _ in 1..BOOTS {
        if compared.iter().all(Compared::passes) {
            break;
        }
        taken.extend(count(options)?);
        compared = compare_now(&taken)?;
    }
    let head = ["plan", "close", "written down", "now", "change", ""];
    let rows: Vec<_> = compared.iter().map(Compared::row).collect();
    println!("{}", table::markdown(&head, &rows));
    println!(
        "Instructions that being attached adds to a close, and to a system call that is none; written down on {}, now \
         on {release}.",
        baseline.kernel
    );
    let passed = compared.iter().filter(|one| one.passes()).count();
    let failed = compared.len() - passed;
    if failed > 0 {
        println!(
            "If a close is worth more than it was, say why in the commit, with `cargo xtask lab gate --update` in it."
        );
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}

/// What the machine counted, with lingerd by each plan and without.
fn count(options: &Options) -> Result<Vec<Taken>> {
    let kernel = Kernel::of_label(&options.kernel)?;
    let plans = PLANS.map(|plan| format!("--plan {plan}")).join(" ");
    let work = format!("closes --alone --rounds {ROUNDS} --connections {CONNECTIONS} {plans}");
    emulated::count_on(kernel, 1, &work, Vec::new())
}

/// The least instructions of a connection of each kind that is compared.
fn of_kinds(taken: &[Taken], who: &Who) -> Result<BTreeMap<String, f64>> {
    let kinds = KINDS.into_iter().zip(least(taken, who)?);
    let kinds = kinds.filter(|(kind, _)| !kind.waits());
    Ok(kinds
        .map(|(kind, least)| (kind.name().to_owned(), least))
        .collect())
}

/// What being attached adds to a close, given what bare connections take, and to another system call.
fn figures(taken: &[Taken], bare: &BTreeMap<String, f64>) -> Result<Figures> {
    let bare_call = least_of(taken, &Who::Nobody, |taken| taken.other_call)?;
    PLANS
        .iter()
        .map(|plan| {
            let who = Who::Lingerd((*plan).to_owned());
            let with = of_kinds(taken, &who)?.into_iter();
            let added = with.map(|(kind, with)| {
                let bare = bare.get(&kind).copied().unwrap_or_default();
                (kind, whole((with - bare) / CLOSES))
            });
            let mut added: BTreeMap<_, _> = added.collect();
            let call = least_of(taken, &who, |taken| taken.other_call)?;
            added.insert(OTHER_CALL.to_owned(), whole(call - bare_call));
            Ok(((*plan).to_owned(), added))
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some thousand instructions"
)]
fn whole(instructions: f64) -> u64 {
    instructions.round() as u64
}

/// The least instructions of a connection of each kind, over all rounds.
fn least(taken: &[Taken], who: &Who) -> Result<[f64; KINDS.len()]> {
    let mut all = [0.0; KINDS.len()];
    for (kind, least) in all.iter_mut().enumerate() {
        *least = least_of(taken, who, |taken| taken.connections[kind])?;
    }
    Ok(all)
}

/// The least of the medians of something, over all rounds.
fn least_of(taken: &[Taken], who: &Who, of: impl Fn(&Taken) -> Quarters) -> Result<f64> {
    let rounds = taken.iter().filter(|taken| taken.who == *who);
    let least = rounds.map(|taken| of(taken).median).reduce(f64::min);
    least.with_context(|| format!("{who:?} was not counted"))
}

/// Every figure that is written down or counted now, in order.
fn compare(baseline: &Figures, now: &Figures) -> Vec<Compared> {
    let keys = |figures: &Figures| -> Vec<(String, String)> {
        let of_plan = |(plan, kinds): (&String, &BTreeMap<String, u64>)| {
            let kinds = kinds.keys().map(|kind| (plan.clone(), kind.clone()));
            kinds.collect::<Vec<_>>()
        };
        figures.iter().flat_map(of_plan).collect()
    };
    let mut all = [keys(baseline), keys(now)].concat();
    all.sort();
    all.dedup();
    let get = |figures: &Figures, plan: &str, kind: &str| figures.get(plan)?.get(kind).copied();
    all.into_iter()
        .map(|(plan, kind)| Compared {
            baseline: get(baseline, &plan, &kind),
            now: get(now, &plan, &kind),
            plan,
            kind,
        })
        .collect()
}

fn file() -> PathBuf {
    root().join("xtask/lab/instructions.toml")
}

fn read() -> Result<Baseline> {
    let text = fs::read_to_string(file())
        .context("nothing is written down: `cargo xtask lab gate --update` does")?;
    toml::from_str(&text).with_context(|| format!("{}", file().display()))
}

fn write(baseline: &Baseline) -> Result<()> {
    ensure!(!baseline.added.is_empty(), "nothing was counted");
    let text = format!(
        "# Written by `cargo xtask lab gate --update`: instructions that being attached adds to a close, and to another \
         system call.\n{}",
        toml::to_string(baseline)?
    );
    fs::write(file(), text).with_context(|| format!("write {}", file().display()))?;
    println!("written to {}", file().display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(all: &[(&str, &str, u64)]) -> Figures {
        let mut figures = Figures::new();
        for (plan, kind, added) in all {
            let kinds = figures.entry((*plan).to_owned()).or_default();
            kinds.insert((*kind).to_owned(), *added);
        }
        figures
    }

    fn verdicts(baseline: &[(&str, &str, u64)], now: &[(&str, &str, u64)]) -> Vec<bool> {
        let compared = compare(&figures(baseline), &figures(now));
        compared.iter().map(Compared::passes).collect()
    }

    #[test]
    fn more_than_the_tolerance_fails() {
        let baseline = [("fentry", "aborts", 1000), ("kprobe", "aborts", 1000)];
        let now = [("fentry", "aborts", 1020), ("kprobe", "aborts", 1021)];
        assert_eq!(verdicts(&baseline, &now), [true, false]);
    }

    #[test]
    fn less_passes_and_is_said() {
        let compared = compare(
            &figures(&[("fentry", "aborts", 1000)]),
            &figures(&[("fentry", "aborts", 900)]),
        );
        assert!(compared[0].passes());
        assert!(compared[0].verdict().contains("--update"));
    }

    #[test]
    fn what_is_not_in_both_fails() {
        let one = [("fentry", "aborts", 1000)];
        assert_eq!(verdicts(&one, &[]), [false]);
        assert_eq!(verdicts(&[], &one), [false]);
    }
}
