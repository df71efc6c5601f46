//! The results of a run: a page of Markdown for people, JSON for machines.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Serialize, Serializer};
use serde_json::json;

use super::host::Host;
use super::targets;
use crate::table::{self, spread};

/// A measure, with its value in each round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    /// Its name, such as `closes/aborts/tcplife/added`: the part, the load, the way to be watched, the measure.
    pub(super) name: String,
    /// Its unit; empty for a ratio or a count.
    pub(super) unit: &'static str,
    /// Its values in the order of the rounds.
    pub(super) values: Vec<f64>,
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [median, lower_quarter, upper_quarter] = spread(&self.values);
        json!({
            "name": self.name,
            "unit": self.unit,
            "median": median,
            "lower_quarter": lower_quarter,
            "upper_quarter": upper_quarter,
            "rounds": self.values.len(),
        })
        .serialize(serializer)
    }
}

/// Something that could not be measured on this machine.
#[derive(Clone, Debug, Serialize)]
struct NotRun {
    what: String,
    reason: String,
}

/// The results of a run.
#[derive(Debug)]
pub(super) struct Report {
    host: Host,
    figures: Vec<Figure>,
    not_run: Vec<NotRun>,
    /// Sections of the parts, in Markdown.
    pages: Vec<String>,
}

impl Report {
    /// An empty report for this machine.
    pub(super) fn of(host: Host) -> Self {
        Self {
            host,
            figures: Vec::new(),
            not_run: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// Adds a figure, unless it has no values.
    pub(super) fn figure(&mut self, name: String, unit: &'static str, values: Vec<f64>) {
        if !values.is_empty() {
            self.figures.push(Figure { name, unit, values });
        }
    }

    /// Returns the values of the figure of this name; empty if it was not measured.
    pub(super) fn values(&self, name: &str) -> &[f64] {
        let figure = self.figures.iter().find(|figure| figure.name == name);
        figure.map_or(&[], |figure| &figure.values)
    }

    /// Returns all figures, in the order of measurement.
    pub(super) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    /// Records that something could not be measured, and why.
    pub(super) fn not_run(&mut self, what: &str, reason: &str) {
        let words: Vec<_> = reason.split_whitespace().collect();
        let reason = words.join(" ");
        println!("not run: {what}: {reason}");
        self.not_run.push(NotRun {
            what: what.to_owned(),
            reason,
        });
    }

    /// Adds a section: a heading, a text that explains the table, and the table.
    pub(super) fn page(&mut self, title: &str, text: &str, table: &str) {
        self.pages.push(format!("### {title}\n\n{text}\n\n{table}"));
    }

    /// Formats the whole report as Markdown.
    pub(super) fn markdown(&self) -> String {
        let targets = targets::markdown(&targets::judge(self));
        let sections = [Some(self.host.markdown()), targets].into_iter().flatten();
        let sections = sections
            .chain(self.pages.iter().cloned())
            .chain(self.not_run_markdown());
        sections.collect::<Vec<_>>().join("\n")
    }

    fn not_run_markdown(&self) -> Option<String> {
        let rows = self.not_run.iter();
        let rows: Vec<_> = rows
            .map(|not_run| vec![not_run.what.clone(), not_run.reason.clone()])
            .collect();
        let table = table::markdown(&["", "why"], &rows);
        (!rows.is_empty()).then(|| format!("### Not run\n\n{table}"))
    }

    /// Writes the whole report as JSON.
    pub(super) fn write_json(&self, path: &Path) -> Result<()> {
        let all = json!({
            "machine": self.host,
            "figures": self.figures,
            "targets": targets::judge(self),
            "not_run": self.not_run,
        });
        fs::write(path, serde_json::to_string_pretty(&all)? + "\n")
            .with_context(|| format!("write {}", path.display()))
    }
}
