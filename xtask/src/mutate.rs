//! Breaking the kernel side on purpose: a breakage that no scenario notices is a hole in the proof.

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
use crate::shell::{cargo, output, root, run, tools};
use crate::tally::Scenarios;
use crate::vm::{self, Scope, Selection};

/// The breakages, as they are written down.
#[derive(Debug, Deserialize)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// One breakage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    /// In the folder of the kernel side's source.
    file: String,
    /// The plan that notices it.
    plan: String,
    /// A part of the names of the scenarios that notice it.
    scenarios: String,
    find: String,
    replace: String,
}

/// What became of a breakage.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Noticed by this many scenarios.
    Killed(usize),
    /// No scenario failed.
    Survived,
    /// Nothing could be counted, so nothing was proven: why.
    Invalid(String),
}

impl Fate {
    /// Judges by what the scenarios found.
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

/// Tries every breakage whose name contains `filter`; whether each was noticed.
///
/// # Errors
///
/// One cannot be made or built.
pub fn run_all(filter: &str) -> Result<bool> {
    let mut mutations = read()?;
    mutations.retain(|mutation| mutation.name.contains(filter));
    ensure!(
        !mutations.is_empty(),
        "no mutation's name contains {filter:?}"
    );
    let built = artifacts::executables(Architecture::here())?;
    let kernel = Kernel::of_label(NEWEST)?;
    // The next is built while a machine runs.
    let (sender, receiver) = mpsc::sync_channel(1);
    let fates = thread::scope(|scope| {
        let builder = scope.spawn(|| build_all(&mutations, &{ sender }));
        let mut fates = Vec::new();
        for (mutation, lingerd) in receiver {
            let fate = try_out(&mutation, lingerd, &built, &kernel);
            println!("=== mutation {}: {fate:?}", mutation.name);
            fates.push((mutation, fate));
        }
        let built = builder.join();
        built.map_err(|_| anyhow!("the thread that builds panicked"))??;
        anyhow::Ok(fates)
    })?;
    Ok(report(&fates))
}

/// The breakages, all of them different.
fn read() -> Result<Vec<Mutation>> {
    let path = root().join("xtask/mutations.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let Mutations { mutation } = toml::from_str(&text).context("xtask/mutations.toml")?;
    let names: BTreeSet<&str> = mutation.iter().map(|one| one.name.as_str()).collect();
    ensure!(names.len() == mutation.len(), "two mutations share a name");
    Ok(mutation)
}

/// Builds a daemon with each breakage, and hands them on.
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

/// Copies the workspace's files to where they can be broken.
fn copy_source(tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    let files = output(crate::shell::command("git").args(["ls-files", "-z"]))?;
    for file in files.split_terminator('\0') {
        let to = tree.join(file);
        fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
        fs::copy(root().join(file), &to).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

/// Breaks the copy, builds its daemon, and mends the copy.
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
    /// The source with the breakage in it.
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

/// Runs the scenarios that must notice it.
fn try_out(mutation: &Mutation, lingerd: PathBuf, built: &Executables, kernel: &Kernel) -> Fate {
    let built = Executables {
        lingerd,
        scenarios: built.scenarios.clone(),
        systemd: built.systemd.clone(),
    };
    let selection = Selection {
        filter: Some(mutation.scenarios.clone()),
        plan: Some(mutation.plan.clone()),
        // Those that run by one plan only are to run by this one.
        scope: Scope::Full,
        ..Selection::default()
    };
    vm::run_scenarios(kernel, &built, &selection).map_or_else(
        |error| Fate::Invalid(format!("{error:#}")),
        |scenarios| Fate::of(&scenarios),
    )
}

/// Prints what became of each; whether all were noticed.
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
    fn every_mutation_finds_its_place() {
        for mutation in read().unwrap() {
            let file = root().join("linger-ebpf/src").join(&mutation.file);
            let source = fs::read_to_string(file).unwrap();
            let mutant = mutation.apply(&source);
            let mutant = mutant.unwrap_or_else(|error| panic!("{}: {error}", mutation.name));
            assert_ne!(mutant, source, "{}", mutation.name);
        }
    }

    #[test]
    fn a_mutant_is_killed_by_a_count_only() {
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
