//! More groups than there are places for.

use std::ffi::CString;
use std::path::Path;
use std::process;

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{Family, Loopback, Pair};
use linger_ebpf::Plan;

use crate::born::{self, Cgroup};
use crate::closes::{self, Closes, is_other, lost, sum};
use crate::daemon::Daemon;
use crate::netns;
use crate::scenario::{Scenario, Script};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::new("groups_full", Script::Daemon(full)).once()];

const PLACES: u64 = 8;
const NAMES: u64 = 40;
/// How often each name comes: those that have no place find none later either.
const ROUNDS: u64 = 2;

fn full(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let names: Vec<_> = (0..NAMES)
            .map(|number| format!("{:x}-{number}", process::id()))
            .collect();
        let (places, allowed) = (PLACES.to_string(), names.join(","));
        let options = ["--max-groups", &places, "--allow-comm", &allowed];
        let daemon = Daemon::start(lingerd, plan, &options)?;
        let cgroup = Cgroup::new("full.service")?;
        let loopback = Loopback::new(Family::V4)?;
        let mut expected = Closes::new();
        for _ in 0..ROUNDS {
            for (number, name) in (1..).zip(&names) {
                let comm = CString::new(name.as_str())?;
                // SAFETY: it does nothing but call the kernel.
                unsafe {
                    cgroup.bear(&comm, || {
                        (0..number).try_for_each(|_| {
                            let Pair { client, server } = loopback.pair()?;
                            born::abort(client, server)
                        })
                    })
                }?;
                let comm = if number <= PLACES { name } else { "other" };
                *expected.entry(vec![comm.to_owned()]).or_default() += number;
            }
        }
        // The closes of scrapes, which are of no name allowed, stand under `other` as well, but none of
        // them aborts.
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["comm"], |sample| {
                sample.label("outcome") == "linger_aborted"
            })
        })?;
        let scrape = daemon.scrape()?;
        // Each abort is a close of either end.
        let without_place: u64 = (PLACES + 1..=NAMES).map(|number| 2 * ROUNDS * number).sum();
        let lost = lost(&scrape, "group");
        ensure!(
            lost == without_place,
            "{lost} changes found no place, and not {without_place}"
        );
        let resets = sum(&scrape, "linger_resets_sent_total", is_other);
        ensure!(
            resets == without_place / 2,
            "{resets} resets without a place"
        );
        cgroup.remove()?;
        daemon.stop()
    })
}
