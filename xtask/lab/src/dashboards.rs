//! Generates the dashboards for Grafana. The source of a panel has only what differs, so that what panels share is
//! defined once.

mod fleet;
mod host_overview;
mod lingerd_itself;
mod lost_after_close;
mod model;
mod panel;
mod unit_in_depth;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use linger_xtask::shell::root;
use model::Dashboard;

/// Options of `cargo xtask lab dashboards`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only say whether the files are what would be written
    #[arg(long)]
    check: bool,
}

/// Writes all dashboards or, with `--check`, fails if they are out of date.
pub(crate) fn make(options: &Options) -> Result<()> {
    for dashboard in all() {
        let (file, text) = (file(&dashboard), text(&dashboard)?);
        if !options.check {
            fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        } else if fs::read_to_string(&file).ok() != Some(text) {
            bail!(
                "{} is out of date: run `cargo xtask lab dashboards`",
                file.display()
            );
        }
    }
    Ok(())
}

fn all() -> [Dashboard; 5] {
    [
        fleet::dashboard(),
        host_overview::dashboard(),
        unit_in_depth::dashboard(),
        lost_after_close::dashboard(),
        lingerd_itself::dashboard(),
    ]
}

fn file(dashboard: &Dashboard) -> PathBuf {
    root().join(format!("dashboards/{}.json", dashboard.name))
}

fn text(dashboard: &Dashboard) -> Result<String> {
    Ok(serde_json::to_string_pretty(&dashboard.json())? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_what_their_source_makes() {
        make(&Options { check: true }).unwrap();
    }
}
