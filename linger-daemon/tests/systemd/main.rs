//! Units: closes that real services, instances of templates, and units of a user make under a real
//! systemd, and the unit that `lingerd` counts them for, under every plan that this kernel allows.
//! Packages: what is shipped, installed, at work as a service, and removed.
//!
//! This takes a machine of its own, which `cargo xtask vm --systemd` boots: units of fixed names are
//! made, started and stopped. Anywhere else the tests are not run.

mod attached;
#[path = "../common/mod.rs"]
mod common;
mod lingerd;
mod package;
mod server;
mod service;
mod tarball;
mod tools;
mod units;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use linger_ebpf::Plan;

use crate::common::check::Check;
use crate::common::summary::{Pair, Summary, Verdict};
use crate::lingerd::Lingerd;

const HELP: &str = "usage: systemd --lingerd PATH [--plan PLAN] [--filter TEXT] [--summary FILE]\n\
                    or: systemd --deb FILE --newer FILE --tarball FILE [--summary FILE]";

/// What to run.
#[derive(Debug, Default)]
struct Options {
    /// The daemon's binary, which says that this is a machine for tests.
    lingerd: Option<PathBuf>,
    /// Packages to test instead.
    packages: package::Files,
    /// The name of the only plan to run; all if none.
    plan: Option<String>,
    /// What the names of the tests to run contain.
    filter: String,
    summary: Option<PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next();
                value.with_context(|| format!("{argument} needs a value\n{HELP}"))
            };
            match argument.as_str() {
                "--lingerd" => options.lingerd = Some(value()?.into()),
                "--deb" => options.packages.deb = value()?,
                "--newer" => options.packages.newer = value()?,
                "--tarball" => options.packages.tarball = value()?,
                "--plan" => options.plan = Some(value()?),
                "--filter" => options.filter = value()?,
                "--summary" => options.summary = Some(value()?.into()),
                // Of the standard harness: `cargo test` passes its own to every test binary.
                _ => {}
            }
        }
        Ok(options)
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse(env::args().skip(1))?;
    if !options.packages.deb.is_empty() {
        return package::run_all(&options.packages, options.summary.as_deref());
    }
    let Some(lingerd) = &options.lingerd else {
        println!("units: not run, for they take a machine of their own: cargo xtask vm --systemd");
        return Ok(ExitCode::SUCCESS);
    };
    let check = Check::run(lingerd)?;
    println!("kernel {}, {}", check.kernel, tools::systemd_version()?);
    server::install()?;
    let mut summary = Summary::default();
    for &plan in Plan::ALL {
        let wanted = options.plan.as_deref();
        if wanted.is_some_and(|wanted| wanted != plan.name()) {
            continue;
        }
        if let Some(reason) = check.refused(plan) {
            for_all(&options, plan, &mut summary, |_| {
                Verdict::NotRun(format!("the plan is refused: {reason}"))
            });
        } else {
            let lingerd = Lingerd::start(lingerd, plan)?;
            for_all(&options, plan, &mut summary, |test| test(&lingerd).into());
            lingerd.stop()?;
        }
    }
    summary.end(options.summary.as_deref(), &check.kernel)
}

/// Adds what becomes of each test asked for.
fn for_all(
    options: &Options,
    plan: Plan,
    summary: &mut Summary,
    perform: impl Fn(units::Test) -> Verdict,
) {
    for (name, test) in units::ALL {
        if name.contains(&options.filter) {
            summary.add(Pair::new(name, plan, perform(*test)));
        }
    }
}
