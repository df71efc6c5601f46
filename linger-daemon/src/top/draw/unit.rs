//! One unit: outcomes and cost of its closes, its groups, and its latest costly closes.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as TableRow};

use super::pieces::{FAINT, fit, number, right, table, tiles};
use super::{Picture, recent, stack};
use crate::live::RecentClose;
use crate::top::column::{Column, float};
use crate::top::history::{Member, Unit};
use crate::top::rows::{self, Row};
use crate::top::state::{Shown, ViewState};

/// Minimum width for two lists side by side.
const SIDE_BY_SIDE: u16 = 70;
/// Widths of a list: name, total, rate.
const LIST: [u16; 3] = [19, 8, 8];

pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    picture: &Picture<'_>,
    rows: &[Row<'_>],
    state: &mut ViewState,
) {
    let names: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
    let name = match &state.selected {
        Some(name) => name.as_str(),
        None => names.first().copied().unwrap_or_default(),
    };
    let Some(unit) = picture.history.units.get(name) else {
        let gone = format!("{name} is not among the units any more");
        frame.render_widget(Line::from(gone), area);
        return;
    };
    let tiles_height = if area.height < 14 { 0 } else { 3 };
    let [title, top, body] = stack(area, [1, tiles_height, 0]);
    let groups = match unit.members.len() {
        1 => "  (1 group)".to_owned(),
        count => format!("  ({count} groups)"),
    };
    let heading = Line::from(vec![
        Span::styled(
            format!("{} {name}", picture.history.title()),
            Modifier::BOLD,
        ),
        Span::styled(groups, FAINT),
    ]);
    frame.render_widget(heading, title);
    if !top.is_empty() {
        tiles(frame, top, &unit.track, picture.history.window);
    }
    let (outcomes, costs) = (outcomes(unit), costs(unit));
    let lists_height = lists_height(body.height, outcomes.len().max(costs.len()));
    let members_height = match body.height.saturating_sub(lists_height) {
        room @ 8.. if unit.members.len() > 1 => room / 2,
        room @ 4.. if unit.members.len() > 1 => room.min(3),
        _ => 0,
    };
    let [lists, members, latest] = stack(body, [lists_height, members_height, 0]);
    self::lists(frame, lists, &outcomes, &costs, state);
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
type Entry = (String, Cell<'static>, Cell<'static>);

/// Rows for the lists: all they need, but leaving room for at least one costly close.
fn lists_height(room: u16, entries: usize) -> u16 {
    let needed = u16::try_from(entries).unwrap_or(u16::MAX).saturating_add(2);
    let most = if room < 14 { room } else { room * 3 / 5 };
    needed.min(most)
}

/// Its closes by outcome, most frequent first.
fn outcomes(unit: &Unit) -> Vec<Entry> {
    let mut outcomes: Vec<_> = unit.outcomes.iter().collect();
    outcomes.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.total));
    let entries = outcomes.into_iter().map(|(outcome, tally)| {
        let column = if outcome.ends_with("_aborted") {
            Column::Aborts
        } else {
            Column::Closes
        };
        (
            outcome.clone(),
            number(column, Some(float(tally.total))),
            number(column, tally.rate),
        )
    });
    entries.collect()
}

/// The cost of its closes, and the fate of its orphans.
fn costs(unit: &Unit) -> Vec<Entry> {
    let track = &unit.track;
    let entry = |column: Column| {
        let rate = track.rate.as_ref().filter(|_| !column.is_gauge());
        (
            column.name().to_owned(),
            number(column, Some(track.total[column])),
            match rate {
                Some(rate) => number(column, Some(rate[column])),
                None if column.is_gauge() => Cell::default(),
                None => number(column, None),
            },
        )
    };
    let mut costs: Vec<Entry> = [
        Column::Aborts,
        Column::Resets,
        Column::Discarded,
        Column::Unread,
        Column::Blocked,
        Column::Orphans,
    ]
    .map(entry)
    .into();
    for (name, value) in [
        ("left to the kernel", unit.orphaned),
        ("  delivered", unit.delivered),
    ] {
        costs.push((
            name.to_owned(),
            right(crate::text::bytes(float(value))),
            Cell::default(),
        ));
    }
    let (_, total, rate) = entry(Column::Lost);
    costs.push(("  lost".to_owned(), total, rate));
    costs
}

