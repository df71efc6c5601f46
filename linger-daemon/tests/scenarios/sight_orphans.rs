//! What each plan sees of orphans, compared with the truth, and orphans' numbers with one another.

use anyhow::{Result, ensure};
use linger_daemon::exercise::{FateTally, OrphanTally};
use linger_ebpf::{Cause, Fate, Outcome};
use linger_testkit::exposition::Scrape;

use crate::exposition::{Counted, Histogram};
use crate::left::{Bound, Chance, Homeless, UNACKED_MESSAGE};
use crate::sight::{Differences, Sight, hides_threads};
use crate::tallies::{OrphanParts as _, Parts as _, discarded};
use crate::truth::Truth;

impl Sight {
    /// Returns the orphans that the plan must count, besides those that depend on chance.
    fn orphans(self, truth: &Truth) -> OrphanTally {
        let mut sum = truth.tally.orphans.clone();
        if !self.sees_interruptions() {
            // It counts interrupted closes as lingered: in the scenarios their data, a message each, arrives within the
            // linger time.
            let mut interrupted = OrphanTally::default();
            for _ in 0..truth.tally.of(Outcome::LingerInterrupted).count {
                interrupted.delivered(UNACKED_MESSAGE);
            }
            sum = sum.since(&interrupted);
        }
        if !self.sees_everything() {
            // Outstanding when the close is decided: none of these closes waits.
            let Bound { orphans, bytes } = truth.acked_in_close;
            let delivered = FateTally {
                count: orphans,
                ..FateTally::default()
            };
            sum.end(Fate::Delivered.name(), delivered);
            sum.bytes += bytes;
            sum.delivered += bytes;
        }
        sum
    }

    /// Returns the scenario's own among the orphans that found no place. Where orphans begin at the decision of a
    /// close, the harness's own connections to the daemon leave some, too.
    fn homeless(
        self,
        expected: &OrphanTally,
        counted: &OrphanTally,
        homeless: Homeless,
    ) -> Homeless {
        if self.sees_everything() {
            return homeless;
        }
        let (expected, counted) = (expected.of(Fate::PeerReset), counted.of(Fate::PeerReset));
        let bytes = discarded(expected).saturating_sub(discarded(counted));
        Homeless {
            count: homeless
                .count
                .min(expected.count.saturating_sub(counted.count)),
            bytes: homeless.bytes.min(bytes),
        }
    }

    fn chance(self, truth: &Truth) -> Chance {
        // It counts all of those as orphans in any case.
        if truth.acked_in_close.orphans > 0 && !self.sees_everything() {
            Chance::default()
        } else {
            truth.chance
        }
    }
}

/// Adds every difference between the orphans counted and the true ones. `homeless` are those that found no place since
/// the scenario began.
pub(crate) fn differences(
    sight: Sight,
    truth: &Truth,
    counted: &Counted,
    homeless: Homeless,
    differences: &mut Differences,
) {
    numbers(counted, differences);
    // MPTCP may have the kernel close with data not yet acknowledged.
    if truth.any_outcome > 0 {
        return;
    }
    let (expected, chance) = (sight.orphans(truth), sight.chance(truth));
    let homeless = sight.homeless(&expected, &counted.tally.orphans, homeless);
    let orphans = with_homeless(truth, &counted.tally.orphans, homeless, differences);
    for fate in Fate::ALL {
        let (counted, expected) = (orphans.of(*fate), expected.of(*fate));
        let (least, most) = match fate {
            Fate::Delivered => (chance.least.orphans, chance.most.orphans),
            _ => (0, 0),
        };
        let fate = fate.name();
        let range = (expected.count + least, expected.count + most);
        differences.between(format!("{fate}: orphans"), counted.count, range);
        differences.compare(format!("{fate}: unsent"), counted.unsent, expected.unsent);
        differences.compare(
            format!("{fate}: unacked"),
            counted.unacked,
            expected.unacked,
        );
    }
    let (least, most) = (chance.least.bytes, chance.most.bytes);
    for (what, counted, expected) in [
        ("orphaned bytes", orphans.bytes, expected.bytes),
        ("delivered bytes", orphans.delivered, expected.delivered),
    ] {
        differences.between(what, counted, (expected + least, expected + most));
    }
    kernel(counted, truth, differences);
}

