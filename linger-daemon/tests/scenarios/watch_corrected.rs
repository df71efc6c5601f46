//! `lingerd watch`: a close that aborts after it was reported is corrected.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use linger_daemon::event::{Close, WatchEvent};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_daemon::exercise::{self, OrphanLimit, Tally};
use linger_ebpf::{Outcome, Plan};

use crate::netns;
use crate::scenario::Scenario;
use crate::special;
use crate::watching::{Watching, closes};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("watch_corrected", corrected).by_plan_only()];

/// A close that leaves nothing, and aborts for lack of orphan quota after `tracepoint` has reported it as graceful, is
/// corrected, and reported to those who watch aborts only.
fn corrected(lingerd: &Path, plan: Plan) -> Result<()> {
    let limit = OrphanLimit::open()?;
    netns::in_own(|| {
        let loopback = Loopback::new()?;
        let port = tcp::port(loopback.listener())?.to_string();
        let options = ["--plan", plan.name(), "--port", &port];
        let mut all = Watching::start(lingerd, &options)?;
        let aborting = ["--outcome", Outcome::MemoryAborted.name()];
        let mut aborted = Watching::start(lingerd, &[&options[..], &aborting].concat())?;
        exercise::until_aborted(&loopback, &mut Tally::default(), |tally| {
            special::close_in_fin_wait2(&limit, &loopback, tally, false)
        })?;
        let is_abort = |close: &Close| close.outcome == Outcome::MemoryAborted.name();
        aborted.expect(|told| {
            let [WatchEvent::Close(close)] = told else {
                anyhow::bail!("one close aborts: {told:?}")
            };
            ensure!(is_abort(close), "{close:?}");
            Ok(())
        })?;
        all.expect(|told| {
            let (aborts, others): (Vec<_>, Vec<_>) =
                closes(told).partition(|close| is_abort(close));
            let corrections: Vec<_> = told
                .iter()
                .filter_map(|told| match told {
                    WatchEvent::Correction(close) => Some(close),
                    _ => None,
                })
                .collect();
            if plan != Plan::Tracepoint {
                ensure!(aborts.len() == 1 && corrections.is_empty(), "{told:?}");
                return Ok(());
            }
            let [correction] = corrections[..] else {
                anyhow::bail!("one close is corrected: {told:?}")
            };
            ensure!(aborts.is_empty() && is_abort(correction), "{told:?}");
            let before = others
                .iter()
                .find(|close| close.connection == correction.connection);
            let before = before.context("the close was not reported before")?;
            let corrected = Close {
                outcome: correction.outcome.clone(),
                ..(*before).clone()
            };
            ensure!(*correction == corrected, "{before:?}, then {correction:?}");
            Ok(())
        })
    })
}
