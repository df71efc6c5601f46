//! `lingerd watch`: closes as they happen, a line each.

mod filter;
mod line;
mod output;
mod stack;
mod units;

use std::io::{self, ErrorKind, IsTerminal as _};
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use linger_ebpf::{Filter, Plan};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::{debug, info};

pub use self::filter::WatchFilter;
use self::line::Lines;
use self::output::Output;
use self::stack::Symbols;
use self::units::Units;
use crate::attribution::{Dimension, Namer};
use crate::event::{Clock, RING_EVENTS, WatchError, WatchEvent, Watcher, decode};
use crate::ledger::{PathMaps, Returns, Undecided};
use crate::privileges;
use crate::probe::{self, Attachment, LoadOptions, Maps, PinnedPrograms, Programs};

/// How to show closes, and for how long.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One JSON object per line, instead of a table.
    pub json: bool,
    /// Ends after this many closes.
    pub count: Option<u64>,
    /// Ends after this time.
    pub duration: Option<Duration>,
    /// Use programs of its own even if a service has pinned some.
    pub own: bool,
    /// The plan of its own programs.
    pub plan: Option<Plan>,
    /// The folder in which a service may have pinned its programs.
    pub pins: PathBuf,
}

/// How often to renew the lease and look for units.
const TICK: Duration = Duration::from_secs(1);

/// How many events to handle before checking for signals again.
const BATCH: usize = 64;

/// How long to wait for a reader of the last lines.
const LAST: Duration = Duration::from_secs(1);

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There may be more events.
    More,
    /// There are none yet.
    Waits,
    /// All requested closes have been shown.
    Over,
}

/// Shows matching closes until a signal or the options end it.
pub fn watch(filter: WatchFilter, options: &Options) -> Result<()> {
    privileges::require()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // From here on, a signal ends it cleanly.
    let signals = {
        let _guard = runtime.enter();
        [SignalKind::terminate(), SignalKind::interrupt()].map(signal)
    };
    let mut session = Session::begin(filter, options)?;
    let shown = runtime.block_on(session.run(options, signals));
    // Do not wait for a line without a reader.
    runtime.shutdown_background();
    if let Err(error) = shown
        && !is_closed(&error)
    {
        return Err(error);
    }
    session.sum_up();
    Ok(())
}

/// Whether the reader is gone.
fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// A running watch.
struct Session {
    /// The programs, if they are this process's own.
    _attached: Option<Attachment>,
    watcher: Watcher,
    filter: WatchFilter,
    units: Units,
    namer: Namer,
    written: PathMaps,
    undecided: Undecided,
    /// The hook of the return of close(2), unless a service maintains it.
    returns: Option<Returns>,
    programs: Programs,
    symbols: Option<Symbols>,
    clock: Clock,
    lines: Lines,
    closes: u64,
    /// How many missed events have been reported.
    missed: u64,
}

impl Session {
    fn begin(filter: WatchFilter, options: &Options) -> Result<Self> {
        let units = Units::new(&filter.units, probe::cgroups());
        let kernel_filter = filter.to_kernel(&units.look());
        let (attached, programs, prepared) = open(&kernel_filter, options)?;
        let Prepared {
            mut watcher,
            written,
            undecided,
            returns,
        } = prepared;
        drop_privileges(&mut watcher, &kernel_filter, filter.stack)?;
        let terminal = io::stdout().is_terminal();
        let mut session = Self {
            returns: attached.is_some().then_some(returns),
            _attached: attached,
            watcher,
            symbols: filter.stack.then(Symbols::new),
            filter,
            units,
            namer: Namer::new(Dimension::DEFAULT.into(), probe::cgroups()),
            written,
            undecided,
            programs,
            clock: Clock::of_host(),
            lines: Lines::new(options.json, terminal),
            closes: 0,
            missed: 0,
        };
        session.see_returns();
        Ok(session)
    }

    /// Hooks returns from the start, so that the time of the first waiting close is known too.
    fn see_returns(&mut self) {
        if let Some(returns) = &mut self.returns {
            returns.expect_waits();
            returns.keep(&self.programs, true);
        }
    }

