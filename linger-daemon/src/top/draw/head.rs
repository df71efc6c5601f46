//! The first two lines: the source of the numbers, and their trustworthiness.

use ratatui::style::Modifier;
use ratatui::text::{Line, Span};

use super::Picture;
use super::pieces::{ALARM, HEAD};
use crate::ledger::MapFill;
use crate::live::Live;
use crate::text::{age, bytes, count, escape_for_terminal, seconds};
use crate::top::column::{Shown, float};
use crate::top::state::{Keys, ViewState};

/// Returns the line about the source of the numbers.
pub(super) fn title(picture: &Picture<'_>, state: &ViewState) -> Line<'static> {
    let mut spans = vec![Span::styled("lingerd top", Modifier::BOLD)];
    if state.paused {
        spans.push(Span::raw(" "));
        spans.push(Span::styled("PAUSED", Modifier::REVERSED));
    }
    if !state.filter.is_empty() && state.keys != Keys::Filter {
        let filter = format!(" /{}", escape_for_terminal(&state.filter));
        spans.push(Span::styled(filter, HEAD));
    }
    let mut facts = vec![match state.shown {
        Shown::Rates => {
            let interval = humantime::format_duration(picture.interval);
            format!("rates, every {interval}")
        }
        Shown::Totals => "totals".to_owned(),
    }];
    if let Some(live) = &picture.history.live {
        facts.insert(0, escape_for_terminal(&live.host));
        facts.push(format!("up {}", age(live.at - live.started)));
        facts.push(escape_for_terminal(picture.source));
        facts.push(format!("kernel {}", escape_for_terminal(&live.kernel)));
        facts.push(format!("version {}", escape_for_terminal(&live.version)));
    }
    line(spans, &facts)
}

/// Returns the line about the trustworthiness of the numbers; problems come first.
pub(super) fn health(picture: &Picture<'_>) -> Line<'static> {
    let failure = picture.failure.map(escape_for_terminal);
    let Some(live) = &picture.history.live else {
        return Span::styled(failure.unwrap_or_default(), ALARM).into();
    };
    let failure = failure.map(|why| format!("OLD: {why}")).into_iter();
    let wrong: Vec<_> = failure.chain(troubles(live)).collect();
    let state = if wrong.is_empty() {
        Span::raw("healthy")
    } else {
        Span::styled(format!("! {}", wrong.join(", ")), ALARM)
    };
    line(vec![state], &facts(live))
}

/// Appends facts to the beginning of a line.
fn line(mut spans: Vec<Span<'static>>, facts: &[String]) -> Line<'static> {
    spans.extend(facts.iter().map(|fact| Span::raw(format!(" · {fact}"))));
    spans.into()
}

fn troubles(live: &Live) -> Vec<String> {
    let health = &live.health;
    // As the alert `LingerdLosesCounts`: events are only for those who watch, and under the plan tracepoint some
    // closes that wait have no time.
    let is_expected = |what: &str| match what {
        "event" => true,
        "return" => live.plan == "tracepoint",
        _ => false,
    };
    let lost = health.lost.iter();
    let lost = lost.filter(|(what, lost)| **lost > 0 && !is_expected(what));
    let mut troubles: Vec<_> = lost
        .map(|(what, lost)| {
            let what = escape_for_terminal(what);
            format!("unrecorded {what} {}", count(float(*lost)))
        })
        .collect();
    let missing = health.hooks.iter().filter(|hook| !hook.attached).count();
    if missing > 0 {
        troubles.push(format!("{missing} hooks not attached"));
    }
    // From this level on, the next entry may not fit.
    let is_full = |map: &&MapFill| map.entries >= map.capacity / 10 * 9 && map.entries > 0;
    let full = health.maps.iter().filter(is_full);
    troubles.extend(full.map(|map| format!("{} full", escape_for_terminal(&map.map))));
    troubles
}

fn facts(live: &Live) -> Vec<String> {
    let health = &live.health;
    let attached = health.hooks.iter().filter(|hook| hook.attached).count();
    let mut facts = vec![
        format!("plan {}", escape_for_terminal(&live.plan)),
        format!("hooks {attached}/{}", health.hooks.len()),
        format!("unrecorded {}", count(float(health.lost.values().sum()))),
    ];
    facts.extend(health.maps.iter().map(|map| {
        let [entries, capacity] = [map.entries, map.capacity].map(|number| count(float(number)));
        format!("{} {entries}/{capacity}", escape_for_terminal(&map.map))
    }));
    if live.groups_omitted > 0 {
        facts.push(format!("{} groups not shown", live.groups_omitted));
    }
    if health.lost_orphan_bytes > 0 {
        let lost = bytes(float(health.lost_orphan_bytes));
        facts.push(format!("{lost} of orphans unknown"));
    }
    facts.push(format!("read in {}", seconds(health.reading_seconds)));
    facts.push(format!("memory {}", bytes(float(health.resident_bytes))));
    facts
}
