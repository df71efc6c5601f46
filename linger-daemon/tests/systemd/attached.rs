//! The programs loaded in the kernel, as the kernel lists them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use aya::programs::loaded_programs;
use linger_testkit::exposition::Scrape;

use crate::tools::wait_for;

/// Bytes of a program's name that the kernel keeps.
const NAME: usize = 15;

/// The programs of a daemon, by their names in the kernel.
pub(crate) struct Programs(BTreeSet<String>);

impl Programs {
    /// Returns the programs that the daemon reports as attached; the kernel must have all of them.
    pub(crate) fn of(scrape: &Scrape) -> Result<Self> {
        let names = scrape.of("linger_probe_attached");
        let names = names.map(|sample| sample.label("program").chars().take(NAME).collect());
        let programs = Self(names.collect());
        ensure!(!programs.0.is_empty(), "the daemon names no program");
        let loaded = programs.loaded()?;
        ensure!(
            loaded == programs.0,
            "of {:?} the kernel has {loaded:?}",
            programs.0
        );
        Ok(programs)
    }

    /// Returns those that the kernel still has.
    pub(crate) fn loaded(&self) -> Result<BTreeSet<String>> {
        let mut loaded = BTreeSet::new();
        for program in loaded_programs() {
            let program = program.context("list the programs of the kernel")?;
            let name = program.name_as_str().unwrap_or_default().to_owned();
            if self.0.contains(&name) {
                loaded.insert(name);
            }
        }
        Ok(loaded)
    }

    /// Expects the kernel to have none of them, now or soon: it frees them asynchronously.
    pub(crate) fn expect_gone(&self) -> Result<()> {
        wait_for("the programs to go", || {
            self.loaded().ok()?.is_empty().then_some(())
        })
    }
}
