//! Mutation tests of the kernel side: a mutation that every scenario passes is a gap in the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::architecture::Architecture;
use crate::artifacts::{self, Executables};
use crate::kernels::{Kernel, NEWEST};
use crate::shell::{cargo, command, output, root, run, tools};
use crate::tally::Scenarios;
use crate::vm::{self, Scope, Selection};

/// The contents of mutations.toml.
#[derive(Debug, Deserialize)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// A change that breaks the kernel side.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    /// The file to change, relative to `linger-ebpf/src`.
    file: String,
    /// The kernel on which the scenarios are run: a label of the table.
    #[serde(default = "newest")]
    kernel: String,
    /// The plan by which they are run.
    plan: String,
    /// A part of the names of the scenarios to run, one of which must fail.
    scenarios: String,
    find: String,
    replace: String,
}

fn newest() -> String {
    NEWEST.to_owned()
}

/// The result of a mutation.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// This number of scenarios failed.
    Killed(usize),
    /// No scenario failed.
    Survived,
    /// Nothing could be counted, so nothing was proven. The reason.
    Invalid(String),
}

impl Fate {
    /// Judges by the results of the scenarios.
    fn of(scenarios: &Scenarios) -> Self {
        let failed: Vec<_> = scenarios.with_result("failed").collect();
        let broken = failed.iter().find(|pair| {
            let says = |words| pair.detail.contains(words);
            says("ended before it was ready") || says("is refused")
        });
        match broken {
            Some(pair) => Self::Invalid(pair.detail.clone()),
            None if scenarios.passed + scenarios.failed == 0 => {
                Self::Invalid("no scenario ran".to_owned())
            }
            None if failed.is_empty() => Self::Survived,
            None => Self::Killed(failed.len()),
        }
    }
}

/// Tries every mutation whose name contains `filter`; returns whether each was noticed.
///
/// # Errors
///
/// If a mutation cannot be applied or built.
pub fn run_all(filter: &str) -> Result<bool> {
    let mut mutations = read()?;
    mutations.retain(|mutation| mutation.name.contains(filter));
    ensure!(
        !mutations.is_empty(),
        "no mutation's name contains {filter:?}"
    );
    let built = artifacts::executables(Architecture::here())?;
    // Builds the next mutant while the machine runs.
    let (sender, receiver) = mpsc::sync_channel(1);
    let fates = thread::scope(|scope| {
        let builder = scope.spawn(|| build_all(&mutations, &{ sender }));
        let mut fates = Vec::new();
        for (mutation, lingerd) in receiver {
            let fate = try_out(&mutation, lingerd, &built)?;
            println!("=== mutation {}: {fate:?}", mutation.name);
            fates.push((mutation, fate));
        }
        let built = builder.join();
        built.map_err(|_| anyhow!("the thread that builds panicked"))??;
        anyhow::Ok(fates)
    })?;
    Ok(report(&fates))
}

