//! `lingerd watch`: shows closes as they happen, one line each.

mod filter;
mod line;
mod output;
mod programs;
mod stack;

use std::io::{self, ErrorKind, IsTerminal as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use linger_ebpf::{Filter, WATCHERS};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::yield_now;
use tokio::time::{interval, sleep, timeout};
use tracing::{debug, info};

use self::filter::WatchFilter;
use self::line::Lines;
use self::output::Output;
use self::programs::WatchPrograms;
use self::stack::Symbols;
use crate::attribution::{Cgroups, Dimension, Namer};
use crate::config::{PlanChoice, parse_duration};
use crate::event::{Clock, LEASE, RING_EVENTS, WatchError, WatchEvent, Watcher, decode};
use crate::{privileges, stdout};

/// Which closes to show, how, and for how long.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    filter: WatchFilter,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
    /// Stop after this many closes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this time: 30s, 5m, or a number of seconds
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Attach probes of its own, under this plan [default: the programs of the service, or the best plan]
    #[arg(long, value_enum)]
    plan: Option<PlanChoice>,
}

/// Interval at which to renew the lease and look for units.
const TICK: Duration = Duration::from_secs(1);

/// Number of events to handle before checking for signals again.
const BATCH: usize = 64;

/// Time to wait for a reader of the last lines.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Time to name the functions of the last stacks; those that follow are shown without names.
const LAST_STACKS_TIMEOUT: Duration = Duration::from_secs(5);

/// Result of showing a batch of events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There may be more events.
    More,
    /// There are none yet.
    Idle,
    /// All requested closes have been shown.
    Done,
}

/// Shows matching closes until a signal or the options end it. A service may have pinned its programs in `pins`.
pub fn watch(options: &Options, pins: &Path) -> Result<()> {
    privileges::require()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        // From here on, a signal ends it cleanly.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut session = tokio::select! {
            begun = Session::begin(options, pins) => begun?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        match session.run(terminate, interrupt).await {
            Err(error) if !is_closed(&error) => return Err(error),
            _ => session.sum_up(),
        }
        Ok(())
    });
    // Do not wait for lines that have no reader.
    runtime.shutdown_background();
    result
}

/// Prints a message to stderr.
fn report(message: &str) {
    stdout::print_message(&format!("lingerd: {message}"));
}

/// Returns whether the error means that the reader is gone.
fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

struct Session<'a> {
    options: &'a Options,
    /// What the programs select by.
    filter: Filter,
    programs: WatchPrograms,
    namer: Namer,
    symbols: Option<Symbols>,
    clock: Clock,
    lines: Lines,
    closes: u64,
    /// Number of missed events reported so far.
    missed: u64,
}

impl<'a> Session<'a> {
    async fn begin(options: &'a Options, pins: &Path) -> Result<Self> {
        let cgroups = Cgroups::of_host();
        let filter = options.filter.to_kernel(&cgroups);
        let mut programs = open_programs(&filter, options.plan, pins).await?;
        drop_privileges(&mut programs.maps.watcher, &filter, options.filter.stack)?;
        programs.hook_returns();
        Ok(Self {
            options,
            filter,
            programs,
            namer: Namer::new(Dimension::DEFAULT.into(), cgroups),
            symbols: options.filter.stack.then(Symbols::new),
            clock: Clock::of_host(),
            lines: Lines::new(options.json, io::stdout().is_terminal()),
            closes: 0,
            missed: 0,
        })
    }

