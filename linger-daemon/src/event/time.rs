//! Converts the kernel's clocks to Unix time and seconds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_getres};

use super::seconds;
use crate::sys::now_ns;

/// Converts times of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The Unix time at the zero of `CLOCK_MONOTONIC`, seconds.
    zero: f64,
    /// Ticks per second (`CONFIG_HZ`).
    hertz: u64,
}

impl Clock {
    /// Reads the current clocks of this host.
    #[must_use]
    pub fn of_host() -> Self {
        /// `CONFIG_HZ` in most distributions.
        const USUAL_HERTZ: u64 = 250;
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        let zero = unix.map_or(0.0, |unix| unix.as_secs_f64()) - seconds(now_ns());
        // The coarse clocks advance with each tick.
        let tick = clock_getres(ClockId::CLOCK_REALTIME_COARSE).map(Duration::from);
        let hertz = tick
            .ok()
            .and_then(|tick| 1_000_000_000_u64.checked_div(tick.subsec_nanos().into()));
        Self::new(zero, hertz.unwrap_or(USUAL_HERTZ))
    }

    pub(super) fn new(zero: f64, hertz: u64) -> Self {
        Self {
            zero,
            hertz: hertz.max(1),
        }
    }

    /// Converts a time of `CLOCK_MONOTONIC` to Unix time, seconds.
    #[must_use]
    pub fn unix(&self, monotonic_ns: u64) -> f64 {
        self.zero + seconds(monotonic_ns)
    }

    /// Converts jiffies to seconds.
    pub(super) fn seconds_of(self, jiffies: u64) -> u64 {
        jiffies / self.hertz
    }
}
