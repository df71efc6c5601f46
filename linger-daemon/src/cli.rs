//! Arguments to command.
#![expect(
    clippy::doc_markdown,
    reason = "these comments are help for a terminal"
)]

mod settings;
mod top;
mod watch;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use linger_ebpf::Plan;

pub use self::settings::Settings;
pub use self::top::Top;
pub use self::watch::Watch;
use crate::exercise::{self, Kind, Request};

/// What happens to a TCP connection, and to its data, when a program closes it?
///
/// lingerd watches every close on this host from inside the kernel and serves to Prometheus how
/// each ended, how long it blocked its thread, and which bytes were thrown away, by the service
/// that caused it.
#[derive(Debug, Parser)]
#[command(
    name = "lingerd",
    version,
    after_help = "Start with `lingerd check`: it tells whether this kernel can be watched, and how.\n\
                  Then `lingerd run`, and, in another terminal, `lingerd exercise` to see the numbers move."
)]
pub struct Cli {
    /// What is logged: error, warn, info, debug or trace, or levels by module as in
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
    Run(Run),
    /// Tell what this kernel offers, and whether `run` would work
    ///
    /// First tells what surrounds it, with what helps where something is in the way: capabilities,
    /// namespaces, filters, lockdown, file systems and settings of the kernel. Then really loads and
    /// attaches the programs of every plan, of one that fails each alone as well, and detaches them
    /// again. Exits with 0 only if `run` would work.
    Check(Check),
    /// Show closes as they happen, a line each
    ///
    /// Works beside a running service that keeps its programs in the kernel (`persist`), without probes
    /// of its own; otherwise attaches some for as long as it runs. What is not asked for is left out in
    /// the kernel, and costs next to nothing.
    Watch(Watch),
    /// Check the configuration of `run`, or show what it comes to
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Remove what a `run` with `persist` left in the kernel
    ///
    /// Detaches the programs and forgets all counts. Fails while a lingerd works with them.
    Unload(Unload),
    /// Show on the terminal who closes how, what is lost and what blocks, as it goes on
    ///
    /// Reads a lingerd that runs: the one of --url, or else that of this host. Where none answers, and
    /// for root, it attaches probes of its own until it ends. The key ? tells the others.
    Top(Top),
    /// Make real closes of every kind on loopback, so that the numbers move
    ///
    /// Prints what lingerd is expected to count for each kind; compare with the metrics of
    /// comm="lingerd". The peers and the listener are closed as well, and counted.
    Exercise(Exercise),
}

/// Options of `lingerd run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// What is configured.
    #[command(flatten)]
    pub settings: Settings,
}

/// Options of `lingerd unload`.
#[derive(Debug, clap::Args)]
pub struct Unload {
    /// Where the service keeps its programs.
    #[command(flatten)]
    pub kept: KeptAt,
}

/// Where the service keeps its programs.
#[derive(Debug, clap::Args)]
pub struct KeptAt {
    /// The file of settings, which may say where the service keeps its programs [default:
    /// /etc/linger/lingerd.toml, if it exists]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The folder where the service keeps its programs [default: /sys/fs/bpf/lingerd]
    #[arg(long, value_name = "PATH")]
    pub pins: Option<String>,
}

impl KeptAt {
    /// The settings that these stand for.
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
    /// Say what is wrong with the file and the flags
    ///
    /// Exits with 0 only if `run` would take them.
    Check {
        /// What is configured.
        #[command(flatten)]
        settings: Settings,
    },
    /// Show every setting, with the file and line, or the flag, that it comes from
    Show {
        /// What is configured.
        #[command(flatten)]
        settings: Settings,
        /// Print JSON, for machines
        #[arg(long)]
        json: bool,
    },
}

/// Options of `lingerd check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The plan that `run` would be told to use: no other is tried
    #[arg(long, value_enum, default_value_t = PlanChoice::Auto)]
    pub plan: PlanChoice,
    /// Print JSON, for machines
    #[arg(long)]
    pub json: bool,
}

/// Options of `lingerd exercise`.
#[derive(Debug, clap::Args)]
pub struct Exercise {
    /// Make this kind only; may be given several times
    #[arg(long = "kind", value_enum, value_name = "KIND")]
    pub kinds: Vec<Kind>,
    /// How often each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(exercise::MAX_COUNT)))]
    pub count: u32,
    /// Seconds after which no close is begun
    #[arg(long, value_name = "SECONDS", default_value_t = exercise::DEFAULT_TIME.as_secs())]
    pub time: u64,
    /// Print JSON, for machines
    #[arg(long)]
    pub json: bool,
}

impl Exercise {
    /// What is asked for.
    #[must_use]
    pub fn request(&self) -> Request {
        Request {
            kinds: self.kinds.clone(),
            count: self.count,
            time: Duration::from_secs(self.time),
        }
    }
}

/// Which plan to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlanChoice {
    /// The best that attaches: fentry, then kprobe, then tracepoint
    Auto,
    /// BPF trampolines: exact, and the cheapest
    Fentry,
    /// Kprobes on the same functions, where there are no trampolines
    Kprobe,
    /// cgroup/sock_release and tracepoints, where the kernel refuses both
    Tracepoint,
}

impl PlanChoice {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.plan() {
            None => "auto",
            Some(plan) => plan.name(),
        }
    }

    /// The plan, unless the choice is lingerd's.
    #[must_use]
    pub const fn plan(self) -> Option<Plan> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(Plan::Fentry),
            Self::Kprobe => Some(Plan::Kprobe),
            Self::Tracepoint => Some(Plan::Tracepoint),
        }
    }
}
