//! `lingerd run`: attach, count, serve.

mod reload;
mod tend;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use linger_ebpf::keyed;
use nix::sys::utsname::uname;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use self::reload::Running;
use self::tend::tend;
use crate::attribution::Cgroups;
use crate::config::{Config, Sources};
use crate::event::{Recent, WatchError};
use crate::host;
use crate::http::{self, BindError, Limits, Listeners, Place, Security, State};
use crate::ledger::Ledger;
use crate::live;
use crate::logging::Log;
use crate::memory;
use crate::metrics::{Facts, Metrics};
use crate::notify::Manager;
use crate::privileges;
use crate::probe::{self, Attached, Pins, PinsError, Purpose};

/// Runs until a signal ends it. Then everything is detached. SIGHUP has `sources` read again.
pub fn run(config: Config, sources: Sources, log: Log) -> Result<()> {
    memory::keep_together();
    memory::refuse_huge_pages();
    let security = match &config.web_config_file {
        Some(file) => Security::load(file)?,
        None => Security::none(),
    };
    let listeners = listeners(&config)?;
    let places: Vec<_> = listeners.places().cloned().collect();
    privileges::require()?;
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
    let (attached, counts) = attach(&config, pins.as_ref())?;
    let (ledger, recent) = counts;
    let ledger = Arc::new(Mutex::new(ledger));
    let recent = Arc::new(Mutex::new(recent));
    drop_privileges(&ledger)?;
    // Reading the kernel's types took much.
    memory::release();

    let scheme = if security.has_tls() { "https" } else { "http" };
    let state = Arc::new(State::secured(security));
    let latest = {
        let (ledger, recent) = (Arc::clone(&ledger), Arc::clone(&recent));
        move || latest(&ledger, &recent)
    };
    let metrics = metrics(&attached, Arc::clone(&ledger))?;
    state.attached(metrics.with_recent(Arc::new(latest.clone())));
    for place in &places {
        announce(place, scheme);
    }
    let manager = Arc::new(Manager::from_environment());
    let running = Running {
        sources,
        config,
        ledger,
        log,
        manager: Arc::clone(&manager),
        status: status(&attached, &places),
    };
    runtime.block_on(async {
        let shutdown = shutdown()?;
        manager.ready(&running.status);
        let ledger = Arc::clone(&running.ledger);
        let reading = move |unread| {
            latest();
            lock(&ledger).tend(unread)
        };
        tokio::spawn(tend(reading, Arc::clone(&manager)));
        tokio::spawn(running.reload_at(hangup));
        let stopping = async {
            shutdown.await;
            manager.stopping();
        };
        http::serve(listeners, state, Limits::DEFAULT, stopping).await
    })?;
    // Nothing waits for a scrape that still runs.
    runtime.shutdown_background();
    drop(attached);
    if pins.is_some() {
        info!("counting goes on; `lingerd unload` ends it");
    } else {
        info!("detached");
    }
    Ok(())
}

/// Attaches the programs, or takes over those that are pinned.
fn attach(config: &Config, pins: Option<&Pins>) -> Result<(Attached, (Ledger, Recent))> {
    let started = Instant::now();
    let purpose = Purpose {
        keyed: config.keyed(),
        max_groups: config.max_groups,
        max_orphans: config.max_orphans,
    };
    let wanted = config.plan.plan();
    let done = probe::choose(
        wanted,
        purpose,
        pins,
        |maps, plan| -> Result<_, WatchError> {
            let recent = Recent::new(maps)?;
            Ok((Ledger::new(maps, plan, cgroups(), config)?, recent))
        },
    );
    let (attached, counts) = done.map_err(|error| match host::obstacle() {
        Some(obstacle) => anyhow::Error::from(error).context(obstacle),
        None => error.into(),
    })?;
    info!(
        plan = attached.plan.name(),
        hooks = attached.hooks.len(),
        milliseconds = started.elapsed().as_millis(),
        "attached"
    );
    if config.keyed() & keyed::CGROUP != 0
        && let Some(shortcoming) = cgroups().shortcoming()
    {
        warn!("{shortcoming}");
    }
    Ok((attached, counts))
}

/// Where programs and counts are kept, if they are to be.
fn open_pins(config: &Config) -> Result<Option<Pins>, PinsError> {
    if config.persist {
        return Pins::open(&config.pins).map(Some);
    }
    if Pins::are_in(&config.pins) {
        warn!(
            "the programs of another lingerd are kept in {}, and count as well, for no one if it does \
             not run: `lingerd unload` ends them",
            config.pins.display()
        );
    }
    Ok(None)
}

/// Threads for what may block: scrapes, reloads, tending the ledger. Fewer than the service may have.
const MAX_THREADS: usize = 32;

/// What is shared, for one at a time.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The latest costly closes, newest first.
fn latest(ledger: &Mutex<Ledger>, recent: &Mutex<Recent>) -> Vec<live::Recent> {
    let mut recent = lock(recent);
    recent.read(|cgroup_id| lock(ledger).names(cgroup_id));
    recent.closes().map(live::Recent::from).collect()
}

/// What systemd opened for the daemon, or else what the configuration says.
fn listeners(config: &Config) -> Result<Listeners, BindError> {
    let Some(listeners) = http::passed()? else {
        return http::bind(&config.listen);
    };
    info!("listening on the sockets that the service manager passed, instead of on listen");
    Ok(listeners)
}

fn announce(place: &Place, scheme: &str) {
    match place {
        Place::Tcp(address) => info!("serving {scheme}://{address}/metrics"),
        Place::Unix(_) => info!("serving /metrics by {scheme} on {place}"),
    }
}

/// What the service manager shows.
fn status(attached: &Attached, places: &[Place]) -> String {
    let places: Vec<_> = places.iter().map(Place::to_string).collect();
    format!(
        "plan {}, serving /metrics at {}",
        attached.plan.name(),
        places.join(", ")
    )
}

fn cgroups() -> Cgroups {
    Cgroups::new(probe::cgroup_root().ok())
}

/// Keeps no capability that reading the ledger does not take.
fn drop_privileges(ledger: &Mutex<Ledger>) -> Result<()> {
    let readable = || lock(ledger).snapshot().is_ok();
    let kept = privileges::drop_all(readable).context("cannot drop capabilities")?;
    if !kept.is_empty() {
        warn!("this kernel lets only the privileged read maps: keeping {kept:?}");
    }
    Ok(())
}

fn metrics(attached: &Attached, ledger: Arc<Mutex<Ledger>>) -> Result<Metrics> {
    let names = uname()?;
    let facts = Facts {
        plan: attached.plan,
        kernel: names.release().to_string_lossy().into_owned(),
        host: names.nodename().to_string_lossy().into_owned(),
        attached: attached.hooks.clone(),
    };
    let source = move || Ok(lock(&ledger).snapshot()?);
    Ok(Metrics::new(Arc::new(source), facts))
}

/// Done at the first SIGTERM or SIGINT.
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