/// Reads the mutations; their names must be unique.
fn read() -> Result<Vec<Mutation>> {
    let path = root().join("xtask/mutations.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let Mutations { mutation } = toml::from_str(&text).context("xtask/mutations.toml")?;
    let names: BTreeSet<&str> = mutation.iter().map(|one| one.name.as_str()).collect();
    ensure!(names.len() == mutation.len(), "two mutations share a name");
    Ok(mutation)
}

/// Builds a daemon with each mutation, and sends them to `done`.
fn build_all(mutations: &[Mutation], done: &SyncSender<(Mutation, PathBuf)>) -> Result<()> {
    let folder = root().join("target/mutants");
    let tree = folder.join("tree");
    copy_source(&tree)?;
    for mutation in mutations {
        let lingerd = build(mutation, &folder, &tree)
            .with_context(|| format!("the mutation {}", mutation.name))?;
        if done.send((mutation.clone(), lingerd)).is_err() {
            bail!("no one waits for mutations any more");
        }
    }
    Ok(())
}

/// Copies the workspace's tracked files to `tree`, where mutations are applied.
fn copy_source(tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    let files = output(command("git").args(["ls-files", "-z"]))?;
    for file in files.split_terminator('\0') {
        let to = tree.join(file);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::copy(root().join(file), &to).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

/// Applies the mutation to the copy, builds its daemon, and restores the copy.
fn build(mutation: &Mutation, folder: &Path, tree: &Path) -> Result<PathBuf> {
    let source = tree.join("linger-ebpf/src").join(&mutation.file);
    let whole = fs::read_to_string(&source)
        .with_context(|| format!("read linger-ebpf/src/{}", mutation.file))?;
    fs::write(&source, mutation.apply(&whole)?)?;
    let target = folder.join("target");
    let built = run(cargo()
        .current_dir(tree)
        .args([
            "build",
            "--quiet",
            "--package",
            "linger-daemon",
            "--bin",
            "lingerd",
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("LINGER_BPF_LINKER", tools().join("bpf-linker"))
        .env("LINGER_REVISION", &mutation.name));
    fs::write(&source, whole)?;
    built?;
    let lingerd = folder.join(&mutation.name).join("lingerd");
    fs::create_dir_all(folder.join(&mutation.name))?;
    fs::copy(target.join("debug/lingerd"), &lingerd)?;
    Ok(lingerd)
}

impl Mutation {
    /// Returns the source with the mutation applied.
    fn apply(&self, source: &str) -> Result<String> {
        let places = source.matches(&self.find).count();
        ensure!(
            places == 1,
            "what is to be replaced stands {places} times in {}",
            self.file
        );
        Ok(source.replacen(&self.find, &self.replace, 1))
    }
}

/// Runs the scenarios that must notice the mutation.
fn try_out(mutation: &Mutation, lingerd: PathBuf, built: &Executables) -> Result<Fate> {
    let built = Executables {
        lingerd,
        ..built.clone()
    };
    // Without its line of the table: what is known to fail there by chance would excuse the failures looked for here.
    let kernel = Kernel {
        entry: None,
        ..Kernel::of_label(&mutation.kernel)?
    };
    let selection = Selection {
        filter: Some(mutation.scenarios.clone()),
        plan: Some(mutation.plan.clone()),
        // So that scenarios that usually run by one plan only run by this one.
        scope: Scope::Full,
        ..Selection::default()
    };
    let scenarios = vm::run_scenarios(&kernel, &built, &selection);
    Ok(scenarios.map_or_else(
        |error| Fate::Invalid(format!("{error:#}")),
        |scenarios| Fate::of(&scenarios),
    ))
}

/// Prints the result of each mutation; returns whether all were noticed.
fn report(fates: &[(Mutation, Fate)]) -> bool {
    println!("\n=== mutations");
    let width = fates.iter().map(|(mutation, _)| mutation.name.len()).max();
    for (mutation, fate) in fates {
        let width = width.unwrap_or(0);
        let said = match fate {
            Fate::Killed(count) => format!("noticed, by {count}"),
            Fate::Survived => "SURVIVED".to_owned(),
            Fate::Invalid(why) => format!("INVALID: {why}"),
        };
        println!("{:width$}  {:10}  {said}", mutation.name, mutation.plan);
    }
    let noticed = |(_, fate): &&(Mutation, Fate)| matches!(fate, Fate::Killed(_));
    let passed = fates.iter().filter(noticed).count();
    println!("\n{passed} passed, {} failed", fates.len() - passed);
    passed == fates.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutation_applies_to_the_source() {
        for mutation in read().unwrap() {
            let file = root().join("linger-ebpf/src").join(&mutation.file);
            let source = fs::read_to_string(file).unwrap();
            let mutant = mutation.apply(&source);
            let mutant = mutant.unwrap_or_else(|error| panic!("{}: {error}", mutation.name));
            assert_ne!(mutant, source, "{}", mutation.name);
        }
    }

    #[test]
    fn only_a_wrong_count_kills_a_mutant() {
        let scenarios = |passed, failures: &[&str]| {
            let pairs = failures.iter().map(|detail| {
                serde_json::json!({
                    "scenario": "x", "plan": "fentry", "result": "failed", "detail": detail,
                })
            });
            let json = serde_json::json!({
                "passed": passed,
                "failed": failures.len(),
                "not_run": 0,
                "pairs": pairs.collect::<Vec<_>>(),
            });
            Fate::of(&Scenarios::parse(&json.to_string()).unwrap())
        };
        assert_eq!(scenarios(2, &[]), Fate::Survived);
        assert_eq!(scenarios(2, &["closes: 1, not 2"]), Fate::Killed(1));
        for invalid in [
            scenarios(0, &[]),
            scenarios(0, &["lingerd ended before it was ready: exit status: 1"]),
            scenarios(1, &["the plan is refused: no"]),
        ] {
            assert!(matches!(invalid, Fate::Invalid(_)), "{invalid:?}");
        }
    }
}
