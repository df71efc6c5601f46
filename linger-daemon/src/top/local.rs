//! Readings of probes that this program attaches itself.

use anyhow::Result;

use crate::config::Config;
use crate::live::Live;
use crate::metrics::Metrics;
use crate::probe::Attachment;
use crate::run;

/// Programs that count as long as this lives, and their ledger.
pub(super) struct LocalSource {
    metrics: Metrics,
    _attached: Attachment,
}

impl LocalSource {
    /// Attaches them, and gives up the capabilities that this took. Call it before other threads are
    /// started.
    pub(super) fn attach(config: &Config) -> Result<Self> {
        let (attached, metrics) = run::alone(config)?;
        Ok(Self {
            metrics,
            _attached: attached,
        })
    }

    /// One reading.
    pub(super) fn read(&self) -> Result<Live> {
        Ok(self.metrics.live(&self.metrics.read()?))
    }
}
