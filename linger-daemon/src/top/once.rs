//! `lingerd top --once`: one table, as text or JSON.

use serde::Serialize;

use super::column::{Column, Figures, Shown};
use super::features::Features;
use super::history::{History, Row};
use super::state::ViewState;
use crate::live::{Health, RecentClose};
use crate::table;

/// The JSON document.
#[derive(Serialize)]
struct Printed<'a> {
    host: &'a str,
    plan: &'a str,
    /// When the daemon was started, and when this was read, Unix seconds.
    started: f64,
    at: f64,
    #[serde(flatten)]
    all: Figures,
    units: Vec<Named<'a>>,
    groups_omitted: usize,
    recent: &'a [RecentClose],
    health: &'a Health,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(flatten)]
    figures: Figures,
}

/// The units, sorted as the state says, as JSON.
pub(super) fn json(history: &History, state: &ViewState) -> serde_json::Result<String> {
    let Some(live) = &history.live else {
        return Ok("null\n".to_owned());
    };
    let rows = history.rows(state);
    let printed = Printed {
        host: &live.host,
        plan: &live.plan,
        started: live.started,
        at: live.at,
        all: history.host.figures,
        units: rows
            .into_iter()
            .map(|(name, unit)| Named {
                name,
                figures: unit.track.figures,
            })
            .collect(),
        groups_omitted: live.groups_omitted,
        recent: &live.recent,
        health: &live.health,
    };
    Ok(serde_json::to_string_pretty(&printed)? + "\n")
}

/// The same as a table: for each column what happened in all, and each second.
pub(super) fn table(history: &History, state: &ViewState, features: Features) -> String {
    let mut heads = vec![history.title()];
    for column in Column::numbers() {
        heads.push(column.name().to_owned());
        if !column.is_gauge() {
            heads.push("/s".to_owned());
        }
    }
    let mut columns = vec![table::Column::Right(0); heads.len()];
    columns[0] = table::Column::Left(0);
    let mut lines = vec![heads];
    lines.extend(history.rows(state).into_iter().map(cells));
    features.text(&table::table(&columns, &lines))
}

fn cells((name, unit): Row<'_>) -> Vec<String> {
    let text = |column: Column, shown| {
        let number = unit.track.figures.number(column, shown);
        number.map_or("-".to_owned(), |value| column.text(value))
    };
    let mut cells = vec![name.to_owned()];
    for &column in Column::numbers() {
        cells.push(text(column, Shown::Totals));
        if !column.is_gauge() {
            cells.push(text(column, Shown::Rates));
        }
    }
    cells
}