    async fn run(&mut self, mut terminate: Signal, mut interrupt: Signal) -> Result<()> {
        let ring = self.programs.maps.watcher.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is owned, so that it stays open, under this number, as long as it is registered.
        let ring: AsyncFd<OwnedFd> =
            unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?;
        let mut tick = interval(TICK);
        let begun = Instant::now();
        let over = sleep(self.options.duration.unwrap_or(Duration::MAX));
        tokio::pin!(over);
        let mut out = Output::new();
        out.lines.extend(self.lines.head().bytes());
        let mut progress = Progress::More;
        loop {
            let is_written = out.is_written();
            tokio::select! {
                written = out.write(), if !is_written => written?,
                ready = ring.readable(), if is_written && progress == Progress::Idle => ready?.clear_ready(),
                () = yield_now(), if is_written && progress == Progress::More => {}
                _ = tick.tick() => self.maintain()?,
                () = &mut over => break,
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            if out.is_written() {
                if progress == Progress::Done {
                    break;
                }
                progress = self.show(&mut out)?;
            }
        }
        self.end(&mut out).await?;
        info!("watched for {:.1} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    /// Shows the last events and losses, as far as there is a reader.
    async fn end(&mut self, out: &mut Output) -> Result<()> {
        self.maintain()?;
        let begun = Instant::now();
        // Twice as many batches as fit in the ring: those with stacks may be smaller.
        for _ in 0..=2 * (RING_EVENTS / BATCH) {
            if begun.elapsed() >= LAST_STACKS_TIMEOUT {
                self.symbols = None;
            }
            let progress = self.show(out)?;
            let Ok(written) = timeout(LAST_LINES_TIMEOUT, out.write()).await else {
                report("the last lines were not read: the output is incomplete");
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
    fn maintain(&mut self) -> Result<()> {
        self.programs.maintain()?;
        let lapse = self.programs.maps.watcher.renew_lease()?;
        if !lapse.is_zero() {
            report(&format!(
                "suspended for {:.1} s: closes in that time are not shown",
                lapse.as_secs_f64()
            ));
        }
        self.namer.end_pass();
        self.clock = Clock::of_host();
        if !self.options.filter.units.is_empty() {
            self.filter = self.options.filter.to_kernel(&self.namer.cgroups);
            self.programs.maps.watcher.ask(&self.filter)?;
        }
        let missed = self.programs.maps.watcher.missed();
        if missed > self.missed {
            report(&format!(
                "{} lines could not be shown: too many closes at once; use a narrower filter",
                missed - self.missed
            ));
            self.missed = missed;
        }
        Ok(())
    }

    /// Formats a batch of events, a smaller one if naming the functions of stacks takes long: in between, signals are
    /// noticed and the lease is renewed.
    fn show(&mut self, out: &mut Output) -> Result<Progress> {
        let begun = Instant::now();
        for _ in 0..BATCH {
            if self.options.count.is_some_and(|count| self.closes >= count) {
                return Ok(Progress::Done);
            }
            if begun.elapsed() >= TICK {
                break;
            }
            let Some(event) = self.programs.maps.watcher.take() else {
                return Ok(Progress::Idle);
            };
            let recorded = |id| self.programs.maps.paths.get(&id, 0).ok();
            let names = self.namer.names(&[event.cgroup_id], recorded);
            let names = names.first().and_then(Option::as_ref);
            let mut event = decode(&event, names, &self.clock);
            if !self.options.filter.matches(&event, &self.filter) {
                continue;
            }
            self.closes += u64::from(self.options.filter.completes(&event));
            if let (WatchEvent::Close(close), Some(symbols)) = (&mut event, &mut self.symbols) {
                symbols.name(close);
            }
            out.lines.extend(self.lines.event(&event)?.bytes());
        }
        Ok(Progress::More)
    }

    fn sum_up(&self) {
        report(&format!(
            "{} closes shown, {} lines missed",
            self.closes,
            self.programs.maps.watcher.missed()
        ));
    }
}

/// Opens the programs to watch by. If all places are taken, waits until the place of a killed watcher would be free.
async fn open_programs(
    filter: &Filter,
    plan: Option<PlanChoice>,
    pins: &Path,
) -> Result<WatchPrograms> {
    let begun = Instant::now();
    let mut has_waited = false;
    loop {
        match WatchPrograms::open(filter, plan, pins) {
            Err(error)
                if matches!(error.downcast_ref(), Some(WatchError::Full))
                    && begun.elapsed() <= LEASE => {}
            opened => return opened,
        }
        if !has_waited {
            report(&format!(
                "{} lingerd watch are running already: waiting up to {} s, in case one was killed",
                WATCHERS - 1,
                LEASE.as_secs()
            ));
            has_waited = true;
        }
        sleep(TICK).await;
    }
}

/// Drops all capabilities except those needed to watch and, for stacks, to symbolize them.
fn drop_privileges(watcher: &mut Watcher, filter: &Filter, stack: bool) -> Result<()> {
    let wanted = if stack { stack::CAPABILITIES } else { &[] };
    let works = || watcher.ask(filter).is_ok();
    let kept = privileges::drop_all_but(wanted, works).context("cannot drop capabilities")?;
    debug!("keeping the capabilities {kept:?}");
    Ok(())
}