/// Where the host hides threads, completes the counts with the ends of orphans that it hid: they are few, their
/// beginnings were seen, and everything else must still agree. Returns the counts and how many ends were hidden.
pub(crate) fn with_hidden_ends(
    sight: Sight,
    truth: &Truth,
    counted: &Counted,
) -> Option<(Counted, u64)> {
    const MOST: u64 = 3;
    /// Scenarios with at least this many orphans may have one taken for another.
    const MANY: u64 = 100;
    let (mut expected, chance) = (sight.orphans(truth), sight.chance(truth));
    let orphans = &counted.tally.orphans;
    // When the next socket at its address leaves something behind, a record is given up or taken for that socket's.
    let missing = Fate::ALL.iter().map(|fate| {
        let expected = expected.of(*fate).count;
        expected.saturating_sub(orphans.of(*fate).count)
    });
    let left_over = orphans.of(Fate::Unknown).count + counted.under_way.unsigned_abs();
    let hidden = left_over.max(missing.sum());
    let begun = orphans
        .total()
        .count
        .checked_add_signed(counted.under_way)?;
    let is_mistaken = |fate: &Fate| {
        let most = if *fate == Fate::Delivered {
            chance.most.orphans
        } else {
            0
        };
        *fate != Fate::Unknown && orphans.of(*fate).count > expected.of(*fate).count + most
    };
    let any_mistaken = expected.total().count < MANY && Fate::ALL.iter().any(is_mistaken);
    let least = expected.total().count + chance.least.orphans;
    let most = expected.total().count + chance.most.orphans;
    let bytes = expected.bytes + chance.least.bytes..=expected.bytes + chance.most.bytes;
    if !hides_threads()
        || any_mistaken
        || !(1..=MOST).contains(&hidden)
        || !(least..=most).contains(&begun)
        || !bytes.contains(&orphans.bytes)
    {
        return None;
    }
    expected.end(
        Fate::Delivered.name(),
        FateTally {
            count: begun - expected.total().count,
            ..FateTally::default()
        },
    );
    expected.delivered += orphans.bytes - expected.bytes;
    expected.bytes = orphans.bytes;
    let mut completed = counted.clone();
    // Their durations are not known.
    completed.lived = Histogram {
        count: expected.total().count,
        ..Histogram::default()
    };
    // An RST that caused such an end, or answered it, was not seen either.
    let late = Cause::LateData.name();
    let answered = sight.tally(truth).resets.get(late).copied().unwrap_or(0);
    let resets = completed.tally.resets.entry(late.into());
    let resets = resets.or_default();
    *resets = answered.clamp(*resets, *resets + hidden);
    completed.tally.resets.retain(|_, count| *count > 0);
    completed.tally.orphans = expected;
    completed.under_way = 0;
    Some((completed, hidden))
}

/// Checks identity 5 once all orphans have ended, and that the histogram's count is that of ended orphans.
fn numbers(counted: &Counted, differences: &mut Differences) {
    let orphans = &counted.tally.orphans;
    differences.compare("orphans under way", counted.under_way.unsigned_abs(), 0);
    differences.compare(
        "orphaned bytes against delivered and discarded",
        orphans.bytes,
        orphans.delivered + discarded(orphans.total()),
    );
    let (timed, ended) = (counted.lived.count, orphans.total().count);
    differences.compare("times of orphans", timed, ended);
    differences.histogram("times of orphans", &counted.lived);
}

/// Returns the orphans counted, with those that found no place under their fate.
fn with_homeless(
    truth: &Truth,
    counted: &OrphanTally,
    homeless: Homeless,
    differences: &mut Differences,
) -> OrphanTally {
    let mut orphans = counted.clone();
    let Some(places) = truth.places else {
        return orphans;
    };
    differences.between("orphans with a place", counted.total().count, (1, places));
    // The scenario resets them all.
    let ended = FateTally {
        count: homeless.count,
        unsent: 0,
        unacked: homeless.bytes,
    };
    orphans.end(Fate::PeerReset.name(), ended);
    orphans.bytes += homeless.bytes;
    orphans
}

/// Compares the counts with the kernel's own counters.
fn kernel(counted: &Counted, truth: &Truth, differences: &mut Differences) {
    if truth.places.is_some() {
        return;
    }
    let of = |fate| counted.tally.orphans.of(fate).count;
    differences.compare(
        "TCPAbortOnTimeout",
        of(Fate::TimedOut) + truth.late_timeouts,
        truth.counters.abort_on_timeout + truth.timed_out_elsewhere,
    );
}

/// Fails if the totals of the host contradict one another: identity 5 with the bytes still outstanding, which have no
/// metric, and the bound of the table.
pub(crate) fn check_totals(scrape: &Scrape) -> Result<()> {
    let Counted {
        tally,
        lived,
        under_way,
        ..
    } = Counted::of(scrape, |_| true);
    let orphans = tally.orphans;
    let ended = orphans.delivered + discarded(orphans.total());
    let bytes = orphans.bytes;
    ensure!(under_way >= 0, "{under_way} orphans are under way");
    ensure!(
        bytes >= ended,
        "of {bytes} bytes orphaned, {ended} have been delivered or discarded"
    );
    ensure!(
        under_way > 0 || bytes == ended,
        "no orphan is under way, and of {bytes} bytes orphaned {ended} have come to an end"
    );
    ensure!(
        under_way == 0 || bytes > ended,
        "{under_way} orphans are under way with nothing left of {bytes} bytes"
    );
    let (timed, orphans) = (lived.count, orphans.total().count);
    ensure!(
        timed == orphans,
        "{orphans} orphans have ended, {timed} have a time"
    );
    let [entries, capacity] = ["linger_map_entries", "linger_map_capacity"].map(|name| {
        let samples = scrape.of(name);
        let mut samples = samples.filter(|sample| sample.label("map") == "orphans");
        samples.next().map_or(0.0, |sample| sample.value)
    });
    ensure!(
        entries <= capacity,
        "{entries} orphans in {capacity} places"
    );
    Ok(())
}
