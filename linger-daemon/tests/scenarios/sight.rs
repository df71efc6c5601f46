//! What each plan sees of the truth: the one place for what a plan cannot see.
//!
//! | | `fentry`, `kprobe` | `tracepoint` since 6.6 | `tracepoint` before |
//! | --- | --- | --- | --- |
//! | closes, bytes, resets | all | all but MPTCP's | all but MPTCP's |
//! | `linger_interrupted` | as it is | as it is | by what its orphan becomes in the linger time |
//! | time of a close | always | in close(2) only | never |
//! | bytes an orphan begins with | at the close's return | there, in close(2) | at its decision |
//!
//! And what a host cannot see: see [`hides_threads`].

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use linger_daemon::exercise::Tally;
use linger_ebpf::{BUCKET_BOUNDS_NS, Fate, Outcome, Plan};
use linger_testkit::exposition::Scrape;
use nix::unistd::geteuid;

use crate::exposition::Counted;
use crate::left::Homeless;
use crate::sight_orphans;
use crate::truth::{ServiceTruth, Truth};

/// A plan on a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) plan: Plan,
    /// Whether close(2) releases the socket before it returns (since 6.6).
    pub(crate) release_in_close: bool,
}

/// What of a number of closes has its time in the histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timed {
    All,
    AllBut(u64),
    None,
}

/// Whether this host hides its first process from root, as managed virtual machines do with their
/// agent: its kernel then runs no BPF program, of whatever kind, in the context of that process's
/// threads, nor in a soft interrupt that strikes one. What ends an orphan there is not seen.
pub(crate) fn hides_threads() -> bool {
    let denied = fs::read("/proc/1/io").err().map(|error| error.kind());
    geteuid().is_root() && denied == Some(io::ErrorKind::PermissionDenied)
}

/// Ends of orphans that were missing, and are forgiven since this was last asked.
static FORGIVEN: AtomicU64 = AtomicU64::new(0);

/// Forgives that so many ends are missing: this host hides them.
pub(crate) fn forgive(ends: u64) {
    FORGIVEN.fetch_add(ends, Ordering::Relaxed);
}

/// How many were forgiven since this was last asked.
pub(crate) fn take_forgiven() -> u64 {
    FORGIVEN.swap(0, Ordering::Relaxed)
}

impl Sight {
    /// The sight of a plan on the kernel of this release.
    pub(crate) fn new(plan: Plan, release: &str) -> Self {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        let mut next = || numbers.next().and_then(|number| number.parse().ok());
        let version: (u32, u32) = (next().unwrap_or(0), next().unwrap_or(0));
        Self {
            plan,
            release_in_close: version >= (6, 6),
        }
    }

    fn sees_everything(self) -> bool {
        self.plan != Plan::Tracepoint
    }

    /// Whether it tells closes that were interrupted from those that lingered to the end.
    pub(crate) fn sees_interruptions(self) -> bool {
        self.sees_everything() || self.release_in_close
    }

    /// What the plan is to count.
    fn tally(self, truth: &Truth) -> Tally {
        let mut tally = truth.tally.clone();
        if !self.sees_interruptions() {
            let interrupted = tally.closes.remove(Outcome::LingerInterrupted.name());
            if let Some(interrupted) = interrupted {
                // In the scenarios the data of such closes arrives in time.
                let lingered = Outcome::Lingered.name().to_owned();
                let closes = tally.closes.entry(lingered).or_default();
                closes.count += interrupted.count;
            }
        }
        tally
    }

    fn any_outcome(self, truth: &Truth) -> u64 {
        if self.sees_everything() {
            truth.any_outcome
        } else {
            0
        }
    }

    fn timed(self, truth: &Truth) -> Timed {
        match (self.sees_everything(), self.release_in_close) {
            (true, _) => Timed::All,
            (false, true) => Timed::AllBut(truth.not_by_close),
            (false, false) => Timed::None,
        }
    }

    /// What may be counted as lost: under `tracepoint`, the returns of closes without a time.
    pub(crate) fn may_lose(self, what: &str) -> bool {
        !self.sees_everything() && what == "return"
    }

    /// Every difference between what was counted and what is true. None is good. `homeless` are the
    /// orphans that found no place meanwhile.
    pub(crate) fn differences(
        self,
        truth: &Truth,
        counted: &Counted,
        homeless: Homeless,
    ) -> Vec<String> {
        let mut differences = Differences::default();
        let expected = self.tally(truth);
        let any_outcome = self.any_outcome(truth);
        if any_outcome > 0 {
            let total = counted.tally.total().count;
            differences.compare("closes", total, any_outcome + expected.total().count);
        } else {
            differences.closes(&counted.tally, &expected);
        }
        differences.resets(&counted.tally, &expected);
        differences.compare("unread bytes", counted.tally.unread, expected.unread);
        differences.identities(counted, truth, any_outcome);
        self.times(truth, counted, &mut differences);
        sight_orphans::differences(self, truth, counted, homeless, &mut differences);
        differences.0
    }

