//! The command line.
#![expect(
    clippy::doc_markdown,
    reason = "these comments are help for a terminal"
)]

mod settings;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub use self::settings::Settings;
use crate::config::PlanChoice;
use crate::top::Top;
use crate::{exercise, watch};

/// What happens to a TCP connection, and to its data, when a program closes it?
///
/// lingerd watches every close on this host from inside the kernel and exports to Prometheus how
/// each ended, how long it blocked its thread, and which bytes were lost, by the service that
/// caused it.
#[derive(Debug, Parser)]
#[command(
    name = "lingerd",
    version,
    after_help = "Start with `lingerd check`: it reports whether lingerd works on this kernel, and how.\n\
                  Then `lingerd run` and, in another terminal, `lingerd exercise` to see the counts change."
)]
pub struct Cli {
    /// What to log: error, warn, info, debug or trace, or levels by module as in
    /// info,linger_daemon::http=debug [default: $LINGER_LOG, or info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What lingerd can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch closes and serve the metrics, until SIGTERM or SIGINT
    ///
    /// Needs root, or the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, until the programs
    /// are attached.
    Run(Settings),
    /// Check what this kernel offers, and whether `run` would work
    ///
    /// First reports on the environment, with a fix for each problem: capabilities, namespaces, filters,
    /// lockdown, file systems and kernel settings. Then loads and attaches the programs of every plan (if
    /// a plan fails, also each of its programs alone) and detaches them again. Exits with 0 only if `run`
    /// would work.
    Check(Check),
    /// Show closes as they happen, one line each
    ///
    /// If a service keeps its programs in the kernel (`persist`), this uses them; otherwise it attaches
    /// probes of its own while it runs. Filters are applied in the kernel: closes that you filter out cost
    /// next to nothing.
    Watch(Watch),
    /// Check the configuration of `run`, or show what is in effect
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Remove what a `run` with `persist` left in the kernel
    ///
    /// Detaches the programs and discards all counts. Fails while a lingerd uses them.
    Unload(PinsArgs),
    /// Show live in the terminal how each unit closes, what it loses and what blocks it
    ///
    /// Reads the lingerd at --url, or else the one on this host. If none answers and you are root, it
    /// attaches probes of its own while it runs. Press ? for all keys.
    Top(Top),
    /// Make closes of every kind on loopback, to see the counts change
    ///
    /// Prints what lingerd should count for each kind; compare with the metrics of comm="lingerd". The
    /// peers and the listener are closed and counted as well.
    Exercise(Exercise),
}

/// Options of `lingerd watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    lingerd watch --lost                   what is being lost now, in the close or after it\n  \
    lingerd watch --blocked 100ms --stack  who waits in close, and where close was called\n  \
    lingerd watch --unit nginx.service --outcome linger_aborted,unread_aborted\n  \
    lingerd watch --json --duration 1m | jq -r 'select(.event == \"close\").outcome' | sort | uniq -c")]
pub struct Watch {
    /// Which closes to show, and how.
    #[command(flatten)]
    pub options: watch::Options,
    /// Where the service keeps its programs.
    #[command(flatten)]
    pub pins: PinsArgs,
}

/// Where the service keeps its programs.
#[derive(Debug, clap::Args)]
pub struct PinsArgs {
    /// The configuration file, which may say where the service keeps its programs [default:
    /// /etc/linger/lingerd.toml, if it exists]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The directory where the service keeps its programs [default: /sys/fs/bpf/lingerd]
    #[arg(long, value_name = "PATH")]
    pub pins: Option<String>,
}

impl PinsArgs {
    /// Returns the settings that these flags set.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            config: self.config.clone(),
            pins: self.pins.clone(),
            ..Settings::default()
        }
    }
}

/// What `lingerd config` can do.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Report every mistake in the file and the flags
    ///
    /// Exits with 0 only if `run` would accept them.
    Check(Settings),
    /// Show every setting with its origin: the file and line, the flag, or the default
    Show {
        /// What is configured.
        #[command(flatten)]
        settings: Settings,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Options of `lingerd check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Try only this plan
    #[arg(long, value_enum, default_value_t = PlanChoice::Auto)]
    pub plan: PlanChoice,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `lingerd exercise`.
#[derive(Debug, clap::Args)]
pub struct Exercise {
    /// Which closes to make.
    #[command(flatten)]
    pub request: exercise::Request,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
