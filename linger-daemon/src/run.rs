//! `lingerd run`: attach, count, serve.

mod reload;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use linger_ebpf::keyed;
use nix::sys::utsname::uname;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use self::reload::Running;
use crate::attribution::Cgroups;
use crate::config::{Config, Sources};
use crate::host;
use crate::http::{self, Limits, State};
use crate::ledger::Ledger;
use crate::logging::Log;
use crate::memory;
use crate::metrics::{Facts, Metrics};
use crate::privileges;
use crate::probe::{self, Attached, Pins, PinsError, Purpose};

/// Runs until a signal ends it. Then everything is detached. SIGHUP has `sources` read again.
pub fn run(config: Config, sources: Sources, log: Log) -> Result<()> {
    memory::keep_together();
    let listener = http::bind(config.listen)?;
    let address = listener.local_addr()?;
    privileges::require()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // From here on SIGHUP no longer ends the process.
    let hangup = {
        let _guard = runtime.enter();
        signal(SignalKind::hangup())?
    };
    let started = Instant::now();
    let purpose = Purpose {
        keyed: config.keyed(),
        max_groups: config.max_groups,
        max_orphans: config.max_orphans,
    };
    let pins = open_pins(&config)?;
    let wanted = config.plan.plan();
    let (attached, ledger) = probe::choose(wanted, purpose, pins.as_ref(), |maps, plan| {
        Ledger::new(maps, plan, cgroups(), &config)
    })
    .map_err(|error| match host::obstacle() {
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
    let ledger = Arc::new(Mutex::new(ledger));
    drop_privileges(&ledger)?;
    // Reading the kernel's types took much.
    memory::release();

    let state = Arc::new(State::new());
    state.attached(metrics(&attached, Arc::clone(&ledger))?);
    info!("serving http://{address}/metrics");
    let running = Running {
        sources,
        config,
        ledger,
        log,
    };
    runtime.block_on(async {
        tokio::spawn(tend(Arc::clone(&running.ledger)));
        tokio::spawn(running.reload_at(hangup));
        let shutdown = shutdown()?;
        http::serve(listener, state, Limits::DEFAULT, shutdown).await
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

/// Where programs and counts are kept, if they are to be.
fn open_pins(config: &Config) -> Result<Option<Pins>, PinsError> {
    if config.persist {
        return Pins::open(&config.pins).map(Some);
    }
    if config.pins.exists() {
        warn!(
            "the programs of another lingerd are kept in {}, and count as well, for no one if it does \
             not run: `lingerd unload` ends them",
            config.pins.display()
        );
    }
    Ok(None)
}

fn cgroups() -> Cgroups {
    Cgroups::new(probe::cgroup_root().ok())
}

/// How long the ledger goes unread before the daemon does it of its own accord: the only timer of a
/// daemon that no one scrapes.
const TEND_EVERY: Duration = Duration::from_secs(10);

/// Tends the ledger while no one scrapes.
async fn tend(ledger: Arc<Mutex<Ledger>>) {
    let mut ticks = interval(TEND_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let ledger = Arc::clone(&ledger);
        let tended = spawn_blocking(move || {
            let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
            ledger.tend(TEND_EVERY)
        });
        if let Ok(Err(error)) = tended.await {
            error!("{:#}", anyhow::Error::from(error));
        }
    }
}

/// Keeps no capability that reading the ledger does not take.
fn drop_privileges(ledger: &Mutex<Ledger>) -> Result<()> {
    let readable = || {
        ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .snapshot()
            .is_ok()
    };
    let kept = privileges::drop_all(readable).context("cannot drop capabilities")?;
    if !kept.is_empty() {
        warn!("this kernel lets only the privileged read maps: keeping {kept:?}");
    }
    Ok(())
}

fn metrics(attached: &Attached, ledger: Arc<Mutex<Ledger>>) -> Result<Metrics> {
    let facts = Facts {
        plan: attached.plan,
        kernel: uname()?.release().to_string_lossy().into_owned(),
        attached: attached.hooks.clone(),
    };
    let source = move || {
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ledger.snapshot()?)
    };
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
