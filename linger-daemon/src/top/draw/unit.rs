//! One unit: outcomes and cost of its closes, its groups, and its latest costly closes.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row};

use super::pieces::{FAINT, fit, number, right, table, tiles};
use super::{Picture, recent};
use crate::live::RecentClose;
use crate::text::bytes;
use crate::top::column::{Column, Shown, float};
use crate::top::history::{Member, Unit};
use crate::top::state::ViewState;

/// Minimum width for two lists side by side.
const SIDE_BY_SIDE: u16 = 70;
/// Widths of a list: name, total, rate.
const LIST: [u16; 3] = [19, 8, 8];

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    picture: &Picture<'_>,
    state: &mut ViewState,
) {
    let first = picture.rows.first().map_or("", |(name, _)| name);
    let name = state.selected.as_deref().unwrap_or(first);
    let Some(unit) = picture.history.units.get(name) else {
        let gone = format!("{name} is not among the units any more");
        frame.render_widget(gone, area);
        return;
    };
    let tiles_height = if area.height < 14 { 0 } else { 3 };
    let (outcomes, costs) = (outcomes(unit), costs(unit));
    let room = area.height.saturating_sub(1 + tiles_height);
    let lists_height = lists_height(room, outcomes.len().max(costs.len()));
    let members_height = match room - lists_height {
        rest @ 8.. if unit.members.len() > 1 => rest / 2,
        rest @ 4.. if unit.members.len() > 1 => rest.min(3),
        _ => 0,
    };
    let heights = [1, tiles_height, lists_height, members_height].map(Constraint::Length);
    let [title, top, lists, members, latest] =
        Layout::vertical(heights.into_iter().chain([Constraint::Fill(1)])).areas(area);
    let groups = match unit.members.len() {
        1 => "  (1 group)".to_owned(),
        count => format!("  ({count} groups)"),
    };
    let heading = format!("{} {name}", picture.history.title());
    let heading = Line::from(vec![
        Span::styled(heading, Modifier::BOLD),
        Span::styled(groups, FAINT),
    ]);
    frame.render_widget(heading, title);
    tiles(frame, top, &unit.track);
    self::lists(frame, lists, outcomes, costs, state);
    if !members.is_empty() {
        self::members(frame, members, &unit.members, state);
    }
    if let Some(live) = &picture.history.live
        && latest.height > 2
    {
        let own = live.recent.iter().filter(|one| is_of(one, unit));
        recent::draw(frame, latest, live.at, own);
    }
}

/// A line of a list: a name, a total and a rate.
type Entry = [Cell<'static>; 3];

/// Returns the rows for the lists: as many as they need, but at most three fifths of a room of 14 or more, which leaves
/// some for costly closes.
fn lists_height(room: u16, entries: usize) -> u16 {
    let needed = u16::try_from(entries).unwrap_or(u16::MAX).saturating_add(2);
    needed.min(if room < 14 { room } else { room * 3 / 5 })
}

/// Returns the unit's closes by outcome, the most frequent first.
fn outcomes(unit: &Unit) -> Vec<Entry> {
    let mut outcomes: Vec<_> = unit.outcomes.iter().collect();
    outcomes.sort_by_key(|(_, tally)| Reverse(tally.total));
    let entries = outcomes.into_iter().map(|(outcome, tally)| {
        let column = if outcome.ends_with("_aborted") {
            Column::Aborts
        } else {
            Column::Closes
        };
        [
            Cell::from(fit(outcome, LIST[0])),
            number(column, Some(float(tally.total))),
            number(column, tally.rate),
        ]
    });
    entries.collect()
}

/// Returns the cost of the unit's closes, and the fate of its orphans.
fn costs(unit: &Unit) -> Vec<Entry> {
    let figures = &unit.track.figures;
    let entry = |name: &'static str, column: Column| {
        let rate = if column.is_gauge() {
            Cell::default()
        } else {
            number(column, figures.number(column, Shown::Rates))
        };
        let total = number(column, Some(figures.total[column]));
        [Cell::from(name), total, rate]
    };
    let payload = |name: &'static str, value: u64| {
        let total = right(bytes(float(value)));
        [Cell::from(name), total, Cell::default()]
    };
    vec![
        entry("aborts", Column::Aborts),
        entry("resets", Column::Resets),
        entry("discarded", Column::Discarded),
        entry("unread", Column::Unread),
        entry("blocked", Column::Blocked),
        entry("orphans", Column::Orphans),
        payload("left to the kernel", unit.orphaned),
        payload("  delivered", unit.delivered),
        entry("  lost", Column::Lost),
    ]
}

/// Draws the lists side by side or, on a narrow terminal, one below the other.
fn lists(
    frame: &mut Frame<'_>,
    area: Rect,
    outcomes: Vec<Entry>,
    costs: Vec<Entry>,
    state: &mut ViewState,
) {
    let lists = if area.width >= SIDE_BY_SIDE {
        let halves = [Constraint::Length(area.width / 2), Constraint::Fill(1)];
        let [left, right] = Layout::horizontal(halves).areas(area);
        vec![(left, "outcome", outcomes), (right, "what they did", costs)]
    } else {
        vec![(area, "outcome, costs", [outcomes, costs].concat())]
    };
    let longest = lists.iter().map(|(.., entries)| entries.len()).max();
    let room = usize::from(area.height.saturating_sub(1));
    state.page = room.saturating_sub(1).max(1);
    let last = longest.unwrap_or(0).saturating_sub(state.page);
    state.scroll = state.scroll.min(last);
    for (area, title, mut entries) in lists {
        entries.drain(..state.scroll.min(entries.len().saturating_sub(room)));
        if entries.len() > room {
            // The last row shows how many are hidden.
            let hidden = entries.split_off(room.saturating_sub(1)).len();
            let more = Cell::from(format!("{hidden} more: PgDn")).style(FAINT);
            entries.push([more, Cell::default(), Cell::default()]);
        }
        let head = Row::new([Cell::from(title), right("total"), right("/s")]);
        table(frame, area, head, entries.into_iter().map(Row::new), &LIST);
    }
}

/// Draws the unit's groups, sorted as the units are.
fn members(frame: &mut Frame<'_>, area: Rect, members: &[Member], state: &ViewState) {
    const COLUMNS: [Column; 5] = [
        Column::Closes,
        Column::Aborts,
        Column::Discarded,
        Column::Blocked,
        Column::Lost,
    ];
    let width = area.width.saturating_sub(9 * 5).clamp(10, 40);
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by(|a, b| state.order((&a.name, &a.figures), (&b.name, &b.figures)));
    let head = match state.shown {
        Shown::Rates => "group, each second",
        Shown::Totals => "group, in all",
    };
    let heads = COLUMNS.map(|column| right(column.head(false)));
    let head = Row::new([Cell::from(head)].into_iter().chain(heads));
    let rows = members.into_iter().map(|member| {
        let name = Cell::from(fit(&member.name, width));
        let value = |column| member.figures.number(column, state.shown);
        let numbers = COLUMNS.map(|column| number(column, value(column)));
        Row::new([name].into_iter().chain(numbers))
    });
    table(frame, area, head, rows, &[width, 8, 8, 8, 8, 8]);
}

/// Returns whether a close belongs to this unit, by the labels known for both.
fn is_of(one: &RecentClose, unit: &Unit) -> bool {
    unit.members.iter().any(|member| {
        let known = [("unit", &one.unit), ("comm", &one.comm)];
        let known = known.into_iter().filter_map(|(label, value)| {
            member.labels.get(label).map(|expected| expected == value)
        });
        known.reduce(|a, b| a && b).unwrap_or(false)
    })
}
