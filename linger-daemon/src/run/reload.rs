//! SIGHUP: reloads the configuration while the programs stay attached.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::counting::Counts;
use crate::config::{self, Config, Invalid, Sources};
use crate::logging::Log;
use crate::notify::Manager;
use crate::sync::lock;

/// Reloads the configuration of the running daemon.
pub(super) struct Reloader {
    pub(super) sources: Sources,
    pub(super) config: Config,
    pub(super) counts: Arc<Counts>,
    pub(super) log: Log,
    pub(super) manager: Arc<Manager>,
    /// The status line that the service manager shows.
    pub(super) status: String,
}

impl Reloader {
    pub(super) async fn reload_at(mut self, mut signal: Signal) {
        while signal.recv().await.is_some() {
            // Reading the file may be slow, and a scrape may hold the ledger's lock.
            let reloading = spawn_blocking(move || {
                self.manager.reloading();
                let mut status = self.status.clone();
                if let Err(refused) = self.reload() {
                    status += "; settings as before, for they were refused: ";
                    status += refused.to_string().lines().next().unwrap_or_default();
                }
                self.manager.ready(&status);
                self
            });
            match reloading.await {
                Ok(running) => self = running,
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
    }

    /// Applies the settings that can change. An invalid configuration changes nothing.
    fn reload(&mut self) -> Result<(), Invalid> {
        let path = self.sources.path().display().to_string();
        let wanted = config::load(&self.sources).inspect_err(|invalid| {
            for line in invalid.to_string().lines() {
                error!("SIGHUP: {line}");
            }
            error!("SIGHUP: the settings stay as they are: correct {path} and send SIGHUP again");
        })?;
        let file = if wanted.has_file {
            format!("read {path}")
        } else {
            format!("there is no {path}")
        };
        let wanted = wanted.config;
        let changes = config::changes(&self.config, &wanted);
        // Log with the old filter, which may show more than the new one.
        for change in &changes {
            if change.applies {
                info!("{change}");
            } else {
                warn!("{change}");
            }
        }
        self.config = config::in_effect(&self.config, &wanted);
        self.log.set(&self.config.log_level);
        if let Err(error) = lock(&self.counts.ledger).reconfigure(&self.config) {
            error!("SIGHUP: {:#}", anyhow::Error::from(error));
        }
        info!("SIGHUP: {file}, settings changed: {}", changes.len());
        Ok(())
    }
}
