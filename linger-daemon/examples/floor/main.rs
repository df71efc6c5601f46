//! Attaches programs that do nothing but count their runs to the hooks of a plan: the least that being
//! attached there can cost, for benchmarks.
//!
//! `floor PLAN` says `attached` when it is, ends at the end of its input, and says how often they ran.

use std::env;
use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use aya::EbpfLoader;
use aya::maps::PerCpuArray;
use linger_daemon::probe::{LoadOptions, Loader};
use linger_ebpf::{FLOOR, Plan};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let name = env::args().nth(1).context("usage: floor PLAN")?;
    let plan = Plan::ALL.iter().find(|plan| plan.name() == name);
    let plan = *plan.with_context(|| format!("there is no plan {name}"))?;
    let loader = Loader::new(LoadOptions::default())?;
    let mut ebpf = EbpfLoader::new().load(FLOOR)?;
    let attached = loader.attach_object(&mut ebpf, plan)?;
    println!("attached");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(attached);
    let runs = ebpf.map("RUNS").context("the object has a map RUNS")?;
    let mut all = 0;
    for runs in PerCpuArray::<_, u64>::try_from(runs)?.iter() {
        all += runs?.iter().sum::<u64>();
    }
    println!("{all}");
    Ok(())
}
