//! The layout on terminals of several sizes, compared with drawings in files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::Color;

use super::{busy, group, history, live};
use crate::live::Live;
use crate::top::column::Column;
use crate::top::draw::{Picture, draw};
use crate::top::features::Features;
use crate::top::history::History;
use crate::top::state::ViewState;

const PLAIN: Features = Features {
    colour: true,
    unicode: true,
};

/// Environment variable that makes these tests rewrite the drawings.
const BLESS: &str = "LINGER_BLESS";

/// The view on a terminal after some readings and keys.
pub(super) struct Scene {
    pub(super) history: History,
    pub(super) state: ViewState,
    pub(super) failure: Option<&'static str>,
    pub(super) features: Features,
}

impl Scene {
    pub(super) fn of(readings: impl IntoIterator<Item = Live>) -> Self {
        Self {
            history: history(readings),
            state: ViewState::new(Column::Aborts),
            failure: None,
            features: PLAIN,
        }
    }

    fn busy() -> Self {
        Self::of((1..40).map(busy))
    }

    pub(super) fn press(mut self, keys: &str) -> Self {
        for key in keys.chars() {
            let rows = self.history.rows(&self.state).into_iter();
            let names: Vec<_> = rows.map(|(name, _)| name).collect();
            self.state.key(KeyCode::Char(key).into(), &names);
        }
        self
    }

    pub(super) fn buffer(&mut self, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let picture = Picture {
            history: &self.history,
            rows: self.history.rows(&self.state),
            source: "http://web1:10546",
            interval: Duration::from_secs(2),
            failure: self.failure,
            features: self.features,
        };
        let drawn = terminal.draw(|frame| draw(frame, &picture, &mut self.state));
        drawn.unwrap().buffer.clone()
    }

    pub(super) fn text(&mut self, width: u16, height: u16) -> String {
        let buffer = self.buffer(width, height);
        let rows = buffer.content.chunks(width.into());
        let mut text = String::new();
        for row in rows {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Compares with the drawing in a file; [`BLESS`] rewrites the file, for review.
fn expect(view: &str, scene: &mut Scene, (width, height): (u16, u16)) {
    let drawn = scene.text(width, height);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/tests/drawings");
    let path = path.join(format!("{view}-{width}x{height}.txt"));
    if std::env::var_os(BLESS).is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == drawn,
        "not as in {}:\n{drawn}\nif it is meant to be so: {BLESS}=1 cargo test",
        path.display()
    );
}

/// The usual size of a terminal, into which everything fits.
const USUAL: (u16, u16) = (80, 24);

#[test]
fn views_are_drawn_on_terminals_of_all_sizes() {
    for size in [USUAL, (200, 50), (40, 10)] {
        expect("units", &mut Scene::busy(), size);
        expect("unit", &mut Scene::busy().press("l"), size);
    }
    expect("totals", &mut Scene::busy().press("t1r"), USUAL);
    expect("help", &mut Scene::busy().press("?"), USUAL);
    let mut scene = Scene::of([]);
    scene.failure = Some("cannot connect: Connection refused (os error 111)");
    expect("nothing", &mut scene, USUAL);
}

#[test]
fn problems_of_the_daemon_come_first() {
    let mut live = busy(1);
    live.health.lost.insert("close".to_owned(), 12);
    live.health.hooks[0].attached = false;
    live.health.maps[0].entries = 4096;
    let mut scene = Scene::of([live]);
    scene.failure = Some("no answer within 10 s");
    let text = scene.text(160, 24);
    let health = text.lines().nth(1).unwrap();
    let expected = "! OLD: no answer within 10 s, unrecorded close 12, 1 hooks not attached, groups full · plan fentry";
    assert!(health.starts_with(expected), "{health}");
}

#[test]
fn losses_to_be_expected_are_no_problem() {
    for (plan, what, state) in [
        ("tracepoint", "return", "healthy"),
        ("kprobe", "return", "! unrecorded return 3"),
        ("kprobe", "event", "healthy"),
    ] {
        let mut live = busy(1);
        live.plan = plan.to_owned();
        live.health.lost.insert(what.to_owned(), 3);
        let text = Scene::of([live]).text(160, 24);
        let health = text.lines().nth(1).unwrap();
        assert!(
            health.starts_with(&format!("{state} · plan {plan}")),
            "{health}"
        );
        assert!(health.contains("unrecorded 3"), "{health}");
    }
}

#[test]
fn terminals_of_any_size_are_drawn() {
    for enter in ["", "l"] {
        for width in [1, 2, 7, 15, 16, 25, 39, 69, 70, 81, 119, 151, 400] {
            for height in [1, 2, 3, 4, 5, 9, 13, 15, 16, 17, 29, 33, 100] {
                let mut scene = Scene::busy().press(enter);
                scene.text(width, height);
                scene.press("?").text(width, height);
            }
        }
    }
}

#[test]
fn the_selected_unit_is_in_sight_and_marked_without_colour() {
    let groups = (0..100).map(|n| group(&format!("u{n:02}.service"), "x", &[("graceful", 1)]));
    let live = live(0.0, groups.collect());
    let mut scene = Scene::of([live]).press("1G");
    assert!(scene.text(80, 24).contains("▶u99.service"));
    let mut scene = scene.press("g");
    let text = scene.text(80, 24);
    assert!(text.contains("▶u00.service"), "{text}");
    assert!(!text.contains("u99.service"), "{text}");
}

#[test]
fn the_filter_is_shown_and_leaves_out_units() {
    let mut scene = Scene::busy().press("/NGIN");
    let text = scene.text(80, 24);
    assert!(text.contains("/NGIN_"), "{text}");
    assert!(text.contains("unit (1 of 4)"), "{text}");
    assert!(!text.contains("session-3.scope"), "{text}");
}

#[test]
fn without_colour_and_unicode_the_same_is_shown() {
    let mut scene = Scene::busy();
    let coloured = scene.buffer(80, 24);
    scene.features = Features {
        colour: false,
        unicode: false,
    };
    let plain = scene.buffer(80, 24);
    let is_coloured = |buffer: &Buffer| {
        let mut cells = buffer.content.iter();
        cells.any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
    };
    assert!(is_coloured(&coloured));
    assert!(!is_coloured(&plain));
    expect("ascii", &mut scene, USUAL);
    assert!(scene.text(80, 24).is_ascii());
}

#[test]
fn a_unit_that_is_gone_says_so() {
    let mut scene = Scene::busy().press("l");
    scene.history.add(live(9000.0, Vec::new()));
    let text = scene.text(80, 24);
    assert!(
        text.contains("nginx.service is not among the units any more"),
        "{text}"
    );
}
