//! Names that try to control the terminal, or to hold up its user.

use super::drawn::Scene;
use super::{group, live, recent};

const NAMES: &[&str] = &[
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "a\r\nb\tc\0",
    "\u{9b}31m\u{85}",
    "user@evil\u{202e}cod.service",
    "\u{200b}\u{feff}\u{e0041}",
    "e\u{301}\u{301}\u{301}\u{301}\u{301}",
    "数据库服务数据库服务数据库服务数据库服务",
    "👨\u{200d}👩\u{200d}👧",
    "",
];

/// Returns a reading with this name in all of its texts.
fn named(name: &str) -> crate::live::Live {
    let mut live = live(0.0, vec![group(name, name, &[(name, 3)])]);
    let long = name.repeat(100);
    for text in [
        &mut live.host,
        &mut live.plan,
        &mut live.kernel,
        &mut live.version,
        &mut live.health.maps[0].map,
    ] {
        text.clone_from(&long);
    }
    live.health.lost.insert(name.to_owned(), 1);
    live.recent = recent(live.at);
    for one in &mut live.recent {
        for text in [
            &mut one.comm,
            &mut one.unit,
            &mut one.local,
            &mut one.remote,
            &mut one.outcome,
        ] {
            name.clone_into(text);
        }
    }
    live
}

#[test]
fn no_name_gets_control_characters_or_directions_onto_the_terminal() {
    for name in NAMES {
        for enter in ["", "l"] {
            for (width, height) in [(80, 24), (200, 50), (40, 10)] {
                let mut scene = Scene::of([named(name)]).press(enter);
                let text = scene.text(width, height);
                let bad = |letter: char| {
                    (letter.is_control() && letter != '\n')
                        || "\u{202e}\u{200b}\u{feff}\u{e0041}\u{200d}".contains(letter)
                };
                assert!(!text.contains(bad), "{name:?}: {text:?}");
                assert_eq!(text.lines().count(), usize::from(height), "{text}");
            }
        }
    }
}

/// Measuring what is left of the name after each character would take hours.
#[test]
fn a_name_of_any_length_is_drawn() {
    let name = "\u{1}".repeat(200_000);
    let closes = group(&name, &name, &[("graceful", 1)]);
    let text = Scene::of([live(0.0, vec![closes])]).text(80, 24);
    assert!(text.contains("▶\\u{1}\\u{1}"), "{text}");
}

#[test]
fn a_table_in_text_has_one_line_per_unit_whatever_its_name() {
    let groups = NAMES
        .iter()
        .map(|name| group(name, "x", &[("graceful", 1)]));
    let scene = Scene::of([live(0.0, groups.collect())]);
    let table = crate::top::once::table(&scene.history, &scene.state, scene.features);
    assert_eq!(table.lines().count(), 1 + NAMES.len(), "{table}");
    assert!(!table.contains('\u{1b}'));
}
