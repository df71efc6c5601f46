//! Readings from probes attached by this process.

use anyhow::Result;

use crate::config::Config;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::probe::Attachment;
use crate::run;

/// Programs that count while this lives, and their metrics.
pub(super) struct LocalSource {
    metrics: Metrics,
    _attached: Attachment,
}

impl LocalSource {
    /// Attaches the programs, then drops the capabilities for it. Call it before starting other threads.
    pub(super) fn attach(config: &Config) -> Result<Self> {
        let (attached, metrics) = run::alone(config)?;
        Ok(Self {
            metrics,
            _attached: attached,
        })
    }

    /// Takes a reading.
    pub(super) fn read(&self) -> Result<Live> {
        Ok(self.metrics.live(&self.metrics.read()?))
    }
}
