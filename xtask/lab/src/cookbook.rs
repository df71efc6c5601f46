//! The pictures of the cookbook: runs its cases under lingerd, and draws the counts.

mod chart;
mod film;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use linger_xtask::architecture::Architecture;
use linger_xtask::artifacts;
use linger_xtask::setup::{self, Purpose};
use linger_xtask::shell::{command, root, run};

use crate::cookbook::chart::Chart;
use crate::cookbook::film::{Films, Series, What};

/// A picture of a recipe.
struct Picture {
    /// Name of its file in docs/cookbook, without the extension.
    file: &'static str,
    /// Unit of the columns' height.
    unit: &'static str,
    /// The cases shown together.
    cases: &'static [&'static str],
    what: What,
    /// The labels distinguished by colour.
    colours: &'static [&'static str],
    /// Whether each unit has a panel of its own.
    panels: bool,
}

/// Closes by outcome, with a panel for each unit.
const fn closes(file: &'static str, cases: &'static [&'static str]) -> Picture {
    Picture {
        file,
        unit: "closes",
        cases,
        what: What::Grown("linger_closes_total"),
        colours: &["outcome"],
        panels: true,
    }
}

/// RSTs sent by cause, of each unit.
const fn resets(file: &'static str, cases: &'static [&'static str]) -> Picture {
    Picture {
        file,
        unit: "RSTs",
        cases,
        what: What::Grown("linger_resets_sent_total"),
        colours: &["unit", "cause"],
        panels: false,
    }
}

const PICTURES: [Picture; 11] = [
    resets(
        "who-resets",
        &[
            "cookbook_nginx_timed_out",
            "cookbook_linger_zero",
            "cookbook_early_answer",
            "cookbook_keepalive",
        ],
    ),
    resets(
        "bad-gateway",
        &[
            "cookbook_nginx_keepalive",
            "cookbook_node_keepalive",
            "cookbook_close_notify",
        ],
    ),
    closes("graceful-shutdown", &["cookbook_shutdown"]),
    closes("deploy", &["cookbook_nginx_lingering_close"]),
    Picture {
        file: "linger-zero",
        unit: "bytes thrown away",
        cases: &["cookbook_linger_zero", "cookbook_haproxy_nolinger"],
        what: What::Grown("linger_discarded_bytes_total"),
        colours: &["unit", "cause"],
        panels: false,
    },
    Picture {
        file: "event-loop",
        unit: "closes",
        cases: &["cookbook_event_loop"],
        what: What::Buckets("linger_close_blocked_seconds"),
        colours: &["unit", "waited"],
        panels: false,
    },
    Picture {
        file: "after-close",
        unit: "orphans that ended",
        cases: &["cookbook_after_close"],
        what: What::Grown("linger_orphans_total"),
        colours: &["unit", "fate"],
        panels: false,
    },
    closes("early-answer", &["cookbook_early_answer"]),
    Picture {
        file: "orphan-limit",
        unit: "orphans",
        cases: &["cookbook_nginx_timed_out", "cookbook_after_close"],
        what: What::Value("linger_orphans_active"),
        colours: &["unit"],
        panels: false,
    },
    closes("reset-by-peer", &["cookbook_nginx_timed_out"]),
    resets(
        "timeouts",
        &["cookbook_keepalive", "cookbook_nginx_keepalive"],
    ),
];

/// What to draw.
#[derive(Args)]
pub(crate) struct Options {
    /// Draw what this file holds, of an earlier run, instead of running the cases
    #[arg(long, value_name = "FILE")]
    film: Option<PathBuf>,
    /// Where to draw it
    #[arg(long, value_name = "FOLDER", default_value = "docs/cookbook")]
    into: PathBuf,
}

/// Runs the cases slowly, or reads an earlier film, and draws the counts.
pub(crate) fn draw(options: Options) -> Result<()> {
    let file = options.film.map_or_else(film, Ok)?;
    let films = Films::parse(&fs::read_to_string(&file)?)?;
    let folder = root().join(options.into);
    fs::create_dir_all(&folder)?;
    for picture in &PICTURES {
        let path = folder.join(format!("{}.svg", picture.file));
        let chart = picture.chart(&films)?;
        if chart.is_empty() {
            bail!("{}: nothing was counted", picture.file);
        }
        fs::write(&path, chart.svg()).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Films the cases; returns the file of the film.
fn film() -> Result<PathBuf> {
    setup::ensure(Purpose::Test)?;
    setup::mount_tracefs()?;
    let built = artifacts::executables(Architecture::here())?;
    let file = root().join("target/cookbook.json");
    run(command(built.scenarios)
        .arg("--lingerd")
        .arg(built.lingerd)
        .args(["cookbook_", "--film"])
        .arg(&file))?;
    Ok(file)
}

/// Returns the value of a label as the legend shows it.
fn in_words<'a>(label: &str, value: &'a str) -> &'a str {
    match (label, value) {
        ("waited", "true") => "waited",
        ("waited", _) => "did not wait",
        _ => value,
    }
}

impl Picture {
    fn chart(&self, films: &Films) -> Result<Chart> {
        let series = films.series(self.cases, &self.what)?;
        let named = series.into_iter().map(|Series { labels, columns }| {
            let values = self.colours.iter().filter_map(|label| {
                let value = labels.get(*label)?;
                Some(in_words(label, value))
            });
            let name = values.collect::<Vec<_>>().join(" · ");
            let unit = labels.get("unit").filter(|_| self.panels);
            (unit.cloned().unwrap_or_default(), name, columns)
        });
        let cases = self.cases.join(", ");
        let Films { plan, kernel, .. } = films;
        let source = format!(
            "Counted by lingerd (plan {plan}, Linux {kernel}) in {cases}; drawn by cargo xtask lab cookbook."
        );
        Ok(Chart::new(
            self.unit,
            source,
            films.axis(&self.what, self.cases)?,
            named,
        ))
    }
}
