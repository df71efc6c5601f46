//! The return of close(2), which the plan `tracepoint` hooks only while closes wait under `SO_LINGER`: the hook costs
//! every system call of the host.

use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use linger_ebpf::Waits;
use tracing::{debug, warn};

use super::LedgerError;
use super::mapped_array::MappedArray;
use crate::probe::{Maps, Programs};
use crate::sys::now_ns;

const NAME: &str = "WAITS";

/// Time since a close last began to wait after which the hook is removed, nanoseconds.
const IDLE_NS: u64 = 3_600 * SECOND_NS;

/// How long closes may rely on the hook after a maintenance, nanoseconds: longer than until the next one. If the daemon
/// is killed, and the hook is gone with it, they do so no longer than this.
const LEASE_NS: u64 = 60 * SECOND_NS;

const SECOND_NS: u64 = 1_000_000_000;

/// The hook, and the state shared with the programs about closes that wait.
pub(crate) struct ReturnHook {
    waits: MappedArray<Waits>,
    /// Held while it is attached.
    link: Option<OwnedFd>,
    is_refused: bool,
}

impl ReturnHook {
    pub(crate) fn map(maps: &Maps) -> Result<Self, LedgerError> {
        Ok(Self {
            waits: MappedArray::map(maps, NAME)?,
            link: None,
            is_refused: false,
        })
    }

    /// Makes [`Self::update`] hook it although no close has waited yet.
    pub(crate) fn expect_waits(&self) {
        let last_ns = self.waits.word(0, offset_of!(Waits, last_ns));
        last_ns.store(now_ns(), Ordering::Relaxed);
    }

    pub(super) fn is_attached(&self) -> bool {
        self.link.is_some()
    }

    /// Hooks the return once a close has waited, and removes the hook when none has for a while, unless a close that
    /// relies on it still waits.
    pub(crate) fn update(&mut self, programs: &Programs, is_relied_on: bool) {
        let last_ns = self.waits.word(0, offset_of!(Waits, last_ns));
        let last_ns = last_ns.load(Ordering::Relaxed);
        let is_wanted = last_ns > 0 && now_ns().saturating_sub(last_ns) < IDLE_NS;
        if is_wanted && !self.is_attached() && !self.is_refused {
            self.attach(programs);
        }
        let until_ns = self.waits.word(0, offset_of!(Waits, seen_until_ns));
        if is_wanted && self.is_attached() {
            until_ns.store(now_ns() + LEASE_NS, Ordering::Relaxed);
        } else if until_ns.swap(0, Ordering::Relaxed) == 0 && !is_relied_on && self.is_attached() {
            // The lease had ended at the last maintenance already: since then no close has begun to rely on the hook.
            debug!("no close has waited for a while: took the hook of sys_exit off");
            self.link = None;
        }
    }

    fn attach(&mut self, programs: &Programs) {
        match programs.hook_returns() {
            None => {}
            Some(Ok(link)) => {
                debug!("closes wait under SO_LINGER: hooked sys_exit");
                self.link = Some(link);
            }
            Some(Err(error)) => {
                warn!(
                    "closes that wait under SO_LINGER are counted without their time: sys_exit cannot be hooked: {error}"
                );
                self.is_refused = true;
            }
        }
    }
}
