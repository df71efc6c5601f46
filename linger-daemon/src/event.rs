//! Events of single closes, decoded from the ring buffer.

mod recent;
mod ring;
mod time;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use linger_ebpf::{Event, Fate, Outcome, event_kind};
use serde::{Deserialize, Serialize};

pub use self::recent::{MAX_RECENT, RecentCloses};
pub(crate) use self::ring::{LEASE, RING_EVENTS};
pub use self::ring::{WatchError, Watcher};
pub use self::time::Clock;
use crate::attribution::{Names, comm};

/// An event for watchers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum WatchEvent {
    /// A close returned.
    Close(Close),
    /// The orphan of a close ended.
    Orphan(End),
    /// A close that was reported as graceful or lingered aborted after all.
    Correction(Close),
}

/// The connection, and who closed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Identifies the close: the same in all its events.
    pub id: String,
    /// The name of the process; empty if no process closed.
    pub comm: String,
    /// The process id, in the initial namespace.
    pub pid: u32,
    /// The thread id.
    pub tid: u32,
    /// The systemd unit, as in the metrics' label.
    pub unit: String,
    /// The container; empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The pod; empty if none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The local address, if known.
    pub local: Option<SocketAddr>,
    /// The remote address, if there was a peer.
    pub remote: Option<SocketAddr>,
}

/// A close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Close {
    /// When it began, seconds of the Unix epoch.
    pub at: f64,
    /// The closed connection.
    #[serde(flatten)]
    pub connection: Connection,
    /// The state of the connection at the decision, as named by the kernel.
    pub state: String,
    /// How it ended, as in the metrics' label.
    pub outcome: String,
    /// The time of `SO_LINGER`, seconds, 2,147,483,647 if it has no end; `None` if it was off.
    pub linger_seconds: Option<u64>,
    /// Time from entry to return, seconds; `None` if the return was not seen.
    pub blocked_seconds: Option<f64>,
    /// Payload discarded, never sent, bytes.
    pub unsent: u32,
    /// Payload discarded, sent and not acknowledged, bytes.
    pub unacked: u32,
    /// Received payload discarded unread, bytes.
    pub unread: u32,
    /// Payload left behind, unsent or unacknowledged, bytes.
    pub left: u32,
    /// The user stack, innermost first, if requested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Frame>,
}

/// Stands for a time of `SO_LINGER` without end, that of a negative number of seconds: the longest that a program can
/// set.
///
/// kernel: v6.6.. net/core/sock.c: `sk_setsockopt` takes a negative time for `MAX_SCHEDULE_TIMEOUT`
pub(crate) const FOREVER: u64 = i32::MAX as u64;

/// A stack frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The address.
    pub address: u64,
    /// The function and offset; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub symbol: String,
    /// The file and line; empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// The end of an orphan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When it ended, seconds of the Unix epoch.
    pub at: f64,
    /// The closed connection.
    #[serde(flatten)]
    pub connection: Connection,
    /// Its fate, as in the metrics' label.
    pub fate: String,
    /// Payload that its close left behind, bytes.
    pub orphaned: u32,
    /// Of that, acknowledged by the peer since, bytes.
    pub delivered: u32,
    /// Of that, discarded, never sent, bytes.
    pub unsent: u32,
    /// Of that, discarded, sent and not acknowledged, bytes.
    pub unacked: u32,
    /// Time from the close's return to the end, seconds.
    pub seconds: f64,
}

