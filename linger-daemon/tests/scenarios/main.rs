//! Scenarios: real closes, counted by a real `lingerd` under every plan that this kernel allows, and compared with the
//! kernel's own account of them.
//!
//! Each scenario runs in its own process. From ioctls just before each close and the counters of its own network
//! namespace it derives what must be counted; the parent reads from the daemon what was counted for that process.

mod abort;
mod answers;
mod asleep;
mod attribution;
mod born;
mod bpf_stats;
#[path = "../common/browser.rs"]
mod browser;
mod child;
mod churn;
mod closer;
mod closes;
#[path = "../common/mod.rs"]
mod common;
mod container;
mod cookbook;
mod cut;
mod daemon;
mod dimensions;
mod ends;
mod exes;
mod exposition;
mod graceful;
mod groups_full;
mod harness;
mod hidden;
mod hostile;
mod kernel_threads;
mod left;
mod left_out;
mod linger;
mod listener;
mod load;
mod maintained;
mod missed_ends;
mod needs;
mod netns;
mod options;
mod orphan_ends;
mod orphan_netns;
mod orphan_table;
mod orphans;
mod page;
mod peer;
mod persist;
mod pinned;
mod pod;
mod process_names;
mod random;
mod reached;
mod reload;
mod restart;
mod retired;
mod returns;
mod run;
mod scenario;
#[path = "../common/seccomp.rs"]
mod seccomp;
mod segments;
mod service;
mod sight;
mod sight_orphans;
mod special;
mod starting;
mod tallies;
mod toolkit;
mod truth;
mod under_way;
mod unread;
mod watch;
mod watch_corrected;
mod watch_places;
mod watch_stack;
mod watch_unread;
mod watching;

use std::env;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use serde_json::json;

use crate::options::Options;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", name, settings] => {
            child::run(name, serde_json::from_str(settings)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["pod", ref order @ ..] => {
            let code = u8::try_from(pod::run(order)?)?;
            return Ok(ExitCode::from(code));
        }
        ["closer", ref order @ ..] => {
            closer::run(order)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["ender", ref order @ ..] => {
            missed_ends::run_ender(order)?;
            return Ok(ExitCode::SUCCESS);
        }
        ["aborter", ref order @ ..] => {
            persist::run_aborter(order)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }

    let options = Options::parse();
    if options.libtest.list {
        for (_, scenario) in options.select(scenario::all())? {
            println!("{}: test", scenario.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(file) = &options.film {
        cookbook::make(&options, file)?;
        return Ok(ExitCode::SUCCESS);
    }
    let summary = harness::run(&options)?;
    let run = json!({
        "environment": options.environment,
        "scope": options.scope.name(),
        "seed": options.seed,
    });
    summary.end(options.summary.as_deref(), &run)
}
