//! What each plan sees of the truth, with all its limits in one place.
//!
//! | | `fentry`, `kprobe` | `tracepoint` since 6.6 | `tracepoint` before |
//! | --- | --- | --- | --- |
//! | closes, bytes, resets | all | all but MPTCP's | all but MPTCP's |
//! | RSTs that answer a packet | all | since 6.10 all | of full sockets |
//! | `linger_interrupted` | as it is | as it is, in close(2) | by the fate of its orphan in the linger time |
//! | time of a close that does not wait | always | always, up to its decision | always, up to its decision |
//! | time of a close that waits | always | in close(2) only | never |
//! | bytes an orphan begins with: the close does not wait | at its return | at its decision | at its decision |
//! | bytes an orphan begins with: the close waits | at its return | there, in close(2) | at its decision |
//!
//! A close waits if `SO_LINGER` has it wait, whether or not there is anything to wait for.
//!
//! See [`hides_threads`] for the limits of a host.

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
use crate::tallies::{OrphanParts as _, Parts as _};
use crate::truth::{ServiceTruth, TICK_NS, TO_REMNANT, Truth};

/// A plan on a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) plan: Plan,
    /// Whether it sees RSTs that answer packets for which there is no full socket.
    sees_answers: bool,
    /// Runs of programs skipped by the kernel, each of which may hide such an RST: the soft interrupt that sends one
    /// may interrupt the program itself, and before 6.10 any kprobe.
    missed_answers: u64,
    /// RSTs for late data that it counted for nobody.
    nobodys_answers: u64,
    /// Whether close(2) releases the socket before it returns (since 6.6).
    pub(crate) release_in_close: bool,
}

/// Returns whether this host hides its first process from root, as managed virtual machines do with their agent. Its
/// kernel then runs no BPF program of any kind in the threads of that process, nor in a soft interrupt that interrupts
/// one, so ends of orphans there are not seen.
pub(crate) fn hides_threads() -> bool {
    let denied = fs::read("/proc/1/io").err().map(|error| error.kind());
    geteuid().is_root() && denied == Some(io::ErrorKind::PermissionDenied)
}

/// Missing ends of orphans, forgiven since the last [`take_forgiven`].
static FORGIVEN: AtomicU64 = AtomicU64::new(0);

/// Forgives this many missing ends, which this host hides.
pub(crate) fn forgive(ends: u64) {
    FORGIVEN.fetch_add(ends, Ordering::Relaxed);
}

/// Returns how many ends were forgiven since the last call.
pub(crate) fn take_forgiven() -> u64 {
    FORGIVEN.swap(0, Ordering::Relaxed)
}

impl Sight {
    /// Returns the sight of a plan on the kernel of this release.
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

    /// Sets the runs of programs that the kernel says it skipped, and the late data that was counted for nobody.
    pub(crate) fn with_missed(self, runs: u64, nobodys: u64) -> Self {
        Self {
            missed_answers: runs,
            nobodys_answers: nobodys,
            ..self
        }
    }

    /// Returns whether it sees the return of every close. Otherwise it counts closes that do not wait at their
    /// decision.
    pub(crate) fn sees_everything(self) -> bool {
        self.plan != Plan::Tracepoint
    }

    /// Returns whether it sees the return of closes that wait in close(2), and so can tell the interrupted ones from
    /// those that lingered to the end.
    pub(crate) fn sees_interruptions(self) -> bool {
        self.sees_everything() || self.release_in_close
    }

    /// Returns what the plan must count.
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

    /// Returns a tally with the RSTs that the plan sees.
    fn resets(self, tally: &Tally) -> Tally {
        let mut tally = tally.clone();
        if let Some(count) = tally.resets.remove(TO_REMNANT)
            && self.sees_answers
        {
            tally.reset(Cause::LateData, count);
        }
        tally
    }

    /// Returns by how many the count of RSTs that answer late data may differ.
    fn answers(self, tally: &Tally) -> Answers {
        let remnants = tally.resets.get(TO_REMNANT).copied().unwrap_or(0);
        let rare = remnants / RARE_OF;
        Answers {
            missed: self.missed_answers + self.nobodys_answers.min(rare),
            twice: rare,
        }
    }

    /// Returns whether it sees RSTs that answer packets for which there is no full socket.
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

    /// Returns how many of these closes, which waited or did not, must have a time.
    fn expected_times(self, truth: &Truth, waited: bool, closes: u64) -> u64 {
        match (waited, self.sees_everything(), self.release_in_close) {
            (false, ..) | (true, true, _) => closes,
            (true, false, true) => closes.saturating_sub(truth.waited_not_by_close),
            (true, false, false) => truth.waited_for_nothing,
        }
    }

    /// Returns whether this may be counted as lost: under `tracepoint`, the returns of closes that waited.
    pub(crate) fn may_lose(self, what: &str) -> bool {
        !self.sees_everything() && what == "return"
    }

    /// Returns every difference between the counts and the truth. `homeless` are the orphans that found no place in the
    /// table meanwhile.
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

    /// Checks identity 6, and the blocked times.
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
        // Whatever the other labels are.
        let labelled = counted.blocked.values().map(|times| times.count).sum();
        differences.compare("times of any kind", labelled, all);
    }
}

/// Of this many connections in `TIME_WAIT`, one may answer data twice: two CPUs find it before either has removed it
/// (`tcp_v4_rcv`, `inet_twsk_deschedule_put`). One of 262 did, in one run of some fifty on a busy host, where the total
/// of RSTs counted matched the kernel's. Likewise, the closer of one may have been forgotten.
const RARE_OF: u64 = 50;

/// Limits by which the count of RSTs that answer data may differ.
#[derive(Clone, Copy, Default)]
struct Answers {
    missed: u64,
    twice: u64,
}

/// Returns every difference between the counts of each service from one scrape to another and its closes.
pub(crate) fn differences_of_services(
    sight: Sight,
    truth: &Truth,
    before: &Scrape,
    after: &Scrape,
) -> Vec<String> {
    let mut all = Vec::new();
    for ServiceTruth { name, tally } in &truth.services {
        let counted = |scrape| Counted::of(scrape, |sample| name.is_of(sample));
        let counted = counted(after).since(&counted(before)).tally;
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

    /// As `compare`, for a range of correct values.
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

    /// Compares the counts with the kernel's own counters.
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
        // MPTCP aborts subflows in its own ways.
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

    /// Checks the sum of a histogram against its buckets.
    pub(crate) fn histogram(&mut self, what: &str, times: &Histogram) {
        self.between(format!("{what}: sum in ns"), times.sum_ns, times.range());
    }

    /// Checks the blocked times: no close can have blocked for longer than the calls around it took, nor, if all have a
    /// time, for less than it waited.
    fn blocked(&mut self, truth: &Truth, waited: bool, times: &Histogram, all: bool) {
        let called = truth.tally.of_those(waited);
        // Where timer interrupts come late, as in an emulated machine under load, the kernel's ticks fall behind the
        // clock, and a wait falls short by more than one.
        let ticks_behind = called.blocked_ns.saturating_sub(TICK_NS);
        let least = if waited {
            truth.waited_ns.min(ticks_behind)
        } else {
            0
        };
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