/// The names of TCP states, by their numbers (`include/net/tcp_states.h`).
const STATES: [&str; 13] = [
    "",
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

/// Decodes an event. `names` are those of its cgroup.
#[must_use]
pub fn decode(event: &Event, names: Option<&Names>, clock: &Clock) -> WatchEvent {
    match event.kind {
        event_kind::END => WatchEvent::Orphan(end(event, names, clock)),
        event_kind::CORRECTION => WatchEvent::Correction(close(event, names, clock)),
        _ => WatchEvent::Close(close(event, names, clock)),
    }
}

fn close(event: &Event, names: Option<&Names>, clock: &Clock) -> Close {
    let frames = usize::try_from(event.stack_bytes).unwrap_or(0) / size_of::<u64>();
    let stack = event.stack.iter().take(frames);
    let state = STATES.get(usize::from(event.state));
    let outcome = Outcome::ALL.get(usize::from(event.outcome));
    Close {
        at: clock.unix(event.start_ns),
        connection: connection(event, names),
        state: state.copied().unwrap_or_default().to_owned(),
        outcome: outcome.map_or("", |outcome| outcome.name()).to_owned(),
        linger_seconds: (event.linger != u64::MAX)
            .then(|| clock.seconds_of(event.linger).min(FOREVER)),
        blocked_seconds: blocked_ns(event).map(seconds),
        unsent: event.unsent,
        unacked: event.unacked,
        unread: event.unread,
        left: event.left,
        stack: stack
            .map(|&address| Frame {
                address,
                ..Frame::default()
            })
            .collect(),
    }
}

fn end(event: &Event, names: Option<&Names>, clock: &Clock) -> End {
    let fate = Fate::ALL.get(usize::from(event.fate));
    let thrown_away = event.end_unsent.saturating_add(event.end_unacked);
    End {
        at: clock.unix(event.start_ns + blocked_ns(event).unwrap_or(0) + event.lived_ns),
        connection: connection(event, names),
        fate: fate.map_or("", |fate| fate.name()).to_owned(),
        orphaned: event.left,
        delivered: event.left.saturating_sub(thrown_away),
        unsent: event.end_unsent,
        unacked: event.end_unacked,
        seconds: seconds(event.lived_ns),
    }
}

/// Time from entry to return; `None` if the return was not seen.
fn blocked_ns(event: &Event) -> Option<u64> {
    (event.blocked_ns != u64::MAX).then_some(event.blocked_ns)
}

fn connection(event: &Event, names: Option<&Names>) -> Connection {
    let name = |name: fn(&Names) -> &String| names.map(name).cloned().unwrap_or_default();
    Connection {
        id: format!("{}-{}", event.tid, event.start_ns),
        comm: comm(event.comm),
        pid: event.tgid,
        tid: event.tid,
        unit: name(|names| &names.unit),
        container: name(|names| &names.container),
        pod: name(|names| &names.pod),
        local: address(event.local, event.local_port),
        remote: address(event.remote, event.remote_port),
    }
}

/// An address and port; `None` without a port, which every socket has once it is bound.
fn address(words: [u32; 4], port: u16) -> Option<SocketAddr> {
    let mut bytes = [0; 16];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = Ipv6Addr::from(bytes);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    (port != 0).then(|| SocketAddr::new(ip, port))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact to a nanosecond for some months, and less exact beyond"
)]
pub(crate) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            comm: [u64::from_ne_bytes(*b"nginx\0\xff\xff"), 0],
            start_ns: 5_000_000_000,
            blocked_ns: 250_000_000,
            lived_ns: 1_500_000_000,
            linger: u64::MAX,
            local: [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([127, 0, 0, 1])],
            local_port: 80,
            remote: [0, 0, 0, 1_u32.to_be()],
            remote_port: 4242,
            tgid: 7,
            tid: 8,
            unsent: 3,
            left: 100,
            end_unsent: 30,
            end_unacked: 20,
            state: 8,
            outcome: Outcome::LingerTimeout as u8,
            fate: Fate::PeerReset as u8,
            ..Event::ZERO
        }
    }

    #[test]
    fn a_close_is_decoded_and_survives_json() {
        let clock = Clock::new(1000.0, 250);
        let names = Names::of("/system.slice/web.service");
        let decoded = decode(&event(), Some(&names), &clock);
        let json = serde_json::to_value(&decoded).unwrap();
        let expected = serde_json::json!({
            "event": "close", "at": 1005.0, "id": "8-5000000000", "comm": "nginx", "pid": 7,
            "tid": 8, "unit": "web.service", "local": "127.0.0.1:80", "remote": "[::1]:4242",
            "state": "close_wait", "outcome": "linger_timeout", "linger_seconds": null,
            "blocked_seconds": 0.25, "unsent": 3, "unacked": 0, "unread": 0, "left": 100,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<WatchEvent>(json).unwrap(), decoded);
    }

    #[test]
    fn an_end_is_decoded_with_the_delivered_bytes() {
        let event = Event {
            kind: event_kind::END,
            ..event()
        };
        let WatchEvent::Orphan(end) = decode(&event, None, &Clock::new(0.0, 250)) else {
            panic!("an end is told as one")
        };
        assert_eq!((end.orphaned, end.delivered), (100, 50));
        assert_eq!(end.fate, "peer_reset");
        assert!((end.at - 6.75).abs() < 1e-9, "{}", end.at);
        assert_eq!(end.connection.unit, "");
    }

    #[test]
    fn times_may_be_unknown_or_without_end() {
        // `MAX_SCHEDULE_TIMEOUT`
        let endless = i64::MAX.cast_unsigned();
        for (linger, linger_seconds, blocked_ns, blocked) in [
            (u64::MAX, None, u64::MAX, None),
            (500, Some(2), 0, Some(0.0)),
            (endless, Some(2_147_483_647), 500_000_000, Some(0.5)),
        ] {
            let event = Event {
                linger,
                blocked_ns,
                remote_port: 0,
                ..event()
            };
            let WatchEvent::Close(close) = decode(&event, None, &Clock::new(0.0, 250)) else {
                panic!("a close is told as one")
            };
            assert_eq!(close.linger_seconds, linger_seconds);
            assert_eq!(close.connection.remote, None);
            let json = serde_json::to_value(close).unwrap();
            assert_eq!(json["blocked_seconds"], serde_json::json!(blocked));
        }
    }
}
