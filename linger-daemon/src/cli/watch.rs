//! Options of `lingerd watch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use linger_ebpf::Outcome;

use super::PinsArgs;
use crate::config::PlanChoice;
use crate::watch::{self, WatchFilter};

/// Options of `lingerd watch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    lingerd watch --lost                   what is being lost now, in the close or after it\n  \
    lingerd watch --blocked 100ms --stack  who waits in close, and where close was called\n  \
    lingerd watch --unit nginx.service --outcome linger_aborted,unread_aborted\n  \
    lingerd watch --json --duration 1m | jq -r .outcome | sort | uniq -c")]
pub struct Watch {
    /// Only closes with this outcome; separate several by commas, or repeat the flag
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',', value_parser = outcomes(), hide_possible_values = true)]
    pub outcomes: Vec<Outcome>,
    /// Only closes of this systemd unit, named as in the label of the metrics; may be repeated
    #[arg(long = "unit", value_name = "UNIT")]
    pub units: Vec<String>,
    /// Only closes of processes with this name
    #[arg(long, value_name = "NAME")]
    pub comm: Option<String>,
    /// Only closes of connections with this port at either end
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Only closes that lost payload: at once, or after the close had left it to the kernel
    #[arg(long)]
    pub lost: bool,
    /// Only closes that blocked their thread for at least this long, as in 100ms
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub blocked: Option<Duration>,
    /// Show the stack of the program at each close
    #[arg(long)]
    pub stack: bool,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
    /// End after this many closes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time, as in 30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Attach probes of its own, with this plan [default: the programs of the service, or the best plan]
    #[arg(long, value_enum)]
    pub plan: Option<PlanChoice>,
    /// Where the service keeps its programs.
    #[command(flatten)]
    pub pins: PinsArgs,
}

impl Watch {
    /// Which closes to show.
    #[must_use]
    pub fn filter(&self) -> WatchFilter {
        WatchFilter {
            outcomes: self.outcomes.clone(),
            units: self.units.clone(),
            comm: self.comm.clone(),
            port: self.port,
            lost: self.lost,
            blocked: self.blocked,
            stack: self.stack,
        }
    }

    /// How to show them; `pins` is the folder in which a service may have pinned its programs.
    #[must_use]
    pub fn options(&self, pins: PathBuf) -> watch::Options {
        watch::Options {
            json: self.json,
            count: self.count,
            duration: self.duration,
            own: self.plan.is_some(),
            plan: self.plan.and_then(PlanChoice::plan),
            pins,
        }
    }
}

/// Parses outcomes by name.
fn outcomes() -> impl clap::builder::TypedValueParser<Value = Outcome> {
    let names = Outcome::ALL.iter().map(|outcome| outcome.name());
    PossibleValuesParser::new(names).map(|name| {
        let outcome = Outcome::ALL.iter().find(|outcome| outcome.name() == name);
        *outcome.expect("one of them")
    })
}
