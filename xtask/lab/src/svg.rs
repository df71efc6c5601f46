//! Texts and numbers of pictures in SVG.

use std::fmt::Write as _;

/// Writes a text, of a class unless that is empty; `anchor` is the part of it that stands at the point.
pub(crate) fn text(svg: &mut String, class: &str, anchor: &str, (x, y): (f64, f64), text: &str) {
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    let text = escape(text);
    let _ = writeln!(
        svg,
        "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

/// Escapes a text for an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

/// Returns a number of things to be drawn, to calculate with.
#[expect(clippy::cast_precision_loss, reason = "there are few")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}
