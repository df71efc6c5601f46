//! `lingerd run`: attaches, counts and serves.
//!
//! [`run`] is the life of the daemon from beginning to end; each module is one of its parts: `startup_server` answers
//! until the programs are attached, `counting` attaches them and reads their counts, `maintain` schedules the
//! maintenance of the ledger, `reload` handles SIGHUP.

mod counting;
mod maintain;
mod reload;
mod startup_server;

use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use self::counting::Counting;
pub(crate) use self::counting::attach_standalone;
use self::maintain::maintain;
use self::reload::Reloader;
use self::startup_server::StartupServer;
use crate::config::{Config, ListenAddr, Sources};
use crate::host;
use crate::http::{self, BindError, Limits, Listeners, Security, State};
use crate::logging::Log;
use crate::memory;
use crate::notify::Manager;
use crate::privileges;
use crate::probe::{Attachment, Pins, PinsError};
use crate::sync::lock;

/// Maximum number of threads for blocking work: scrapes, reloads, maintenance of the ledger. Below the limit of the
/// service (`TasksMax=`).
const MAX_THREADS: usize = 32;

/// Runs until SIGTERM or SIGINT, then detaches everything that is not pinned. SIGHUP reloads `sources`.
pub fn run(config: Config, sources: Sources, log: Log) -> Result<()> {
    if let Some(problem) = host::too_few_files() {
        bail!(problem);
    }
    memory::keep_together();
    memory::refuse_huge_pages();
    let security = match &config.web_config_file {
        Some(file) => Security::load(file)?,
        None => Security::none(),
    };
    let listeners = listeners(&config)?;
    let places: Vec<_> = listeners.places().cloned().collect();
    privileges::require()?;
    let scheme = if security.has_tls() { "https" } else { "http" };
    let state = Arc::new(State::new(security, config.live));
    let startup_server = StartupServer::begin(&listeners, &state)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_THREADS)
        .build()?;
    // From here on SIGHUP no longer ends the process.
    let hangup = {
        let _guard = runtime.enter();
        signal(SignalKind::hangup())?
    };
    let pins = open_pins(&config)?;
    let counting = Counting::begin(&config, pins.as_ref())?;
    // Wait until the startup server has closed its connections, before the daemon is ready.
    drop(startup_server);
    state.attached(counting.metrics()?);
    for place in &places {
        announce(place, scheme);
    }
    let manager = Arc::new(Manager::from_environment());
    let folder = config.pins.clone();
    let reloader = Reloader {
        sources,
        config,
        counts: Arc::clone(&counting.counts),
        log,
        manager: Arc::clone(&manager),
        status: status(&counting.attached, &places),
    };
    runtime.block_on(async {
        let shutdown = shutdown()?;
        // The service manager may let it wait, but nothing else.
        let ready = {
            let (manager, status) = (Arc::clone(&manager), reloader.status.clone());
            spawn_blocking(move || manager.ready(&status))
        };
        let counts = Arc::clone(&counting.counts);
        let read = Arc::clone(&counts.read);
        let maintenance = move || counts.maintain();
        tokio::spawn(maintain(maintenance, read, Arc::clone(&manager)));
        tokio::spawn(async {
            // In this order, as a reload ends with the same message.
            if ready.await.is_ok() {
                reloader.reload_at(hangup).await;
            }
        });
        let stopping = async {
            shutdown.await;
            manager.stopping();
        };
        let limits = Limits::with_files(host::free_files());
        http::serve(listeners, state, limits, stopping).await
    })?;
    // Do not wait for a scrape that is still running.
    runtime.shutdown_background();
    if pins.is_some() {
        // The next daemon must show what the last scrape has shown.
        lock(&counting.counts.ledger).maintain()?;
    }
    drop(counting);
    if pins.is_some() {
        let folder = folder.display();
        info!("counting continues in the kernel; `lingerd unload --pins {folder}` ends it");
    } else {
        info!("detached");
    }
    Ok(())
}

/// Opens the directory of pinned programs and counts if they are to persist; else warns of those of another lingerd.
fn open_pins(config: &Config) -> Result<Option<Pins>, PinsError> {
    if config.persist {
        return Pins::open(&config.pins).map(Some);
    }
    if Pins::exist_in(&config.pins) {
        let folder = config.pins.display();
        warn!(
            "another lingerd has pinned programs in {folder}, which go on counting; if none uses them any more, \
             remove them with `lingerd unload --pins {folder}`"
        );
    }
    Ok(None)
}

/// Returns the sockets that systemd passed to the daemon, or else binds those of the configuration.
fn listeners(config: &Config) -> Result<Listeners, BindError> {
    let Some(listeners) = http::passed()? else {
        return http::bind(&config.listen);
    };
    info!("listening on the sockets passed by the service manager instead of `listen`");
    Ok(listeners)
}

fn announce(place: &ListenAddr, scheme: &str) {
    match place {
        ListenAddr::Tcp(address) => info!("serving {scheme}://{address}/metrics"),
        ListenAddr::Unix(_) => info!("serving /metrics by {scheme} on {place}"),
    }
}

/// Returns the status line that the service manager shows.
fn status(attached: &Attachment, places: &[ListenAddr]) -> String {
    let places: Vec<_> = places.iter().map(ListenAddr::to_string).collect();
    format!(
        "plan {}, serving /metrics at {}",
        attached.plan.name(),
        places.join(", ")
    )
}

/// Returns a future that completes at the first SIGTERM or SIGINT.
fn shutdown() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
    })
}
