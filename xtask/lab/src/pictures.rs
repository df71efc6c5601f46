//! A picture of each dashboard, drawn from a real Prometheus's answers to its queries.

mod answers;
mod draw;
mod plot;
mod unit;

use std::fs;

use anyhow::{Context as _, Result};
use linger_xtask::shell::root;

use self::answers::Answers;
use crate::grafana;

/// What to draw, and of what.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds that Prometheus scrapes before it is asked
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(60..=86400))]
    time: u64,
    /// Draw the answers of the last run once more
    #[arg(long)]
    again: bool,
}

/// Runs the queries of the dashboards, and draws the dashboards.
pub(crate) fn make(options: &Options) -> Result<()> {
    let dashboards = grafana::dashboards()?;
    let kept = root().join("target/pictures.json");
    if !options.again {
        let answers = answers::ask(&dashboards, options.time)?;
        fs::write(&kept, serde_json::to_string(&answers)?)?;
    }
    let answers = fs::read_to_string(&kept).with_context(|| format!("read {}", kept.display()))?;
    let answers: Answers = serde_json::from_str(&answers)?;
    let folder = root().join("dashboards/pictures");
    fs::create_dir_all(&folder)?;
    for (name, dashboard) in &dashboards {
        let file = folder.join(format!("{name}.svg"));
        fs::write(&file, draw::dashboard(dashboard, &answers, name))?;
        println!("{}", file.display());
    }
    Ok(())
}
