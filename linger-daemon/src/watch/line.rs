//! Formats events as lines of a table or as JSON.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};

use crate::event::{Close, Connection, End, FOREVER, Frame, WatchEvent};
use crate::table::{self, Column};
use crate::text::{escape_for_terminal, seconds};

pub(super) struct Lines {
    json: bool,
    coloured: bool,
}

/// The columns and their headings.
const COLUMNS: [(&str, Column); 14] = [
    ("TIME (UTC)", Column::Left(12)),
    ("PID", Column::Right(7)),
    ("COMM", Column::Left(15)),
    ("UNIT", Column::Left(24)),
    ("LOCAL", Column::Left(21)),
    ("REMOTE", Column::Left(21)),
    ("STATE", Column::Left(11)),
    ("OUTCOME", Column::Left(18)),
    ("LINGER", Column::Right(6)),
    ("UNSENT", Column::Right(8)),
    ("UNACKED", Column::Right(8)),
    ("UNREAD", Column::Right(8)),
    ("LEFT", Column::Right(8)),
    ("BLOCKED", Column::Left(0)),
];

impl Lines {
    pub(super) fn new(json: bool, terminal: bool) -> Self {
        Self {
            json,
            coloured: terminal && !json && !anstyle_query::no_color(),
        }
    }

    /// Returns the line of headings; empty for JSON.
    pub(super) fn head(&self) -> String {
        if self.json {
            return String::new();
        }
        self.line(&COLUMNS.map(|(head, _)| head.to_owned()), false)
    }

    /// Formats an event as lines.
    pub(super) fn event(&self, event: &WatchEvent) -> serde_json::Result<String> {
        if self.json {
            return Ok(serde_json::to_string(event)? + "\n");
        }
        Ok(match event {
            WatchEvent::Close(close) => self.close(close),
            WatchEvent::Orphan(end) => self.end(end),
            WatchEvent::Correction(close) => {
                let text = format!("aborted after all: {}", close.outcome);
                self.remark(close.at, &close.connection, &text, true)
            }
        })
    }

    fn close(&self, close: &Close) -> String {
        let linger = match close.linger_seconds {
            None => "off".into(),
            Some(FOREVER) => "forever".into(),
            Some(seconds) => format!("{seconds}s"),
        };
        let mut cells = who(close.at, &close.connection);
        cells.extend([
            close.state.clone(),
            close.outcome.clone(),
            linger,
            bytes(close.unsent),
            bytes(close.unacked),
            bytes(close.unread),
            bytes(close.left),
            close.blocked_seconds.map_or("?".into(), seconds),
        ]);
        let lost = close.unsent | close.unacked | close.unread != 0;
        let mut lines = self.line(&cells, lost);
        lines.extend(close.stack.iter().map(frame));
        lines
    }

    fn end(&self, end: &End) -> String {
        let lost = end.orphaned.saturating_sub(end.delivered);
        let losses = if lost > 0 {
            let (unsent, unacked) = (end.unsent, end.unacked);
            format!(", {lost} lost ({unsent} unsent, {unacked} unacked)")
        } else {
            String::new()
        };
        let text = format!(
            "after close: {}, {} of {} bytes delivered in {}{losses}",
            end.fate,
            end.delivered,
            end.orphaned,
            seconds(end.seconds)
        );
        self.remark(end.at, &end.connection, &text, lost > 0)
    }

    /// Formats a further line about a close.
    fn remark(&self, at: f64, connection: &Connection, text: &str, lost: bool) -> String {
        let mut cells = who(at, connection);
        cells.push(format!("└ {text}"));
        self.line(&cells, lost)
    }

    fn line(&self, cells: &[String], lost: bool) -> String {
        let line = table::row(&COLUMNS.map(|(_, column)| column), cells);
        if self.coloured && lost {
            let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
            return format!("{red}{line}{red:#}\n");
        }
        line + "\n"
    }
}

