//! The ledger as Prometheus metrics.

mod families;
mod family;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use linger_ebpf::Plan;
use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};

use crate::ledger::Snapshot;
use crate::probe::Hook;

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit this build was made from, `unknown` if it was not made in a repository.
pub const REVISION: &str = env!("LINGER_REVISION");

/// Where a scrape gets its counts: reads the ledger once a call.
pub type Source = Arc<dyn Fn() -> Result<Snapshot, SourceError> + Send + Sync>;

/// Why the ledger could not be read.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// What stays the same from attaching to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The plan in use.
    pub plan: Plan,
    /// Release of the running kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Every program that is attached.
    pub attached: Vec<Hook>,
}

/// Why a scrape has no metrics to show.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// The ledger could not be read.
    #[error("the ledger cannot be read")]
    Ledger(#[source] SourceError),
    /// The metrics could not be gathered or written out.
    #[error("the metrics cannot be written")]
    Encode(#[from] prometheus::Error),
}

/// All metrics of the daemon.
pub struct Metrics {
    source: Source,
    facts: Arc<Facts>,
}

impl Metrics {
    /// Metrics of what `source` reads.
    #[must_use]
    pub fn new(source: Source, facts: Facts) -> Self {
        Self {
            source,
            facts: Arc::new(facts),
        }
    }

    /// What the metrics say of the daemon itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Reads the ledger and returns the metrics in the Prometheus text format.
    ///
    /// Makes system calls, so it blocks, for milliseconds.
    pub fn scrape(&self) -> Result<String, ScrapeError> {
        // Collectors and registry live for one scrape: a failure then belongs to this scrape and
        // to no other that runs at the same time.
        let collector = LingerCollector::new(Arc::clone(&self.source), Arc::clone(&self.facts));
        let failure = Arc::clone(&collector.failure);
        let registry = Registry::new();
        registry.register(Box::new(collector))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let families = registry.gather();
        match take(&failure) {
            Some(error) => Err(ScrapeError::Ledger(error)),
            None => Ok(TextEncoder::new().encode_to_string(&families)?),
        }
    }
}

type Failure = Mutex<Option<SourceError>>;

fn take(failure: &Failure) -> Option<SourceError> {
    failure
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

/// Reads the ledger when it is asked to collect.
pub struct LingerCollector {
    source: Source,
    facts: Arc<Facts>,
    descriptions: Vec<Desc>,
    /// What the trait's `collect` has no way to return.
    failure: Arc<Failure>,
}

impl LingerCollector {
    /// A collector of what `source` reads.
    #[must_use]
    pub fn new(source: Source, facts: Arc<Facts>) -> Self {
        Self {
            source,
            facts,
            descriptions: families::descriptions(),
            failure: Arc::default(),
        }
    }
}

impl Collector for LingerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let started = Instant::now();
        match (self.source)() {
            Ok(snapshot) => families::all(&snapshot, &self.facts, started.elapsed()),
            Err(error) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Vec::new()
            }
        }
    }
}
