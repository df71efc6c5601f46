//! All units: the trends of the host, the table, and the latest costly closes.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Cell, Row as TableRow};

use super::pieces::{fit, number, right, table, tiles, trend};
use super::{Picture, recent, stack};
use crate::top::column::Column;
use crate::top::rows::{self, Row};
use crate::top::state::{Shown, ViewState};

/// Width of a number, including the gap before it.
const NUMBER: u16 = 10;
/// Minimum and maximum width of a name.
const NAME: (u16, u16) = (16, 60);
/// Minimum and maximum width of a unit's trend.
const TREND: (u16, u16) = (20, 75);

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    picture: &Picture<'_>,
    rows: &[Row<'_>],
    state: &mut ViewState,
) {
    // On a small terminal the table takes most of the room, and in the end all of it.
    let tiles_height = match area.height {
        ..12 => 0,
        12..30 => 3,
        _ => 5,
    };
    let recent_height = match area.height {
        ..16 => 0,
        height => height / 3 - 1,
    };
    let table_height = area.height - tiles_height - recent_height;
    let [top, middle, bottom] = stack(area, [tiles_height, table_height, recent_height]);
    if !top.is_empty() {
        tiles(frame, top, &picture.history.host, picture.history.window);
    }
    units(frame, middle, picture, rows, state);
    if let Some(live) = &picture.history.live
        && !bottom.is_empty()
    {
        recent::draw(frame, bottom, live.at, live.recent.iter());
    }
}

/// The columns for which the table has room.
struct Plan {
    name: u16,
    numbers: Vec<Column>,
    trend: u16,
}

impl Plan {
    fn new(width: u16, sort: Column) -> Self {
        let most = usize::from(width.saturating_sub(NAME.0) / NUMBER).max(1);
        let by_worth = Column::BY_WORTH.iter().filter(|column| **column != sort);
        let sorted = Column::NUMBERS.iter().filter(|column| **column == sort);
        let mut numbers: Vec<_> = sorted.chain(by_worth).copied().take(most).collect();
        numbers.sort();
        let rest = width - (u16::try_from(numbers.len()).unwrap_or(0) * NUMBER).min(width);
        let trend = match rest.saturating_sub(NAME.1 / 2) {
            ..TREND_LEAST => 0,
            room => room.min(TREND.1),
        };
        Self {
            name: (rest - trend).min(NAME.1),
            numbers,
            trend,
        }
    }
}

const TREND_LEAST: u16 = TREND.0;

fn units(
    frame: &mut Frame<'_>,
    area: Rect,
    picture: &Picture<'_>,
    rows: &[Row<'_>],
    state: &mut ViewState,
) {
    let plan = Plan::new(area.width, state.sort);
    state.page = usize::from(area.height.saturating_sub(1)).max(1);
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    let selected = state.row(&names);
    let first = (selected + 1).saturating_sub(state.page);
    let shown = rows.iter().enumerate().skip(first).take(state.page);
    let lines = shown.clone().map(|(index, (name, unit))| {
        let is_selected = index == selected;
        let mark = if is_selected { '▶' } else { ' ' };
        // The gap before the numbers belongs to the first one.
        let name = format!(
            "{mark}{}",
            fit(name, usize::from(plan.name).saturating_sub(1))
        );
        let numbers = plan
            .numbers
            .iter()
            .map(|&column| number(column, rows::number(&unit.track, column, state.shown)));
        let line = TableRow::new(std::iter::once(Cell::from(name)).chain(numbers));
        if is_selected {
            line.style(Style::new().add_modifier(Modifier::REVERSED))
        } else {
            line
        }
    });
    let mut widths = vec![plan.name];
    widths.extend(plan.numbers.iter().map(|_| NUMBER - 1));
    table(
        frame,
        area,
        head(&plan, picture, rows, state),
        lines,
        &widths,
    );
    let right = area.right() - plan.trend;
    if plan.trend > 0 && state.sort != Column::Unit {
        for (y, (_, (_, unit))) in (area.y + 1..area.bottom()).zip(shown) {
            let place = Rect::new(right + 1, y, plan.trend - 1, 1);
            trend(
                frame,
                place,
                &unit.track,
                state.sort,
                picture.history.window,
            );
        }
    }
}

fn head(
    plan: &Plan,
    picture: &Picture<'_>,
    rows: &[Row<'_>],
    state: &ViewState,
) -> TableRow<'static> {
    let mark = if state.reverse { '▲' } else { '▼' };
    let marked = |column: Column, name: String| {
        if column == state.sort {
            format!("{mark}{name}")
        } else {
            name
        }
    };
    let all = picture.history.units.len();
    let count = if rows.len() == all {
        format!("{all}")
    } else {
        format!("{} of {all}", rows.len())
    };
    let name = marked(Column::Unit, picture.history.title());
    let name = fit(&format!(" {name} ({count})"), plan.name.into());
    let numbers = plan
        .numbers
        .iter()
        .map(|&column| right(marked(column, column.head(state.shown == Shown::Rates))));
    let mut cells: Vec<_> = std::iter::once(Cell::from(name)).chain(numbers).collect();
    if plan.trend > 0 && state.sort != Column::Unit {
        cells.push(Cell::from(format!(" {}/s of late", state.sort.name())));
    }
    TableRow::new(cells)
}
