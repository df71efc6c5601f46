//! The nonzero counts of a group. There are many groups, each with room for everything that can be counted, and
//! most of them count little: the zeros are looked at only once.

use std::sync::LazyLock;

use linger_ebpf::{Cause, Counters, Fate, Orphans, Outcome, QueueBytes, Times};

/// The counters of a group, and which of them have anything to show; in the order of their names.
pub(super) struct GroupCounts<'a> {
    counters: &'a Counters,
    /// A bit for each of [`OUTCOMES`] that happened.
    outcomes: u32,
    /// A bit for each of [`CAUSES`] that sent a reset.
    causes: u32,
    /// There ever was an orphan.
    has_orphans: bool,
}

impl<'a> GroupCounts<'a> {
    /// Looks at all of them.
    pub(super) fn of(counters: &'a Counters) -> Self {
        let Counters {
            resets, orphans, ..
        } = counters;
        Self {
            counters,
            outcomes: bits(&OUTCOMES, |outcome| counters.closed(outcome) > 0),
            causes: bits(&CAUSES, |cause| resets[cause.index()] > 0),
            has_orphans: orphans.total() > 0,
        }
    }

    /// Every outcome that happened.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let outcomes = those(self.outcomes, &OUTCOMES);
        outcomes.map(|outcome| (outcome, self.counters.closed(outcome)))
    }

    /// Times blocked in close: of closes that did not wait, and of those that did; none if there are none.
    pub(super) fn blocked(&self) -> [Option<&'a Times>; 2] {
        self.counters.blocked.each_ref().map(some)
    }

    /// Times to the end of orphans, if any has ended.
    pub(super) fn lived(&self) -> Option<&'a Times> {
        some(&self.counters.orphans.lived)
    }

    /// Every cause of resets, and how many they were.
    pub(super) fn resets(&self) -> impl Iterator<Item = (Cause, u64)> {
        let causes = those(self.causes, &CAUSES);
        causes.map(|cause| (cause, self.counters.resets[cause.index()]))
    }

    /// Payload thrown away from send queues, by cause; nothing if no close could have thrown any away.
    pub(super) fn losses(&self) -> impl Iterator<Item = (&'static str, QueueBytes)> {
        let is_any = self.has_orphans || self.outcomes & *DISCARDING > 0;
        let losses = LOSSES.iter().filter(move |_| is_any);
        losses.filter_map(|loss| Some((loss.name(), loss.discarded(self)?)))
    }

    /// Received payload that was never read, bytes.
    pub(super) fn unread_bytes(&self) -> u64 {
        self.counters.unread_bytes
    }

    /// Its orphans, if its closes ever left any.
    pub(super) fn orphans(&self) -> Option<&'a Orphans> {
        self.has_orphans.then_some(&self.counters.orphans)
    }

    /// Every fate, if there ever was an orphan: a loss is seen as the increase of a series that was there
    /// before.
    pub(super) fn fates(&self) -> impl Iterator<Item = (Fate, u64)> {
        let fates = FATES.iter().filter(|_| self.has_orphans);
        fates.map(|&fate| (fate, self.counters.orphans.ends[fate.index()]))
    }
}

/// Times, if there are any.
fn some(times: &Times) -> Option<&Times> {
    (times.count() > 0).then_some(times)
}

/// A bit for each of these for which something holds.
fn bits<T: Copy>(all: &[T], holds: impl Fn(T) -> bool) -> u32 {
    let bits = all.iter().enumerate();
    bits.fold(0, |bits, (at, &one)| bits | u32::from(holds(one)) << at)
}

/// The items whose bit is set.
fn those<T: Copy>(bits: u32, all: &'static [T]) -> impl Iterator<Item = T> {
    let mut left = bits;
    std::iter::from_fn(move || {
        let one = all.get(left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(*one)
    })
}

/// Values in the order of their names.
fn by_name<T: Copy>(all: impl IntoIterator<Item = T>, name: fn(T) -> &'static str) -> Vec<T> {
    let mut sorted: Vec<T> = all.into_iter().collect();
    sorted.sort_by_key(|&value| name(value));
    sorted
}

static OUTCOMES: LazyLock<Vec<Outcome>> =
    LazyLock::new(|| by_name(Outcome::ALL.iter().copied(), Outcome::name));

static FATES: LazyLock<Vec<Fate>> =
    LazyLock::new(|| by_name(Fate::ALL.iter().copied(), Fate::name));

static CAUSES: LazyLock<Vec<Cause>> =
    LazyLock::new(|| by_name(Cause::ALL.iter().copied(), Cause::name));

/// The bits of those [`OUTCOMES`] that can throw payload away.
static DISCARDING: LazyLock<u32> = LazyLock::new(|| bits(&OUTCOMES, Outcome::discards));

/// Ways in which payload queued for sending is thrown away.
#[derive(Clone, Copy)]
enum Loss {
    /// One of the [`OUTCOMES`], with its bit.
    Close(Outcome, u32),
    Orphan(Fate),
}

impl Loss {
    fn name(self) -> &'static str {
        match self {
            Self::Close(outcome, _) => outcome.name(),
            Self::Orphan(fate) => fate.name(),
        }
    }

    fn discarded(self, counted: &GroupCounts) -> Option<QueueBytes> {
        let counters = counted.counters;
        match self {
            Self::Close(outcome, bit) => {
                (counted.outcomes & bit > 0).then_some(counters.discarded(outcome))
            }
            Self::Orphan(fate) => {
                let discarded = &counters.orphans.discarded;
                counted.has_orphans.then_some(discarded[fate.index()])
            }
        }
    }
}

static LOSSES: LazyLock<Vec<Loss>> = LazyLock::new(|| {
    let outcomes = OUTCOMES.iter().enumerate();
    let closes = outcomes.filter(|(_, outcome)| outcome.discards());
    let closes = closes.map(|(at, &outcome)| Loss::Close(outcome, 1 << at));
    let fates = FATES.iter().filter(|fate| fate.discards());
    by_name(closes.chain(fates.copied().map(Loss::Orphan)), Loss::name)
});
