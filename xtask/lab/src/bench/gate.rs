//! Instructions that lingerd adds to a close, and to other system calls, compared with those on record.

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
use super::inside::closes::{KINDS, OTHER_CALL, Taken, least, least_of};
use super::instructions::CLOSES;
use crate::churn::Churn;
use crate::table;

/// How much more or less than recorded a close may cost, in percent. Two runs on the same kernel differ by less than one;
/// the rest is for newer builds of that kernel.
const TOLERANCE: u64 = 2;

/// The same for a FIN with nothing left: in some rounds, with and without lingerd, each such connection takes 206
/// instructions more, for a reason that is not known. That is up to 6 % of what is added to a close.
const FIN_TOLERANCE: u64 = 7;

/// Maximum number of boots: the machine is booted again if a close costs too much, and the least counts.
const BOOTS: usize = 2;

/// Connections of each kind that are counted in a round.
const CONNECTIONS: u32 = 100;

/// Rounds, in each of which lingerd is attached anew. The least of them counts.
const ROUNDS: u32 = 3;

/// Options of `cargo xtask lab gate`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Record what a close costs now, instead of comparing
    #[arg(long)]
    update: bool,
    /// Count on this kernel of the table, a name of `cargo xtask vm --list`, and compare with what is recorded
    #[arg(long, value_name = "KERNEL", default_value = NEWEST, conflicts_with = "update")]
    kernel: String,
}

/// Instructions by plan and kind of connection.
type Figures = BTreeMap<String, BTreeMap<String, u64>>;

/// The figures that are recorded in the repository.
#[derive(Debug, Deserialize, Serialize)]
struct Baseline {
    /// Release of the kernel they were counted on.
    kernel: String,
    /// Instructions that being attached adds to a close.
    added: Figures,
}

/// A figure, recorded and now.
#[derive(Debug, PartialEq)]
struct Compared {
    plan: String,
    kind: String,
    baseline: Option<u64>,
    now: Option<u64>,
}

impl Compared {
    /// Both figures, if there are both.
    fn both(&self) -> Option<(u64, u64)> {
        Some((self.baseline?, self.now?))
    }

    /// Whether it is at most what it may be, and at least half of what it was: programs that do nothing cost little.
    fn passes(&self) -> bool {
        self.both().is_some_and(|(baseline, now)| {
            (baseline / 2..=(100 + self.tolerance()) * baseline / 100).contains(&now)
        })
    }

    /// How much more or less than recorded it may be, in percent.
    fn tolerance(&self) -> u64 {
        if self.kind == Churn::NothingLeft.name() {
            FIN_TOLERANCE
        } else {
            TOLERANCE
        }
    }

    fn verdict(&self) -> &'static str {
        match self.both() {
            None => "FAILED: not in both",
            Some(_) if !self.passes() => "FAILED",
            Some((baseline, now)) if 100 * now < (100 - self.tolerance()) * baseline => {
                "less: record it with --update"
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

/// Counts, and compares or records. Returns whether no close costs more than it may.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let release = Kernel::of_label(&options.kernel)?.release();
    let mut taken = count(options)?;
    if options.update {
        write(&Baseline {
            kernel: release,
            added: figures(&taken)?,
        })?;
        return Ok(true);
    }
    let baseline = read()?;
    let compare_now = |taken: &[Taken]| -> Result<Vec<Compared>> {
        let compared = compare(&baseline.added, &figures(taken)?);
        let head = ["plan", "close", "recorded", "now", "change", ""];
        let rows: Vec<_> = compared.iter().map(Compared::row).collect();
        println!("{}", table::markdown(&head, &rows));
        Ok(compared)
    };
    let mut compared = compare_now(&taken)?;
    for _ in 1..BOOTS {
        if compared.iter().all(Compared::passes) {
            break;
        }
        println!("counting again: the least of both boots counts");
        taken.extend(count(options)?);
        compared = compare_now(&taken)?;
    }
    println!(
        "Instructions that being attached adds to a close, and to another system call; recorded on {}, now on {release}.",
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

/// Has the machine count, with lingerd by each plan and without.
fn count(options: &Options) -> Result<Vec<Taken>> {
    let kernel = Kernel::of_label(&options.kernel)?;
    let plans = PLANS.map(|plan| format!("--plan {plan}")).join(" ");
    let work = format!("closes --alone --rounds {ROUNDS} --connections {CONNECTIONS} {plans}");
    emulated::count_on(kernel, 1, &work, Vec::new())
}

/// The instructions that each plan adds to a close of each kind, and to another system call.
fn figures(taken: &[Taken]) -> Result<Figures> {
    let bare = least(taken, &Who::Nobody)?;
    let bare_call = least_of(taken, &Who::Nobody, |taken| taken.other_call)?;
    let of_plan = |plan: &&str| {
        let who = Who::Lingerd((*plan).to_owned());
        let with = least(taken, &who)?;
        let kinds = KINDS.into_iter().zip(with.into_iter().zip(bare));
        let kinds = kinds.filter(|(kind, _)| !kind.waits());
        let added = kinds.map(|(kind, (with, bare))| {
            let name = kind.name().to_owned();
            (name, whole((with - bare) / CLOSES))
        });
        let mut added: BTreeMap<_, _> = added.collect();
        let call = least_of(taken, &who, |taken| taken.other_call)?;
        added.insert(OTHER_CALL.to_owned(), whole(call - bare_call));
        Ok(((*plan).to_owned(), added))
    };
    PLANS.iter().map(of_plan).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some thousand instructions"
)]
fn whole(instructions: f64) -> u64 {
    instructions.round() as u64
}

/// Every figure that is recorded or counted now, in order.
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
        .context("nothing is recorded: `cargo xtask lab gate --update` does that")?;
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
    println!("recorded in {}", file().display());
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
    fn programs_that_do_nothing_fail() {
        let baseline = [("fentry", "aborts", 1000), ("kprobe", "aborts", 0)];
        let now = [("fentry", "aborts", 499), ("kprobe", "aborts", 0)];
        assert_eq!(verdicts(&baseline, &now), [false, true]);
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