fn lists(
    frame: &mut Frame<'_>,
    area: Rect,
    outcomes: &[Entry],
    costs: &[Entry],
    state: &mut ViewState,
) {
    state.page = usize::from(area.height.saturating_sub(2)).max(1);
    if area.width >= SIDE_BY_SIDE {
        let half = area.width / 2;
        let left = Rect {
            width: half,
            ..area
        };
        let right = Rect {
            x: area.x + half,
            width: area.width - half,
            ..area
        };
        state.scroll = state
            .scroll
            .min(outcomes.len().max(costs.len()).saturating_sub(state.page));
        list(frame, left, "outcome", outcomes, state.scroll);
        list(frame, right, "what they did", costs, state.scroll);
    } else {
        let all: Vec<Entry> = outcomes.iter().chain(costs).cloned().collect();
        state.scroll = state.scroll.min(all.len().saturating_sub(state.page));
        list(frame, area, "outcome, costs", &all, state.scroll);
    }
}

fn list(frame: &mut Frame<'_>, area: Rect, title: &'static str, entries: &[Entry], scroll: usize) {
    let head = TableRow::new([Cell::from(title), right("total"), right("/s")]);
    let room = usize::from(area.height.saturating_sub(1));
    let scroll = scroll.min(entries.len().saturating_sub(room));
    let left = entries.len() - scroll;
    // The last row says that there is more.
    let shown = if left > room {
        room.saturating_sub(1)
    } else {
        left
    };
    let rows = entries[scroll..][..shown].iter();
    let rows = rows.map(|(name, total, rate)| {
        let name = fit(name, LIST[0].into());
        TableRow::new([Cell::from(name), total.clone(), rate.clone()])
    });
    let more = (left > shown).then(|| {
        let more = format!("{} more: PgDn", left - shown);
        TableRow::new([Cell::from(more).style(FAINT)])
    });
    table(frame, area, head, rows.chain(more), &LIST);
}

/// Its groups, sorted by the column by which units are sorted.
fn members(frame: &mut Frame<'_>, area: Rect, members: &[Member], state: &ViewState) {
    const COLUMNS: [Column; 5] = [
        Column::Closes,
        Column::Aborts,
        Column::Discarded,
        Column::Blocked,
        Column::Lost,
    ];
    let width = area.width.saturating_sub(9 * 5).clamp(10, 40);
    let mut widths = vec![width];
    widths.extend(COLUMNS.map(|_| 8));
    let mut members: Vec<_> = members.iter().collect();
    let value = |member: &Member, column| {
        rows::of(&member.total, member.rate.as_ref(), column, state.shown)
    };
    members.sort_by(|a, b| {
        let of = |member: &Member| {
            (
                value(member, state.sort).unwrap_or(0.0),
                member.total[state.sort],
            )
        };
        of(b)
            .partial_cmp(&of(a))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let head = std::iter::once(Cell::from(match state.shown {
        Shown::Rates => "group, each second",
        Shown::Totals => "group, in all",
    }));
    let head = head.chain(COLUMNS.map(|column| right(column.head(false))));
    let rows = members.into_iter().map(|member| {
        let name = fit(&member.name, width.into());
        let numbers = COLUMNS.map(|column| number(column, value(member, column)));
        TableRow::new(std::iter::once(Cell::from(name)).chain(numbers))
    });
    table(frame, area, TableRow::new(head), rows, &widths);
}

/// Whether a close belongs to this unit, by the labels known for both.
fn is_of(one: &RecentClose, unit: &Unit) -> bool {
    unit.members.iter().any(|member| {
        let known = [("unit", &one.unit), ("comm", &one.comm)];
        let known = known.into_iter().filter_map(|(label, value)| {
            member.labels.get(label).map(|expected| expected == value)
        });
        known.reduce(|a, b| a && b).unwrap_or(false)
    })
}
