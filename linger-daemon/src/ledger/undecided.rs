//! Orphans that ended before their fate was known.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use linger_ebpf::{ANSWER_NS, UndecidedOrphan as Place};

use super::mapped_array::MappedArray;
use super::{LedgerError, failed};
use crate::probe::{Maps, Programs};
use crate::sys::{now_ns, run};

const NAME: &str = "UNDECIDED";

/// The places of undecided orphans, shared with the programs.
pub(crate) struct Undecided(MappedArray<Place>);

impl Undecided {
    pub(crate) fn map(maps: &Maps) -> Result<Self, LedgerError> {
        MappedArray::map(maps, NAME).map(Self)
    }

    /// Settles the orphans that have waited for long enough, by running a program: an RST from the peer ended them.
    pub(crate) fn settle_by(&self, programs: &Programs) -> Result<(), LedgerError> {
        /// The earliest time: below it, a place is free or in use by a program.
        const FIRST: u64 = 2;
        let Some(settler) = programs.settler() else {
            return Ok(());
        };
        let until = now_ns().saturating_sub(ANSWER_NS);
        for index in 0..self.0.len() {
            let ended_ns = self.0.word(index, offset_of!(Place, ended_ns));
            let ended_ns = ended_ns.load(Ordering::Relaxed);
            if (FIRST..=until).contains(&ended_ns) {
                run(settler, [index as u64, ended_ns]).map_err(failed("work on", NAME))?;
            }
        }
        Ok(())
    }
}