/// Returns the cells with which every line begins.
fn who(at: f64, connection: &Connection) -> Vec<String> {
    vec![
        time(at),
        connection.pid.to_string(),
        escape_for_terminal(&connection.comm),
        escape_for_terminal(&connection.unit),
        address(connection.local),
        address(connection.remote),
    ]
}

fn frame(frame: &Frame) -> String {
    let is_known = !frame.symbol.is_empty();
    let symbol = escape_for_terminal(if is_known { &frame.symbol } else { "?" });
    let source = escape_for_terminal(&frame.source);
    let line = format!("    {:#018x}  {symbol}  {source}", frame.address);
    line.trim_end().to_owned() + "\n"
}

/// Formats the time of day (UTC); `at` is in Unix seconds.
fn time(at: f64) -> String {
    let since = Duration::try_from_secs_f64(at).unwrap_or_default();
    let text = humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string();
    let time = text.split(['T', 'Z']).nth(1);
    time.unwrap_or_default().to_owned()
}

fn address(address: Option<SocketAddr>) -> String {
    address.map_or("-".into(), |address| address.to_string())
}

fn bytes(bytes: u32) -> String {
    match bytes {
        0 => "-".into(),
        bytes => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection {
            id: "8-5".into(),
            comm: "ng\x1b[31minx".into(),
            pid: 4711,
            tid: 4711,
            unit: "nginx.service".into(),
            container: String::new(),
            pod: String::new(),
            local: Some("127.0.0.1:80".parse().unwrap()),
            remote: None,
        }
    }

    fn text(event: &WatchEvent) -> String {
        let lines = Lines::new(false, false);
        lines.head() + &lines.event(event).unwrap()
    }

    fn close(linger_seconds: Option<u64>) -> WatchEvent {
        WatchEvent::Close(Close {
            at: 3661.5,
            connection: connection(),
            state: "established".into(),
            outcome: "linger_aborted".into(),
            linger_seconds,
            blocked_seconds: Some(0.000_012_3),
            unsent: 100,
            unacked: 0,
            unread: 0,
            left: 0,
            stack: vec![Frame {
                address: 0x1234,
                symbol: "main+0x5".into(),
                source: String::new(),
            }],
        })
    }

    #[test]
    fn a_close_is_a_line_below_the_headings() {
        let text = text(&close(Some(0)));
        let lines: Vec<_> = text.lines().collect();
        let [head, line, frame] = lines[..] else {
            panic!("three lines: {text}")
        };
        for (name, cell) in [
            ("TIME", "01:01:01.500"),
            ("COMM", "ng\\u{1b}[31minx"),
            ("UNIT", "nginx.service"),
            ("LOCAL", "127.0.0.1:80"),
            ("REMOTE", "-"),
            ("OUTCOME", "linger_aborted"),
        ] {
            let place = head.find(name).unwrap();
            let cells: String = line.chars().skip(place).collect();
            assert!(cells.starts_with(cell), "{name}: {cells}");
        }
        assert!(line.ends_with("12.3µs"), "{line}");
        assert_eq!(frame.trim(), "0x0000000000001234  main+0x5");
    }

    #[test]
    fn the_linger_time_is_a_number_off_or_forever() {
        for (time, shown) in [(None, "off"), (Some(30), "30s"), (Some(FOREVER), "forever")] {
            let text = text(&close(time));
            assert!(text.contains(&format!(" {shown} ")), "{text}");
        }
    }

    #[test]
    fn the_end_of_an_orphan_shows_what_was_lost() {
        let end = WatchEvent::Orphan(End {
            at: 0.0,
            connection: connection(),
            fate: "peer_reset".into(),
            orphaned: 100,
            delivered: 60,
            unsent: 30,
            unacked: 10,
            seconds: 1.25,
        });
        let text = text(&end);
        let expected = "└ after close: peer_reset, 60 of 100 bytes delivered in 1.25s, 40 lost (30 unsent, 10 unacked)";
        assert!(text.trim_end().ends_with(expected), "{text}");
    }
}