    /// The identity "histogram count of an outcome = its closes", and the blocked times.
    fn times(self, truth: &Truth, counted: &Counted, differences: &mut Differences) {
        let timed: u64 = counted.timed.values().sum();
        let total = counted.tally.total().count;
        match self.timed(truth) {
            Timed::All => {
                for (outcome, closes) in &counted.tally.closes {
                    let timed = counted.timed.get(outcome).copied().unwrap_or(0);
                    differences.compare(format!("{outcome}: times"), timed, closes.count);
                }
            }
            Timed::AllBut(missing) => differences.compare("times", timed + missing, total),
            Timed::None => differences.compare("times", timed, 0),
        }
        for (outcome, closes) in &counted.tally.closes {
            let range = counted.blocked_by_histogram(outcome);
            let what = format!("{outcome}: the sum of times, by their histogram");
            differences.between(what, closes.blocked_ns, range);
        }
        if timed == total && self.any_outcome(truth) == 0 {
            differences.blocked(truth, counted);
        }
    }
}

/// Every difference between what each service was counted to close and what it closed.
pub(crate) fn differences_of_services(truth: &Truth, scrape: &Scrape) -> Vec<String> {
    let mut all = Vec::new();
    for ServiceTruth { name, tally } in &truth.services {
        let counted = Counted::of(scrape, |sample| name.is_of(sample)).tally;
        let mut differences = Differences::default();
        differences.closes(&counted, tally);
        differences.resets(&counted, tally);
        differences.compare("unread bytes", counted.unread, tally.unread);
        let differences = differences.0.iter();
        all.extend(differences.map(|difference| format!("{name}: {difference}")));
    }
    all
}

#[derive(Default)]
pub(crate) struct Differences(Vec<String>);

impl Differences {
    pub(crate) fn compare(&mut self, what: impl AsRef<str>, counted: u64, expected: u64) {
        self.between(what, counted, (expected, expected));
    }

    /// As `compare`, with the least and the most that are right.
    pub(crate) fn between(
        &mut self,
        what: impl AsRef<str>,
        counted: u64,
        (least, most): (u64, u64),
    ) {
        if counted < least || counted > most {
            let what = what.as_ref();
            let expected = if least == most {
                least.to_string()
            } else {
                format!("{least} to {most}")
            };
            self.0
                .push(format!("{what}: counted {counted}, expected {expected}"));
        }
    }

    fn closes(&mut self, counted: &Tally, expected: &Tally) {
        for outcome in counted.closes.keys().chain(
            expected
                .closes
                .keys()
                .filter(|&outcome| !counted.closes.contains_key(outcome)),
        ) {
            let of = |tally: &Tally| tally.closes.get(outcome).copied().unwrap_or_default();
            let (counted, expected) = (of(counted), of(expected));
            self.compare(format!("{outcome}: closes"), counted.count, expected.count);
            self.compare(
                format!("{outcome}: unsent"),
                counted.unsent,
                expected.unsent,
            );
            self.compare(
                format!("{outcome}: unacked"),
                counted.unacked,
                expected.unacked,
            );
        }
    }

    fn resets(&mut self, counted: &Tally, expected: &Tally) {
        for cause in counted.resets.keys().chain(
            expected
                .resets
                .keys()
                .filter(|&cause| !counted.resets.contains_key(cause)),
        ) {
            let of = |tally: &Tally| tally.resets.get(cause).copied().unwrap_or(0);
            self.compare(format!("{cause}: resets"), of(counted), of(expected));
        }
    }

    /// What was counted against the kernel's own counters.
    fn identities(&mut self, counted: &Counted, truth: &Truth, any_outcome: u64) {
        let counters = &truth.counters;
        let of = |outcome| counted.tally.of(outcome).count;
        let fated = |fate| counted.tally.orphans.of(fate).count;
        let resets: u64 = counted.tally.resets.values().sum();
        if resets > counters.out_resets {
            let sent = counters.out_resets;
            self.0
                .push(format!("{resets} resets counted, the kernel sent {sent}"));
        }
        // MPTCP aborts subflows in ways of its own.
        if any_outcome > 0 {
            return;
        }
        self.compare(
            "TCPAbortOnData",
            of(Outcome::LingerAborted) + fated(Fate::LateData) + truth.late_aborts,
            counters.abort_on_data,
        );
        self.compare(
            "TCPAbortOnClose",
            of(Outcome::UnreadAborted),
            counters.abort_on_close,
        );
        self.compare(
            "TCPAbortOnLinger",
            of(Outcome::Linger2Aborted),
            counters.abort_on_linger,
        );
        self.compare(
            "TCPAbortOnMemory",
            of(Outcome::MemoryAborted) + fated(Fate::OrphanResources),
            counters.abort_on_memory,
        );
    }

    /// No close can have blocked for longer than the calls around it took, nor for less than it
    /// waited.
    fn blocked(&mut self, truth: &Truth, counted: &Counted) {
        for (outcome, closes) in &counted.tally.closes {
            let called = truth.tally.closes.get(outcome).copied();
            let called = called.unwrap_or_default();
            let quick = counted.within.get(outcome);
            let quick = quick.and_then(|within| within.get(&BUCKET_BOUNDS_NS[0]));
            let what = format!("{outcome}: times within the first bound");
            self.between(what, quick.copied().unwrap_or(0), (called.quick, u64::MAX));
            let most = called.blocked_ns;
            let least = truth.waited_ns.get(outcome).copied().unwrap_or(0);
            let blocked = closes.blocked_ns;
            if blocked < least || blocked > most {
                self.0.push(format!(
                    "{outcome}: blocked for {blocked} ns, expected {least} to {most}"
                ));
            }
        }
    }
}
