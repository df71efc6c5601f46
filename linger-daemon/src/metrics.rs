//! The ledger as Prometheus metrics.

mod exposition;
mod families;
mod family;
mod format;
mod live;
mod text;

use std::error::Error;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use linger_ebpf::Plan;
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;

pub use self::exposition::Exposition;
pub use self::families::series;
pub use self::format::Format;

use crate::ledger::Snapshot;
use crate::live::{Live, RecentClose};

/// Source of the counts of scrapes: each call reads the ledger once.
pub type Source = Arc<dyn Fn() -> Result<Snapshot, SourceError> + Send + Sync>;

/// Reason why the ledger could not be read.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// Source of the latest costly closes for the views, newest first.
pub type RecentSource = Arc<dyn Fn() -> Vec<RecentClose> + Send + Sync>;

/// Facts that do not change while the programs are attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The plan in use.
    pub plan: Plan,
    /// Release of the running kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Name of the host, as `uname -n` prints it.
    pub host: String,
}

/// A failed scrape.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// The ledger could not be read.
    #[error("the ledger cannot be read")]
    Ledger(#[source] SourceError),
    /// The thread of the scrape ended without a response.
    #[error("the answer ended before it had begun")]
    Unfinished,
}

/// All metrics of the daemon.
pub struct Metrics {
    source: Source,
    recent: RecentSource,
    facts: Arc<Facts>,
}

impl Metrics {
    /// Creates metrics from `source`, without recent closes.
    #[must_use]
    pub fn new(source: Source, facts: Facts) -> Self {
        Self {
            source,
            recent: Arc::new(Vec::new),
            facts: Arc::new(facts),
        }
    }

    /// Adds the source of the latest costly closes for the views.
    #[must_use]
    pub fn with_recent(self, recent: RecentSource) -> Self {
        Self { recent, ..self }
    }

    /// Reads the ledger.
    ///
    /// Blocks for milliseconds, in system calls.
    pub fn read(&self) -> Result<Exposition, ScrapeError> {
        let at = SystemTime::now();
        let started = Instant::now();
        let snapshot = (self.source)().map_err(ScrapeError::Ledger)?;
        let reading = started.elapsed();
        let mut process = ProcessCollector::for_self().collect();
        process.sort_by(|one, next| one.name().cmp(next.name()));
        Ok(Exposition {
            at,
            snapshot,
            facts: Arc::clone(&self.facts),
            reading,
            process,
        })
    }

    /// Returns the live view of a reading.
    #[must_use]
    pub fn live(&self, exposition: &Exposition) -> Live {
        Live::of(exposition, (self.recent)())
    }
}