    async fn run(
        &mut self,
        options: &Options,
        [terminate, interrupt]: [io::Result<Signal>; 2],
    ) -> Result<()> {
        let (mut terminate, mut interrupt) = (terminate?, interrupt?);
        let ring = self.watcher.as_fd().try_clone_to_owned()?;
        // SAFETY: the file is owned, so that it stays open, under this number, as long as it is registered.
        let ring: AsyncFd<OwnedFd> =
            unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        let mut tick = tokio::time::interval(TICK);
        let begun = Instant::now();
        let over = async {
            match options.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let mut out = Output::new();
        self.lines.head(&mut out.lines)?;
        let mut progress = Progress::More;
        loop {
            let is_written = out.is_written();
            tokio::select! {
                written = out.write(), if !is_written => written?,
                ready = ring.readable(), if is_written && progress == Progress::Waits => ready?.clear_ready(),
                () = yield_now(), if is_written && progress == Progress::More => {}
                _ = tick.tick() => self.tend()?,
                () = &mut over => break,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            if out.is_written() {
                if progress == Progress::Over {
                    break;
                }
                progress = self.show(options.count, &mut out)?;
            }
        }
        self.end(options.count, &mut out).await?;
        info!("watched for {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Shows the last events and losses, as far as they are read.
    async fn end(&mut self, count: Option<u64>, out: &mut Output) -> Result<()> {
        self.tend()?;
        for _ in 0..=RING_EVENTS / BATCH {
            let progress = self.show(count, out)?;
            let Ok(written) = timeout(LAST, out.write()).await else {
                eprintln!("lingerd: no one takes the last lines: they are not all there");
                break;
            };
            written?;
            if progress != Progress::More {
                break;
            }
        }
        Ok(())
    }

    /// Renews the lease, looks for new units, settles undecided orphans, and reports missed events.
    fn tend(&mut self) -> Result<()> {
        self.undecided.settle_by(&self.programs)?;
        self.see_returns();
        let lapse = self.watcher.renew_lease();
        if !lapse.is_zero() {
            eprintln!(
                "lingerd: held up, and did not watch for {:.1} s: closes in that time are not shown",
                lapse.as_secs_f64()
            );
        }
        self.namer.rest();
        self.clock = Clock::of_host();
        if !self.filter.units.is_empty() {
            let cgroups = self.units.look();
            self.watcher.ask(&self.filter.to_kernel(&cgroups))?;
        }
        let missed = self.watcher.missed();
        if missed > self.missed {
            eprintln!(
                "lingerd: {} lines were not told: too many at once; ask for fewer",
                missed - self.missed
            );
            self.missed = missed;
        }
        Ok(())
    }

    /// Formats a batch of events.
    fn show(&mut self, count: Option<u64>, out: &mut Output) -> Result<Progress> {
        for _ in 0..BATCH {
            if count.is_some_and(|count| self.closes >= count) {
                return Ok(Progress::Over);
            }
            let Some(event) = self.watcher.take() else {
                return Ok(Progress::Waits);
            };
            let names = self.namer.names(&[event.cgroup_id], &self.written);
            let names = names.first().and_then(Option::as_ref);
            let mut event = decode(&event, names, &self.clock);
            if !self.filter.matches(&event) {
                continue;
            }
            if let WatchEvent::Close(close) = &mut event {
                self.closes += 1;
                if let Some(symbols) = &self.symbols {
                    symbols.name(close);
                }
            }
            self.lines.write(&mut out.lines, &event)?;
        }
        Ok(Progress::More)
    }

    /// Prints a summary.
    fn sum_up(&self) {
        eprintln!(
            "lingerd: {} closes told, {} lines missed",
            self.closes,
            self.watcher.missed()
        );
    }
}

/// Drops all capabilities except those needed to watch and, for stacks, to symbolize them.
fn drop_privileges(watcher: &mut Watcher, filter: &Filter, stack: bool) -> Result<()> {
    let wanted = if stack { stack::CAPABILITIES } else { &[] };
    let watcher = Mutex::new(watcher);
    let works = || {
        let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
        watcher.ask(filter).is_ok()
    };
    let kept = privileges::drop_all_but(wanted, works).context("cannot drop capabilities")?;
    debug!("keeping the capabilities {kept:?}");
    Ok(())
}

/// The programs, with their attachment if they are this process's own, and what was taken from their maps.
type Opened = (Option<Attachment>, Programs, Prepared);

/// The maps that a watch uses.
struct Prepared {
    watcher: Watcher,
    written: PathMaps,
    undecided: Undecided,
    returns: Returns,
}

/// Opens the programs of a service, or attaches its own.
fn open(filter: &Filter, options: &Options) -> Result<Opened> {
    let prepare = |maps: &mut Maps, _plan| -> Result<_, WatchError> {
        Ok(Prepared {
            undecided: Undecided::map(maps)?,
            returns: Returns::map(maps)?,
            watcher: Watcher::new(maps, filter)?,
            written: PathMaps::take(maps)?,
        })
    };
    if !options.own {
        let pinned =
            probe::open_pinned(&options.pins).context("cannot watch beside the service")?;
        if let Some(PinnedPrograms {
            plan,
            mut maps,
            programs,
        }) = pinned
        {
            let prepared = prepare(&mut maps, plan)?;
            info!(
                plan = plan.name(),
                "watching by the programs pinned in {}",
                options.pins.display()
            );
            return Ok((None, programs, prepared));
        }
    }
    let load = LoadOptions {
        max_groups: GROUPS,
        max_orphans: ORPHANS,
        ..LoadOptions::default()
    };
    let (mut attached, prepared) = probe::choose(options.plan, load, None, prepare)?;
    let programs = mem::take(&mut attached.programs);
    // Attaching may have taken longer than the lease.
    prepared.watcher.renew_lease();
    info!(plan = attached.plan.name(), "watching by its own programs");
    Ok((Some(attached), programs, prepared))
}

/// Groups of its own programs: few, because only their paths are used, to name the units.
const GROUPS: u32 = 1024;
/// Orphans of its own programs: as many as closes that can be watched at the same time.
const ORPHANS: u32 = linger_ebpf::MAX_WATCHED;
