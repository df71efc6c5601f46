//! All units: the trends of the host, the table, and the latest costly closes.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::{Cell, Row};

use super::pieces::{fit, number, right, table, tiles, trend};
use super::{Picture, recent};
use crate::top::column::{Column, Shown};
use crate::top::state::ViewState;

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
    state: &mut ViewState,
) {
    // The smaller the terminal, the larger the table's share of it, up to all.
    let tiles_height = match area.height {
        ..12 => 0,
        12..30 => 3,
        _ => 5,
    };
    let recent_height = match area.height {
        ..16 => 0,
        height => height / 3 - 1,
    };
    let [top, middle, bottom] = Layout::vertical([
        Constraint::Length(tiles_height),
        Constraint::Fill(1),
        Constraint::Length(recent_height),
    ])
    .areas(area);
    tiles(frame, top, &picture.history.host);
    units(frame, middle, picture, state);
    if let Some(live) = &picture.history.live
        && !bottom.is_empty()
    {
        recent::draw(frame, bottom, live.at, live.recent.iter());
    }
}

/// The columns that fit into the table.
struct TableLayout {
    name: u16,
    numbers: Vec<Column>,
    /// Width of the trend of the sort column, which is at the right.
    trend: u16,
    /// Width left to the right of the numbers.
    rest: u16,
}

impl TableLayout {
    fn new(width: u16, sort: Column) -> Self {
        let most = usize::from(width.saturating_sub(NAME.0) / NUMBER).max(1);
        let by_worth = Column::BY_WORTH.iter().filter(|column| **column != sort);
        let sorted = Column::numbers().iter().filter(|column| **column == sort);
        let mut numbers: Vec<_> = sorted.chain(by_worth).copied().take(most).collect();
        numbers.sort();
        let numbers_width = u16::try_from(numbers.len()).unwrap_or(0) * NUMBER;
        let rest = width.saturating_sub(numbers_width);
        let trend = match rest.saturating_sub(NAME.1 / 2) {
            room if room < TREND.0 => 0,
            room => room.min(TREND.1),
        };
        let name = (rest - trend).min(NAME.1);
        Self {
            name,
            numbers,
            trend: if sort == Column::Unit { 0 } else { trend },
            rest: rest - name,
        }
    }
}

fn units(frame: &mut Frame<'_>, area: Rect, picture: &Picture<'_>, state: &mut ViewState) {
    let layout = TableLayout::new(area.width, state.sort);
    state.page = usize::from(area.height.saturating_sub(1)).max(1);
    let names: Vec<_> = picture.rows.iter().map(|(name, _)| *name).collect();
    let selected = state.row(&names);
    let first = (selected + 1).saturating_sub(state.page);
    let shown = picture.rows.iter().enumerate().skip(first).take(state.page);
    let lines = shown.map(|(index, (name, unit))| {
        let (mark, style) = if index == selected {
            ('▶', Style::new().add_modifier(Modifier::REVERSED))
        } else {
            (' ', Style::new())
        };
        // The gap before the numbers belongs to the first one.
        let name = format!("{mark}{}", fit(name, layout.name.saturating_sub(1)));
        let figures = &unit.track.figures;
        let mut cells = vec![Cell::from(name)];
        let number = |&column| number(column, figures.number(column, state.shown));
        cells.extend(layout.numbers.iter().map(number));
        if layout.trend > 0 {
            cells.push(trend(&unit.track, state.sort, layout.trend - 1, 1).into());
        }
        Row::new(cells).style(style)
    });
    let mut widths = vec![layout.name];
    widths.extend(layout.numbers.iter().map(|_| NUMBER - 1));
    if layout.trend > 0 {
        widths.push(layout.rest - 1);
    }
    table(frame, area, head(&layout, picture, state), lines, &widths);
}

fn head(layout: &TableLayout, picture: &Picture<'_>, state: &ViewState) -> Row<'static> {
    let mark = if state.reverse { '▲' } else { '▼' };
    let marked = |column: Column, name: String| {
        if column == state.sort {
            format!("{mark}{name}")
        } else {
            name
        }
    };
    let all = picture.history.units.len();
    let count = if picture.rows.len() == all {
        format!("{all}")
    } else {
        format!("{} of {all}", picture.rows.len())
    };
    let name = marked(Column::Unit, picture.history.title());
    let name = fit(&format!(" {name} ({count})"), layout.name);
    let numbers = layout.numbers.iter();
    let heads =
        numbers.map(|&column| right(marked(column, column.head(state.shown == Shown::Rates))));
    let mut cells: Vec<_> = [Cell::from(name)].into_iter().chain(heads).collect();
    if layout.trend > 0 {
        cells.push(Cell::from(format!(" {} of late", state.sort.head(true))));
    }
    Row::new(cells)
}
