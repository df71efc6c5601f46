//! The first two lines: the source of the numbers, and whether they can be trusted.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::pieces::{ALARM, HEAD};
use super::{Picture, stack};
use crate::live::{Health, Live};
use crate::text::{age, bytes, count, escape_for_terminal, seconds};
use crate::top::column::float;
use crate::top::state::{Keys, Shown, ViewState};

const BETWEEN: &str = " · ";

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, picture: &Picture<'_>, state: &ViewState) {
    let [title, health] = stack(area, [1, 1]);
    frame.render_widget(self::title(picture, state), title);
    frame.render_widget(self::health(picture), health);
}

/// The source of the numbers.
fn title(picture: &Picture<'_>, state: &ViewState) -> Line<'static> {
    let mut spans = vec![Span::styled("lingerd top", Modifier::BOLD)];
    if state.paused {
        spans.push(Span::raw(" "));
        spans.push(Span::styled("PAUSED", Modifier::REVERSED));
    }
    if !state.filter.is_empty() && state.keys != Keys::Filter {
        let filter = format!(" /{}", escape_for_terminal(&state.filter));
        spans.push(Span::styled(filter, HEAD));
    }
    let shown = match state.shown {
        Shown::Rates => format!(
            "rates, every {}",
            humantime::format_duration(picture.interval)
        ),
        Shown::Totals => "totals".to_owned(),
    };
    let mut facts = vec![shown];
    if let Some(live) = &picture.history.live {
        facts.insert(0, escape_for_terminal(&live.host));
        facts.push(format!("up {}", age(live.at - live.started)));
        facts.push(escape_for_terminal(picture.source));
        facts.push(format!("kernel {}", escape_for_terminal(&live.kernel)));
        facts.push(format!("version {}", escape_for_terminal(&live.version)));
    }
    for fact in facts {
        spans.push(Span::raw(BETWEEN));
        spans.push(Span::raw(fact));
    }
    spans.into()
}

/// Whether the numbers can be trusted; problems come first.
fn health(picture: &Picture<'_>) -> Line<'static> {
    let Some(live) = &picture.history.live else {
        let failure = picture.failure.map(escape_for_terminal).unwrap_or_default();
        return Span::styled(failure, ALARM).into();
    };
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(
        picture
            .failure
            .map(|why| format!("OLD: {}", escape_for_terminal(why))),
    );
    wrong.extend(troubles(&live.health));
    let plan = format!("plan {}", escape_for_terminal(&live.plan));
    let state = if wrong.is_empty() {
        Span::raw("healthy")
    } else {
        Span::styled(format!("! {}", wrong.join(", ")), ALARM)
    };
    let mut spans = vec![state];
    for fact in [plan].into_iter().chain(facts(live)) {
        spans.push(Span::raw(BETWEEN));
        spans.push(Span::raw(fact));
    }
    spans.into()
}

fn troubles(health: &Health) -> Vec<String> {
    let lost = health.lost.iter().filter(|(_, count)| **count > 0);
    let mut troubles: Vec<_> = lost
        .map(|(what, lost)| {
            format!(
                "unrecorded {} {}",
                escape_for_terminal(what),
                count(float(*lost))
            )
        })
        .collect();
    let missing = health.hooks.iter().filter(|hook| !hook.attached).count();
    if missing > 0 {
        troubles.push(format!("{missing} hooks not attached"));
    }
    // From this level on, there may be no room for the next entry.
    let full = health
        .maps
        .iter()
        .filter(|map| map.entries >= map.capacity / 10 * 9 && map.entries > 0);
    troubles.extend(full.map(|map| format!("{} full", escape_for_terminal(&map.map))));
    troubles
}

fn facts(live: &Live) -> impl Iterator<Item = String> {
    let Health {
        hooks,
        maps,
        lost,
        lost_orphan_bytes,
        reading_seconds,
        resident_bytes,
    } = &live.health;
    let attached = hooks.iter().filter(|hook| hook.attached).count();
    let lost: u64 = lost.values().sum();
    let mut facts = vec![
        format!("hooks {attached}/{}", hooks.len()),
        format!("unrecorded {}", count(float(lost))),
    ];
    let fills = maps.iter().map(|map| {
        let [entries, capacity] = [map.entries, map.capacity].map(|number| count(float(number)));
        format!("{} {entries}/{capacity}", escape_for_terminal(&map.map))
    });
    facts.extend(fills);
    if live.groups_omitted > 0 {
        facts.push(format!("{} groups not shown", live.groups_omitted));
    }
    if *lost_orphan_bytes > 0 {
        let lost = bytes(float(*lost_orphan_bytes));
        facts.push(format!("{lost} of orphans unknown"));
    }
    facts.push(format!("read in {}", seconds(*reading_seconds)));
    facts.push(format!("memory {}", bytes(float(*resident_bytes))));
    facts.into_iter()
}
