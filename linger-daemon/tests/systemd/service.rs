//! The installed service at work.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Error, Result, ensure};
use linger_ebpf::Plan;
use serde_json::Value;

use crate::attached::Programs;
use crate::lingerd::Lingerd;
use crate::server;
use crate::tools::{run, wait_for};

/// Name of its unit.
pub(crate) const UNIT: &str = "lingerd.service";
/// Its configuration file.
const SETTINGS: &str = "/etc/linger/lingerd.toml";
/// Drop-ins of the tests, gone at the next boot.
const DROP_INS: &str = "/run/systemd/system/lingerd.service.d";
/// Highest exposure allowed, in tenths, as calculated by systemd: fully exposed is 10.
const EXPOSURE: &str = "19";

/// The service, as systemd sees it.
pub(crate) struct Service;

impl Service {
    /// Returns a property as systemd shows it.
    pub(crate) fn property(name: &str) -> Result<String> {
        let value = run(&["systemctl", "show", "--value", "--property", name, UNIT])?;
        Ok(value.trim().to_owned())
    }

    /// Returns the ID of its process.
    pub(crate) fn pid() -> Result<String> {
        let pid = Self::property("MainPID")?;
        ensure!(pid != "0", "the service does not run");
        Ok(pid)
    }

    /// Expects it to be ready.
    pub(crate) fn expect_active() -> Result<()> {
        let state = Self::property("ActiveState")?;
        ensure!(state == "active", "the service is {state}");
        Ok(())
    }

    /// Returns its log.
    pub(crate) fn log() -> String {
        run(&["journalctl", "--no-pager", "--lines=200", "--unit", UNIT])
            .unwrap_or_else(|error| format!("{error:#}"))
    }

    fn restart() -> Result<()> {
        run(&["systemctl", "daemon-reload"])?;
        // Tests may start it more often than its limit.
        run(&["systemctl", "reset-failed", UNIT])?;
        run(&["systemctl", "restart", UNIT]).map(drop)
    }

    /// Restarts it with these lines added to its unit.
    fn restart_with(lines: &str) -> Result<()> {
        fs::create_dir_all(DROP_INS)?;
        fs::write(Path::new(DROP_INS).join("test.conf"), lines)?;
        Self::restart()
    }

    /// Restarts it as shipped.
    fn restart_as_shipped() -> Result<()> {
        fs::remove_dir_all(DROP_INS)?;
        Self::restart()
    }

    /// Waits until systemd has restarted it at least once more than `before`.
    fn wait_for_restart(before: u64) -> Result<()> {
        wait_for("systemd to start it again", || {
            let restarts = Self::restarts().ok()?;
            (restarts > before && Self::expect_active().is_ok()).then_some(())
        })
    }

    /// Returns how often systemd has restarted it by itself.
    fn restarts() -> Result<u64> {
        Ok(Self::property("NRestarts")?.parse()?)
    }
}

/// Returns the service with the plan that it chooses on these kernels.
fn lingerd() -> Lingerd {
    Lingerd::installed(Plan::Fentry)
}

/// Kernels from 5.19 on let it read maps without any capability.
pub(crate) fn has_no_capability() -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", Service::pid()?))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>())
            .with_context(|| format!("no {name} in {status}"))
    };
    let user = run(&["id", "--user", "lingerd"])?;
    ensure!(
        user.trim() != "0" && line("Uid:")? == [user.trim(); 4],
        "{status}"
    );
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        ensure!(line(set)? == ["0000000000000000"], "{status}");
    }
    ensure!(
        line("NoNewPrivs:")? == ["1"] && line("Seccomp:")? == ["2"],
        "{status}"
    );
    Ok(())
}

pub(crate) fn exposure_is_low() -> Result<()> {
    let threshold = format!("--threshold={EXPOSURE}");
    let told = run(&[
        "systemd-analyze",
        "security",
        "--no-pager",
        &threshold,
        UNIT,
    ])?;
    println!("{}", told.lines().last().unwrap_or_default());
    Ok(())
}

pub(crate) fn journal_has_fields() -> Result<()> {
    let entries = run(&["journalctl", "--no-pager", "--output=json", "--unit", UNIT])?;
    let attached = entries
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|entry| entry["MESSAGE"] == "attached")
        .context("no entry says that it attached")?;
    for (field, value) in [
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "lingerd"),
        ("_SYSTEMD_UNIT", UNIT),
        ("TARGET", "linger_daemon::run::counting"),
        ("LINGER_PLAN", "fentry"),
    ] {
        ensure!(attached[field] == value, "{field} of {attached}");
    }
    let hooks = attached["LINGER_HOOKS"].as_str().unwrap_or_default();
    ensure!(
        hooks.parse::<u32>().is_ok_and(|hooks| hooks > 0),
        "{attached}"
    );
    Ok(())
}

pub(crate) fn reload_takes_settings_over() -> Result<()> {
    let shipped = fs::read_to_string(SETTINGS)?;
    let before = Service::pid()?;
    // Before the first table.
    fs::write(SETTINGS, format!("retire-after = \"77s\"\n{shipped}"))?;
    run(&["systemctl", "reload", UNIT])?;
    wait_for("the reload", || {
        Service::log()
            .contains("retire-after: \"15m\" -> \"1m 17s\"")
            .then_some(())
    })?;
    fs::write(SETTINGS, shipped)?;
    run(&["systemctl", "reload", UNIT])?;
    ensure!(Service::pid()? == before, "another daemon runs");
    Service::expect_active()
}

