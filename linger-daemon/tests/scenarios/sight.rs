//! What each plan sees of the truth: the one place for what a plan cannot see.
//!
//! | | `fentry`, `kprobe` | `tracepoint` since 6.6 | `tracepoint` before |
//! | --- | --- | --- | --- |
//! | closes, bytes, resets | all | all but MPTCP's | all but MPTCP's |
//! | RSTs that answer a packet | all | since 6.10 all | of whole sockets |
//! | `linger_interrupted` | as it is | as it is, in close(2) | by what its orphan becomes in the linger time |
//! | time of a close that does not wait | always | always, up to its decision | always, up to its decision |
//! | time of a close that waits | always | in close(2) only | never |
//! | bytes an orphan begins with: the close does not wait | at its return | at its decision | at its decision |
//! | bytes an orphan begins with: the close waits | at its return | there, in close(2) | at its decision |
//!
//! A close waits if `SO_LINGER` has it wait, whether or not there is anything to wait for.
//!
//! And what a host cannot see: see [`hides_threads`].

use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use linger_daemon::exercise::Tally;
use linger_ebpf::{BLOCKED_BOUNDS_NS, Cause, Fate, Outcome, Plan};
use linger_testkit::exposition::Scrape;
use nix::unistd::geteuid;

use crate::exposition::{Counted, Histogram};
use crate::left::Homeless;
use crate::sight_orphans;
use crate::truth::{ServiceTruth, TO_REMNANT, Truth};

/// A plan on a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) plan: Plan,
    /// Whether it sees RSTs that answer packets for no whole socket.
    sees_answers: bool,
    /// How many of them it may not have counted: a soft interrupt that sends one may come upon the program itself, and
    /// before 6.10 upon any kprobe.
    missed_answers: u64,
    /// How many of them it counted for nobody.
    nobodys_answers: u64,
    /// Whether close(2) releases the socket before it returns (since 6.6).
    pub(crate) release_in_close: bool,
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
            sees_answers: plan != Plan::Tracepoint || version >= (6, 10),
            missed_answers: 0,
            nobodys_answers: 0,
            release_in_close: version >= (6, 6),
        }
    }

    /// The same, where the kernel says that it skipped so many runs of programs, and so much late data was counted
    /// for nobody.
    pub(crate) fn with_missed(self, runs: u64, nobodys: u64) -> Self {
        Self {
            missed_answers: runs,
            nobodys_answers: nobodys,
            ..self
        }
    }

    /// Whether it sees every close return. If not, it counts those that do not wait when they are decided.
    pub(crate) fn sees_everything(self) -> bool {
        self.plan != Plan::Tracepoint
    }

    /// Whether it sees closes return that wait, in close(2); and so tells those that were interrupted from those
    /// that lingered to the end.
    pub(crate) fn sees_interruptions(self) -> bool {
        self.sees_everything() || self.release_in_close
    }

    /// What the plan is to count.
    pub(crate) fn tally(self, truth: &Truth) -> Tally {
        let mut tally = self.resets(&truth.tally);
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

    /// A tally, with the RSTs that the plan sees.
    fn resets(self, tally: &Tally) -> Tally {
        let mut tally = tally.clone();
        if let Some(count) = tally.resets.remove(TO_REMNANT)
            && self.sees_answers
        {
            tally.reset(Cause::LateData, count);
        }
        tally
    }

    /// By how many the count of RSTs that answer late data may differ from these.
    fn answers(self, tally: &Tally) -> Answers {
        let remnants = tally.resets.get(TO_REMNANT).copied().unwrap_or(0);
        let rare = remnants / RARE_OF;
        Answers {
            missed: self.missed_answers + self.nobodys_answers.min(rare),
            twice: rare,
        }
    }

    /// Whether it sees RSTs that answer packets for which there is no whole socket.
    pub(crate) fn sees_answers(self) -> bool {
        self.sees_answers
    }

    fn any_outcome(self, truth: &Truth) -> u64 {
        if self.sees_everything() {
            truth.any_outcome
        } else {
            0
        }
    }

    /// How many of so many closes, which waited or did not, are to have a time.
    fn expected_times(self, truth: &Truth, waited: bool, closes: u64) -> u64 {
        match (waited, self.sees_everything(), self.release_in_close) {
            (false, ..) | (true, true, _) => closes,
            (true, false, true) => closes.saturating_sub(truth.waited_not_by_close),
            (true, false, false) => 0,
        }
    }

    /// What may be counted as lost: under `tracepoint`, the returns of closes that waited.
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
        differences.resets(&counted.tally, &expected, self.answers(&truth.tally));
        differences.compare("unread bytes", counted.tally.unread, expected.unread);
        differences.identities(counted, truth, any_outcome);
        self.times(truth, counted, &mut differences);
        sight_orphans::differences(self, truth, counted, homeless, &mut differences);
        differences.0
    }

    /// The identity 6, and the blocked times.
    fn times(self, truth: &Truth, counted: &Counted, differences: &mut Differences) {
        let mut all = 0;
        for waited in [false, true] {
            let (times, closes) = (
                counted.blocked(waited),
                counted.tally.of_those(waited).count,
            );
            let what = format!("waited={waited}");
            let expected = self.expected_times(truth, waited, closes);
            differences.compare(format!("{what}: times"), times.count, expected);
            differences.histogram(&format!("{what}: times"), &times);
            if self.any_outcome(truth) == 0 {
                differences.blocked(truth, waited, &times, expected == closes);
            }
            all += times.count;
        }
        // Whatever else the label says.
        let labelled = counted.blocked.values().map(|times| times.count).sum();
        differences.compare("times of any kind", labelled, all);
    }
}

