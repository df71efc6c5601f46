//! The laboratory: measurements and drawings outside the usual tests: bench, gate, scale, cookbook, dashboards, stack.

mod bench;
mod churn;
mod cookbook;
mod dashboards;
mod grafana;
mod pictures;
mod scale;
mod stack;
mod svg;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use linger_xtask::setup::{self, Purpose};
use linger_xtask::shell;

/// Measures linger, and draws what is shown of it.
#[derive(Parser)]
#[command(bin_name = "cargo xtask lab", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask lab stack                  a lingerd, a Prometheus that scrapes it, and closes to look at
  cargo xtask lab bench                  what lingerd costs on this machine, beside its peers
  cargo xtask lab bench --part ledger    only what scrapes cost, in time and memory
  cargo xtask lab gate                   whether a close costs more instructions than recorded
  cargo xtask lab gate --update          record what it costs now
  cargo xtask lab scale                  what many hosts cost Prometheus";

#[derive(Subcommand)]
enum Task {
    /// See dashboards and alerts at work: a lingerd, and a Prometheus with the rules that scrapes it
    ///
    /// Both run in the foreground, with closes of all kinds to look at, until Ctrl-C. Prometheus is unpacked
    /// from Debian's package; nothing is installed, and no service is started.
    Stack(stack::Options),
    /// Generate the dashboards for Grafana from their source
    ///
    /// They go to dashboards/, and are committed with it.
    Dashboards(dashboards::Options),
    /// Draw the dashboards from the answers of a real Prometheus, into dashboards/pictures
    ///
    /// It scrapes simulated hosts, and a real lingerd for the dashboard of lingerd itself.
    Pictures(pictures::Options),
    /// Measure what many hosts cost: a real Prometheus scrapes simulated ones
    ///
    /// Series, samples, memory, CPU and disk of Prometheus, the time of rules and of every query of the
    /// dashboards, and what more hosts would cost.
    Scale(scale::Options),
    /// Run the cases of the cookbook, and draw what lingerd counts into docs/cookbook
    Cookbook(cookbook::Options),
    /// Measure what lingerd costs: each close, beside its peers, and scrapes, memory and starts
    ///
    /// Takes about ten minutes; do not use the machine meanwhile.
    Bench(bench::Options),
    /// Compare the instructions that a close costs with the recorded ones, and fail if there are more
    ///
    /// They are counted in QEMU, so other work on the machine does not affect them.
    Gate(bench::gate::Options),
    /// Part of `bench`, inside the machine that counts instructions
    #[command(hide = true)]
    Inside(bench::inside::Options),
}

fn main() -> ExitCode {
    shell::exit_code(perform(Cli::parse().command))
}

/// Performs the task; returns whether it succeeded.
fn perform(task: Task) -> Result<bool> {
    match task {
        Task::Stack(options) => {
            setup::ensure(Purpose::Stack)?;
            stack::run(&options)?;
        }
        Task::Dashboards(options) => dashboards::make(&options)?,
        Task::Pictures(options) => {
            setup::ensure(Purpose::Stack)?;
            setup::mount_tracefs()?;
            pictures::make(&options)?;
        }
        Task::Scale(options) => {
            setup::ensure(Purpose::Stack)?;
            setup::mount_tracefs()?;
            scale::run(&options)?;
        }
        Task::Cookbook(options) => cookbook::draw(options)?,
        Task::Bench(options) => {
            setup::ensure(Purpose::Bench)?;
            setup::mount_tracefs()?;
            bench::run(&options)?;
        }
        Task::Gate(options) => {
            setup::ensure(Purpose::Bench)?;
            return bench::gate::run(&options);
        }
        Task::Inside(options) => bench::inside::run(&options)?,
    }
    Ok(true)
}