/// The reload fails with the mistake, and a signal from elsewhere changes nothing either.
pub(crate) fn broken_settings_are_refused() -> Result<()> {
    let problem = "max-grops: unknown key";
    let shipped = fs::read_to_string(SETTINGS)?;
    let before = Service::pid()?;
    fs::write(SETTINGS, format!("max-grops = 3\n{shipped}"))?;
    ensure!(
        run(&["systemctl", "reload", UNIT]).is_err(),
        "the reload succeeds"
    );
    ensure!(Service::log().contains(problem), "the log does not tell");
    run(&["systemctl", "kill", "--signal=HUP", UNIT])?;
    wait_for("the status to tell", || {
        let status = Service::property("StatusText").ok()?;
        status.contains(problem).then_some(())
    })?;
    fs::write(SETTINGS, shipped)?;
    run(&["systemctl", "reload", UNIT])?;
    wait_for("the status to tell no more", || {
        let status = Service::property("StatusText").ok()?;
        (!status.contains(problem)).then_some(())
    })?;
    ensure!(Service::pid()? == before, "another daemon runs");
    lingerd().scrape().map(drop)
}

pub(crate) fn watchdog_ends_a_hung_daemon() -> Result<()> {
    Service::restart_with("[Service]\nWatchdogSec=10\n")?;
    let fed = || Ok::<u64, Error>(Service::property("WatchdogTimestampMonotonic")?.parse()?);
    // Without a keep-alive ping, the watchdog would have expired meanwhile.
    let begin = fed()?;
    wait_for("the watchdog to be fed", || {
        let now = fed().ok()?;
        (now > begin + 10_000_000).then_some(())
    })?;
    let restarts = Service::restarts()?;
    ensure!(restarts == 0, "a daemon at work was ended");
    run(&["systemctl", "kill", "--signal=STOP", UNIT])?;
    Service::wait_for_restart(restarts)?;
    ensure!(
        Service::log().contains("Watchdog timeout"),
        "it was not the watchdog"
    );
    lingerd().scrape()?;
    Service::restart_as_shipped()
}

pub(crate) fn killed_daemon_is_started_again() -> Result<()> {
    counting_goes_on(|| {
        let restarts = Service::restarts()?;
        run(&["systemctl", "kill", "--signal=KILL", UNIT])?;
        Service::wait_for_restart(restarts)
    })
}

pub(crate) fn restart_counts_on() -> Result<()> {
    counting_goes_on(Service::restart)
}

/// Expects `renew` to leave another daemon at work, which continues the counts of the one before if the service
/// persists, and otherwise starts from zero.
pub(crate) fn counting_goes_on(renew: impl FnOnce() -> Result<()>) -> Result<()> {
    let nginx = [("unit", "nginx.service")];
    let before = lingerd().closes(&nginx)?.get("graceful").copied();
    let pid = Service::pid()?;
    renew()?;
    Service::expect_active()?;
    ensure!(Service::pid()? != pid, "the old daemon still runs");
    Programs::of(&lingerd().scrape()?)?;
    (0..3).try_for_each(|_| server::ask(80, "/"))?;
    let before = if persists()? { before.unwrap_or(0) } else { 0 };
    lingerd().expect(&nginx, &[("graceful", before + 3)])
}

/// The service works under every plan: as shipped, with the example's drop-in for `kprobe`.
pub(crate) fn every_plan_works() -> Result<()> {
    let example = "/usr/share/doc/lingerd/examples/kprobe.conf";
    // The value on Debian, for which the example is made.
    fs::write("/proc/sys/kernel/perf_event_paranoid", "2")?;
    for plan in Plan::ALL {
        let name = plan.name();
        fs::create_dir_all(DROP_INS)?;
        if *plan == Plan::Kprobe {
            fs::copy(example, Path::new(DROP_INS).join("kprobe.conf"))?;
        }
        Service::restart_with(&format!(
            "[Service]\nExecStart=\nExecStart=/usr/bin/lingerd run --plan {name}\n"
        ))
        .with_context(|| format!("plan {name}"))?;
        Programs::of(&lingerd().scrape()?).with_context(|| format!("plan {name}"))?;
        has_no_capability().with_context(|| format!("plan {name}"))?;
        fs::remove_dir_all(DROP_INS)?;
    }
    Service::restart()
}

/// The service takes the socket of the example: a scrape over it is answered once the service runs.
pub(crate) fn socket_is_taken() -> Result<()> {
    let unit = "/run/systemd/system/lingerd.socket";
    run(&["systemctl", "stop", UNIT])?;
    fs::copy("/usr/share/doc/lingerd/examples/lingerd.socket", unit)?;
    run(&["systemctl", "daemon-reload"])?;
    run(&["systemctl", "start", "lingerd.socket"])?;
    let started = run(&["systemctl", "start", UNIT]);
    let scraped = started.and_then(|_| lingerd().scrape());
    let taken = !Service::log().contains("is another lingerd running?");
    run(&["systemctl", "stop", "lingerd.socket", UNIT])?;
    fs::remove_file(unit)?;
    Service::restart()?;
    ensure!(taken, "this lingerd takes no socket from systemd");
    scraped.map(drop)
}

/// Stopping detaches the programs, unless the service persists: then counting goes on.
pub(crate) fn stop_detaches() -> Result<()> {
    let programs = Programs::of(&lingerd().scrape()?)?;
    run(&["systemctl", "stop", UNIT])?;
    if persists()? {
        ensure!(!programs.loaded()?.is_empty(), "nothing persists");
        return Ok(());
    }
    programs.expect_gone()
}

/// Returns whether the settings make counting go on without the daemon.
fn persists() -> Result<bool> {
    let settings = run(&["lingerd", "config", "show", "--json"])?;
    let settings: Vec<Value> = serde_json::from_str(&settings)?;
    let persist = settings.iter().find(|setting| setting["key"] == "persist");
    Ok(persist.is_some_and(|setting| setting["value"] == true))
}
