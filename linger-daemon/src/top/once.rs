//! `lingerd top --once`: one table, as text or JSON.

use anyhow::Result;
use serde::Serialize;
use tokio::time::sleep;

use super::Top;
use super::column::{Column, Figures, Shown};
use super::features::Features;
use super::history::{History, Row};
use super::source::Source;
use super::state::ViewState;
use crate::live::{Health, RecentClose};
use crate::{stdout, table};

/// The JSON document.
#[derive(Serialize)]
struct Printed<'a> {
    host: &'a str,
    plan: &'a str,
    /// Start of the daemon, and time of the reading, Unix seconds.
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

/// Prints one table, computed from two readings.
pub(super) async fn print(
    mut source: Source,
    options: &Top,
    mut history: History,
    state: &ViewState,
) -> Result<()> {
    history.add(source.read().await?);
    sleep(options.interval).await;
    let live = source.read().await?;
    history.add(live.clone());
    if !options.json {
        let table = table(&history, state, Features::from_environment());
        return Ok(stdout::print(&table)?);
    }
    let units = history.rows(state).into_iter();
    let units = units.map(|(name, unit)| Named {
        name,
        figures: unit.track.figures,
    });
    stdout::print_json(&Printed {
        host: &live.host,
        plan: &live.plan,
        started: live.started,
        at: live.at,
        all: history.host.figures,
        units: units.collect(),
        groups_omitted: live.groups_omitted,
        recent: &live.recent,
        health: &live.health,
    })?;
    Ok(())
}

/// Formats the units, sorted by the state: for each column the total, and the rate per second.
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
    let text = |column: Column, shown| column.text(unit.track.figures.number(column, shown));
    let mut cells = vec![name.to_owned()];
    for &column in Column::numbers() {
        cells.push(text(column, Shown::Totals));
        if !column.is_gauge() {
            cells.push(text(column, Shown::Rates));
        }
    }
    cells
}
