//! The programs, as far as the counts depend on them.

use std::io;
use std::os::fd::OwnedFd;

use super::LedgerError;
use crate::probe::{Hook, Point};
use crate::sys;

/// The program of each hook.
pub(crate) struct Programs(Vec<(Hook, OwnedFd)>);

impl Programs {
    pub(crate) const fn new(programs: Vec<(Hook, OwnedFd)>) -> Self {
        Self(programs)
    }

    /// What settles orphans whose fate did not show; none before programs are attached.
    pub(super) fn settler(&self) -> Option<&OwnedFd> {
        let mut programs = self.0.iter();
        let found = programs.find(|(hook, _)| hook.point == Point::OnDemand)?;
        Some(&found.1)
    }

    /// How often the kernel skipped each of those that it runs.
    pub(super) fn skipped_runs(&self) -> Result<Vec<(&'static str, u64)>, LedgerError> {
        let programs = self.0.iter();
        let run_by_kernel = programs.filter(|(hook, _)| hook.point != Point::OnDemand);
        let skipped = run_by_kernel.map(|(hook, fd)| Ok((hook.program, sys::skipped_runs(fd)?)));
        let skipped = skipped.collect::<io::Result<_>>();
        skipped.map_err(|source| LedgerError::Program { source })
    }
}
