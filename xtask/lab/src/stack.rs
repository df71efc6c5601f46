//! A lingerd, and a Prometheus that scrapes it and evaluates the rules, to be seen at work without installing
//! anything.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use linger_testkit::prometheus;
use linger_testkit::server::{PAUSE, Server, wait_until_ready};
use linger_xtask::architecture::Architecture;
use linger_xtask::artifacts;
use linger_xtask::setup;
use linger_xtask::shell::{command, root};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::json;

/// Pause between two rounds of closes.
const ROUND: Duration = Duration::from_secs(10);

/// Options of `cargo xtask lab stack`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Where lingerd serves
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10546")]
    listen: SocketAddr,
    /// Where Prometheus serves
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    prometheus: SocketAddr,
    /// Seconds between scrapes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    interval: u32,
    /// Do not start a lingerd: one serves already where --listen says
    #[arg(long)]
    running: bool,
    /// Make no closes: only what happens on this host anyway is counted
    #[arg(long)]
    no_exercise: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask lab stack                              all of it, with closes of all kinds every 10 seconds
  cargo xtask lab stack --running --no-exercise      a Prometheus for the lingerd that runs on this host
  cargo xtask lab stack --prometheus 0.0.0.0:9090    for a Grafana that runs elsewhere

In Grafana, add a data source of type Prometheus with the address that is printed, and import dashboards/*.json:
docs/prometheus.md says how. What Prometheus has recorded is kept in target/stack from run to run.";

/// Starts everything, prints the addresses, and ends everything at Ctrl-C.
pub(crate) fn run(options: &Options) -> Result<()> {
    let lingerd = artifacts::lingerd(Architecture::here())?;
    let mut servers = Vec::new();
    if !options.running {
        setup::mount_tracefs()?;
        let listen = options.listen.to_string();
        servers.push(Server::start(
            "lingerd",
            command(&lingerd).args(["run", "--listen", &listen]),
        )?);
    }
    servers.push(Server::start(
        "prometheus",
        &mut prometheus_command(options)?,
    )?);
    // From here on SIGINT and SIGTERM are read, so that the servers are ended too.
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let asked_to_end = || -> Result<bool> { Ok(signals.read_signal()?.is_some()) };

    for (address, path) in [
        (options.listen, "/readyz"),
        (options.prometheus, "/-/ready"),
    ] {
        let goes_on = || {
            // First, since the servers get the signal too.
            if asked_to_end()? {
                return Ok(false);
            }
            servers.iter_mut().try_for_each(Server::check)?;
            Ok(true)
        };
        if !wait_until_ready(address, path, goes_on)? {
            return Ok(());
        }
    }
    print_addresses(options);
    let mut closes = Closes::of(&lingerd);
    while !asked_to_end()? {
        servers.iter_mut().try_for_each(Server::check)?;
        if !options.no_exercise {
            closes.go_on()?;
        }
        thread::sleep(PAUSE);
    }
    println!("ending");
    Ok(())
}

/// Returns the command of a Prometheus with the settings and rules of the stack.
fn prometheus_command(options: &Options) -> Result<Command> {
    let interval = format!("{}s", options.interval);
    let settings = json!({
        "global": { "scrape_interval": interval, "evaluation_interval": interval },
        "rule_files": [root().join("dashboards/rules/*.yaml")],
        "scrape_configs": [{
            "job_name": "lingerd",
            "static_configs": [{ "targets": [options.listen.to_string()] }],
        }],
    });
    prometheus::command(&root().join("target/stack"), &settings, options.prometheus)
}

/// Prints the addresses.
fn print_addresses(options: &Options) {
    let (lingerd, prometheus) = (options.listen, options.prometheus);
    let row = |what: &str, link: String| println!("  {what:<12}{link}");
    println!("\nAll is up; Ctrl-C ends it.\n");
    row("lingerd", format!("http://{lingerd}/"));
    row("metrics", format!("http://{lingerd}/metrics"));
    // Debian's Prometheus reads its web pages from files, which are there only if the package is installed.
    let series = "unit_outcome:linger_closes:rate5m";
    if Path::new("/usr/share/prometheus/web").is_dir() {
        let graph = format!("http://{prometheus}/graph?g0.expr={series}&g0.tab=0");
        row("graphs", graph);
        row("alerts", format!("http://{prometheus}/alerts"));
    } else {
        let query = format!("http://{prometheus}/api/v1/query?query={series}");
        row("a query", query);
        row("alerts", format!("http://{prometheus}/api/v1/alerts"));
    }
    row("rules", format!("http://{prometheus}/api/v1/rules"));
    let source =
        format!("add a data source of type Prometheus, URL http://{prometheus}, and import");
    row("Grafana", source);
    for name in [
        "host-overview",
        "fleet",
        "unit-in-depth",
        "lost-after-close",
        "lingerd-itself",
    ] {
        let file = root().join(format!("dashboards/{name}.json"));
        row("", file.display().to_string());
    }
    println!();
}

/// Rounds of closes of all kinds.
struct Closes<'a> {
    lingerd: &'a Path,
    round: Option<Child>,
    next: Instant,
}

impl<'a> Closes<'a> {
    fn of(lingerd: &'a Path) -> Self {
        Self {
            lingerd,
            round: None,
            next: Instant::now(),
        }
    }

    /// Begins a round if it is due and the previous one has ended.
    fn go_on(&mut self) -> Result<()> {
        if let Some(round) = &mut self.round
            && round.try_wait()?.is_none()
        {
            return Ok(());
        }
        if Instant::now() >= self.next {
            let mut round = command(self.lingerd);
            round.arg("exercise").stdout(Stdio::null());
            self.round = Some(round.spawn().context("start lingerd exercise")?);
            self.next = Instant::now() + ROUND;
        }
        Ok(())
    }
}

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        if let Some(round) = &mut self.round {
            // It may have ended.
            let _ = round.kill();
            let _ = round.wait();
        }
    }
}
