//! Units: closes of real services, template instances and user units under a real systemd, and the unit that `lingerd`
//! counts them for, under every plan that this kernel allows. Packages: their files, installed, at work as a service,
//! and removed.
//!
//! This takes a separate machine, which `cargo xtask vm --systemd` boots: it creates, starts and stops units with fixed
//! names.

mod attached;
#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "shared with the scenarios")]
mod common;
mod lingerd;
mod package;
mod server;
mod service;
mod tarball;
mod tools;
mod units;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;
use linger_ebpf::Plan;
use serde_json::json;

use crate::common::check::Check;
use crate::common::expected::{Evidence, Expected};
use crate::common::summary::{Pair, Summary, Verdict};
use crate::lingerd::Lingerd;

/// Units under a real systemd, or packages, on a machine for tests: `cargo xtask vm --systemd` boots one.
#[derive(Debug, Parser)]
struct Options {
    /// What the names of the tests to run contain
    #[arg(default_value = "")]
    filter: String,
    /// The daemon's binary, which says that this is a machine for tests
    #[arg(long, required_unless_present = "deb")]
    lingerd: Option<PathBuf>,
    /// The package, to test that instead
    #[arg(long, requires_all = ["newer", "tarball"])]
    deb: Option<String>,
    /// The same with a higher version
    #[arg(long)]
    newer: Option<String>,
    /// The tarball
    #[arg(long)]
    tarball: Option<String>,
    /// The only plan to run; all if none
    #[arg(long)]
    plan: Option<String>,
    /// Under which name tests/expected.toml says which plans there are; nothing is expected without
    #[arg(long)]
    environment: Option<String>,
    /// Where to write what came of each test, as JSON
    #[arg(long)]
    summary: Option<PathBuf>,
    /// As for the scenarios; all tests are run in each
    #[arg(long, default_value = "standard")]
    scope: String,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(lingerd) = &options.lingerd {
        return run_units(&options, lingerd);
    }
    let file = |file: &Option<String>| file.clone().unwrap_or_default();
    let files = package::Files {
        deb: file(&options.deb),
        newer: file(&options.newer),
        tarball: file(&options.tarball),
    };
    package::run_all(&files, options.summary.as_deref())
}

fn run_units(options: &Options, lingerd: &Path) -> Result<ExitCode> {
    let tests: Vec<_> = units::ALL
        .iter()
        .filter(|(name, _)| name.contains(&options.filter))
        .collect();
    ensure!(
        !tests.is_empty(),
        "no test's name contains {:?}",
        options.filter
    );
    let named = options.environment.as_deref();
    let environment = named.map(|name| Expected::read()?.environment(name));
    let environment = environment.transpose()?;
    let check = Check::run(lingerd, None)?;
    println!("kernel {}, {}", check.kernel, tools::systemd_version()?);
    server::install()?;
    let mut summary = Summary::new(environment.clone());
    for &plan in Plan::ALL {
        let wanted = options.plan.as_deref();
        if wanted.is_some_and(|wanted| wanted != plan.name()) {
            continue;
        }
        if let Some(reason) = check.refused(plan) {
            let verdict = Verdict::of_refused(plan, &reason, environment.as_ref());
            for (name, _) in &tests {
                summary.add_as_it_is(Pair::new(*name, plan, verdict.clone()));
            }
            continue;
        }
        let lingerd = Lingerd::start(lingerd, plan)?;
        for (name, test) in &tests {
            let before = lingerd.scrape().ok();
            let pair = Pair::new(*name, plan, test(&lingerd).into());
            let scrapes = before.zip(lingerd.scrape().ok());
            let evidence = scrapes.map(|(before, after)| Evidence::between(&before, &after));
            summary.add(pair.showing(evidence.unwrap_or_default()));
        }
        lingerd.stop()?;
    }
    let run = json!({ "environment": options.environment });
    summary.end(options.summary.as_deref(), &run)
}
