//! Facts about a scenario's closes, from the kernel itself, which it passes to its parent.

use std::io;
use std::time::Duration;

use linger_daemon::exercise::Tally;
use serde::{Deserialize, Serialize};

use crate::left::{Bound, Chance};
use crate::service::ServiceName;

/// Everything that the metrics of a scenario's process are compared with.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Truth {
    /// All closes, with the queues read by ioctl just before each.
    pub(crate) tally: Tally,
    /// The services' share of these, counted under names of their own.
    pub(crate) services: Vec<ServiceTruth>,
    /// Least time that all closes which waited under `SO_LINGER` blocked together, nanoseconds.
    pub(crate) waited_ns: u64,
    /// Of the closes that waited, those that did not run inside the closer's close(2). Closes at the end of a process
    /// do not wait.
    pub(crate) waited_not_by_close: u64,
    /// Of the closes that waited, those that found everything acknowledged, and the FIN too: they did not block.
    pub(crate) waited_for_nothing: u64,
    /// Closes whose outcome depends on the kernel's timing: only their number is known. Kernel threads make some of
    /// them.
    pub(crate) any_outcome: u64,
    /// Increments of `TCPAbortOnData` that come neither from a close nor from the loss of an orphan: late data with
    /// nothing left to deliver, linger2 after the FIN.
    pub(crate) late_aborts: u64,
    /// Increments of `TCPAbortOnTimeout` that do not come from the loss of an orphan.
    pub(crate) late_timeouts: u64,
    /// Orphans that timed out in a network namespace other than that of the counters.
    pub(crate) timed_out_elsewhere: u64,
    /// Orphans that may or may not occur, besides those of the tally.
    pub(crate) chance: Chance,
    /// Closes whose data is acknowledged before they return: orphans only under a plan that does not look at the
    /// return.
    pub(crate) acked_in_close: Bound,
    /// Most orphans that fit in the orphan table, if not all of them do.
    pub(crate) places: Option<u64>,
    /// The kernel's own counters over the scenario.
    pub(crate) counters: Counters,
}

/// The closes of a service that a scenario ran.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServiceTruth {
    pub(crate) name: ServiceName,
    pub(crate) tally: Tally,
}

/// In a tally, the cause of RSTs that answer data for a timewait socket: `late_data`, where a plan sees them.
pub(crate) const TO_REMNANT: &str = "late_data, TIME_WAIT";

/// Longest tick there is. The kernel waits in ticks, and the first may be nearly over: a wait may fall short by up to
/// this.
pub(crate) const TICK: Duration = Duration::from_nanos(TICK_NS);
/// The same in nanoseconds.
pub(crate) const TICK_NS: u64 = 10_000_000;

impl Truth {
    /// States the closes of a service.
    pub(crate) fn service(&mut self, name: ServiceName, tally: Tally) {
        self.tally.add(&tally);
        self.services.push(ServiceTruth { name, tally });
    }

    /// States that a close waited under `SO_LINGER` for at least this time.
    pub(crate) fn waited(&mut self, time: Duration) {
        let least = time.saturating_sub(TICK);
        self.waited_ns += u64::try_from(least.as_nanos()).unwrap_or(u64::MAX);
    }

    /// States that data for the timewait socket of a closed connection was answered by an RST.
    pub(crate) fn late_data_to_remnants(tally: &mut Tally, count: u64) {
        *tally.resets.entry(TO_REMNANT.into()).or_default() += count;
    }

    /// Adds the closes and orphans recorded by another thread or process.
    pub(crate) fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.waited_for_nothing += other.waited_for_nothing;
        self.chance.least.add(other.chance.least);
        self.chance.most.add(other.chance.most);
    }
}

/// Counters of TCP in a network namespace, from `/proc/net/netstat` and `/proc/net/snmp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// `TcpExtTCPAbortOnData`.
    pub(crate) abort_on_data: u64,
    /// `TcpExtTCPAbortOnClose`.
    pub(crate) abort_on_close: u64,
    /// `TcpExtTCPAbortOnLinger`.
    pub(crate) abort_on_linger: u64,
    /// `TcpExtTCPAbortOnMemory`.
    pub(crate) abort_on_memory: u64,
    /// `TcpExtTCPAbortOnTimeout`.
    pub(crate) abort_on_timeout: u64,
    /// `TcpOutRsts`: RSTs of the host's own accord, and those that answer a segment.
    pub(crate) out_resets: u64,
}

impl Counters {
    /// Reads the counters of the calling thread's network namespace.
    pub(crate) fn read() -> io::Result<Self> {
        Self::read_in("/proc/thread-self")
    }

    /// Reads the counters of the network namespace of a process.
    pub(crate) fn read_of(pid: u32) -> io::Result<Self> {
        Self::read_in(&format!("/proc/{pid}"))
    }

    fn read_in(folder: &str) -> io::Result<Self> {
        let read = |name| std::fs::read_to_string(format!("{folder}/net/{name}"));
        let (netstat, snmp) = (read("netstat")?, read("snmp")?);
        Ok(Self {
            abort_on_data: column(&netstat, "TcpExt:", "TCPAbortOnData")?,
            abort_on_close: column(&netstat, "TcpExt:", "TCPAbortOnClose")?,
            abort_on_linger: column(&netstat, "TcpExt:", "TCPAbortOnLinger")?,
            abort_on_memory: column(&netstat, "TcpExt:", "TCPAbortOnMemory")?,
            abort_on_timeout: column(&netstat, "TcpExt:", "TCPAbortOnTimeout")?,
            out_resets: column(&snmp, "Tcp:", "OutRsts")?,
        })
    }
}

/// Returns a number of a table that has a line of names above each line of numbers.
fn column(table: &str, group: &str, name: &str) -> io::Result<u64> {
    let mut lines = table.lines().filter(|line| line.starts_with(group));
    let (names, numbers) = (lines.next(), lines.next());
    let find = || {
        let position = names?
            .split_ascii_whitespace()
            .position(|word| word == name)?;
        numbers?
            .split_ascii_whitespace()
            .nth(position)?
            .parse()
            .ok()
    };
    find().ok_or_else(|| io::Error::other(format!("the kernel has no counter {group}{name}")))
}