/// Of so many connections in `TIME_WAIT`, one may answer data twice: two CPUs find it before either has taken it out
/// (`tcp_v4_rcv`, `inet_twsk_deschedule_put`). One of 262 did, in one run of some fifty on a busy host; all RSTs
/// counted there were as many as the kernel's. Likewise, who closed may have been forgotten.
const RARE_OF: u64 = 50;

/// By how many RSTs that answer data the count may differ.
#[derive(Clone, Copy, Default)]
struct Answers {
    missed: u64,
    twice: u64,
}

/// Every difference between what each service was counted to close and what it closed.
pub(crate) fn differences_of_services(sight: Sight, truth: &Truth, scrape: &Scrape) -> Vec<String> {
    let mut all = Vec::new();
    for ServiceTruth { name, tally } in &truth.services {
        let counted = Counted::of(scrape, |sample| name.is_of(sample)).tally;
        let mut differences = Differences::default();
        differences.closes(&counted, tally);
        differences.resets(&counted, &sight.resets(tally), sight.answers(tally));
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

    fn resets(&mut self, counted: &Tally, expected: &Tally, answers: Answers) {
        for cause in counted.resets.keys().chain(
            expected
                .resets
                .keys()
                .filter(|&cause| !counted.resets.contains_key(cause)),
        ) {
            let of = |tally: &Tally| tally.resets.get(cause).copied().unwrap_or(0);
            let Answers { missed, twice } = if cause == Cause::LateData.name() {
                answers
            } else {
                Answers::default()
            };
            let expected = of(expected);
            let bounds = (expected.saturating_sub(missed), expected + twice);
            self.between(format!("{cause}: resets"), of(counted), bounds);
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

    /// The sum of a histogram's times, by its buckets.
    pub(crate) fn histogram(&mut self, what: &str, times: &Histogram) {
        self.between(format!("{what}: sum in ns"), times.sum_ns, times.range());
    }

    /// No close can have blocked for longer than the calls around it took; nor for less than it waited, if all have a
    /// time.
    fn blocked(&mut self, truth: &Truth, waited: bool, times: &Histogram, all: bool) {
        let called = truth.tally.of_those(waited);
        let least = if waited { truth.waited_ns } else { 0 };
        let (quick, least) = if all { (called.quick, least) } else { (0, 0) };
        self.between(
            format!("waited={waited}: times within the first bound"),
            times.up_to(BLOCKED_BOUNDS_NS[0]),
            (quick, u64::MAX),
        );
        self.between(
            format!("waited={waited}: blocked for ns"),
            times.sum_ns,
            (least, called.blocked_ns),
        );
    }
}
