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
  cargo xtask lab bench --part ledger    only what scrapes take, in time and memory
  cargo xtask lab gate                   whether a close costs more instructions than is written down
  cargo xtask lab gate --update          write down what it costs now
  cargo xtask lab scale                  what many hosts come to, for Prometheus";

#[derive(Subcommand)]
enum Task {
    /// See dashboards and alerts at work: a lingerd, and a Prometheus with the rules that scrapes it
    ///
    /// Both run in the foreground, with closes of all kinds to look at, until Ctrl-C. Prometheus is taken
    /// out of Debian's package; nothing is installed, and no service is started.
    Stack(stack::Options),
    /// Make the dashboards for Grafana from their source
    ///
    /// They go to dashboards/, and are committed with it.
    Dashboards(dashboards::Options),
    /// Draw the dashboards, by what a real Prometheus answers, into dashboards/pictures
    ///
    /// It scrapes simulated hosts, and a real lingerd for the dashboard of lingerd itself.
    Pictures(pictures::Options),
    /// Find out what many hosts come to: simulated ones, and a real Prometheus that scrapes them
    ///
    /// Series, samples, memory, processor and disk of Prometheus, the time of rules and of every query of the
    /// dashboards, and what more hosts would take.
    Scale(scale::Options),
    /// Run the cases of the cookbook, and draw what lingerd counts meanwhile into docs/cookbook
    Cookbook(cookbook::Options),
    /// Measure what lingerd costs: each close, beside its peers, and scrapes, memory and starts
    ///
    /// Takes about ten minutes, of which nothing else should be done on the machine.
    Bench(bench::Options),
    /// Compare the instructions that a close costs with those written down, and fail if they are more
    ///
    /// They are counted in QEMU, so that nothing else the machine does changes them.
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
