//! The Debian package, from its installation to its purge.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use linger_ebpf::Plan;

use crate::attached::Programs;
use crate::common::summary::{Pair, Summary, Verdict};
use crate::lingerd::Lingerd;
use crate::service::{self, Service};
use crate::tools::{self, run};
use crate::{server, tarball};

/// The files that are shipped.
#[derive(Debug)]
pub(crate) struct Files {
    /// The package.
    pub(crate) deb: String,
    /// The same package with a higher version.
    pub(crate) newer: String,
    /// The tarball.
    pub(crate) tarball: String,
}

/// A test; each builds on what those before it left.
type Test = fn(&Files) -> Result<()>;

/// All tests, in the order in which they run.
const ALL: &[(&str, Test)] = &[
    ("installed_package_counts", installed_package_counts),
    ("files_are_where_they_belong", files_are_where_they_belong),
    ("service_has_its_user_and_no_capability", |_| {
        service::has_no_capability()
    }),
    ("exposure_is_low", |_| service::exposure_is_low()),
    ("journal_has_fields", |_| service::journal_has_fields()),
    ("reload_takes_settings_over", |_| {
        service::reload_takes_settings_over()
    }),
    ("broken_settings_are_refused", |_| {
        service::broken_settings_are_refused()
    }),
    ("watchdog_ends_a_hung_daemon", |_| {
        service::watchdog_ends_a_hung_daemon()
    }),
    ("killed_daemon_is_started_again", |_| {
        service::killed_daemon_is_started_again()
    }),
    ("restart_counts_on", |_| service::restart_counts_on()),
    ("every_plan_works_as_a_service", |_| {
        service::every_plan_works()
    }),
    ("socket_is_taken_from_systemd", |_| {
        service::socket_is_taken()
    }),
    ("stop_detaches", |_| service::stop_detaches()),
    ("upgrade_keeps_settings", upgrade_keeps_settings),
    ("removal_leaves_settings_only", removal_leaves_settings_only),
    ("purge_leaves_nothing", purge_leaves_nothing),
    ("tarball_installs_by_its_instructions", |files| {
        tarball::installs(&files.tarball)
    }),
];

/// Runs all tests.
pub(crate) fn run_all(files: &Files, summary: Option<&Path>) -> Result<ExitCode> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("kernel {}, {}", kernel.trim(), tools::systemd_version()?);
    server::install()?;
    let mut results = Summary::default();
    for (name, test) in ALL {
        // The service chooses its plan itself, which is this one on these kernels.
        let verdict = Verdict::from(test(files));
        if matches!(verdict, Verdict::Failed(_)) {
            println!("{}", Service::log());
        }
        results.add(Pair::new(*name, Plan::Fentry, verdict));
    }
    results.end(summary, &serde_json::json!({ "kernel": kernel.trim() }))
}

/// After `dpkg --install` alone, the service is enabled, started and at work.
fn installed_package_counts(files: &Files) -> Result<()> {
    run(&["dpkg", "--install", &files.deb])?;
    ensure!(Service::property("UnitFileState")? == "enabled");
    Service::expect_active()?;
    let lingerd = Lingerd::installed(Plan::Fentry);
    (0..25).try_for_each(|_| server::ask(80, "/"))?;
    lingerd.expect(&[("unit", "nginx.service")], &[("graceful", 25)])?;
    let status = Service::property("StatusText")?;
    ensure!(
        status.starts_with("plan fentry, serving"),
        "status {status:?}"
    );
    Ok(())
}

fn files_are_where_they_belong(_: &Files) -> Result<()> {
    for file in [
        "/usr/share/man/man1/lingerd.1.gz",
        "/usr/share/man/man1/lingerd-run.1.gz",
        "/usr/share/man/man1/lingerd-config-check.1.gz",
        "/usr/share/man/man5/lingerd.toml.5.gz",
        "/usr/share/bash-completion/completions/lingerd",
        "/usr/share/zsh/vendor-completions/_lingerd",
        "/usr/share/fish/vendor_completions.d/lingerd.fish",
        "/usr/share/doc/lingerd/copyright",
        "/usr/share/doc/lingerd/changelog.Debian.gz",
        "/usr/share/doc/lingerd/examples/kprobe.conf",
        "/usr/share/doc/lingerd/docs/prometheus.md",
        "/usr/share/lingerd/dashboards/host-overview.json",
        "/usr/share/lingerd/rules/lingerd-recording.yaml",
        "/usr/share/lingerd/rules/lingerd-alerts.yaml",
    ] {
        ensure!(Path::new(file).is_file(), "{file} is missing");
    }
    let settings = run(&[
        "dpkg-query",
        "--show",
        "--showformat=${Conffiles}",
        "lingerd",
    ])?;
    ensure!(settings.contains(SETTINGS), "conffiles {settings:?}");
    // Completes the typed words as bash would.
    let script = "source /usr/share/bash-completion/completions/lingerd; COMP_WORDS=(lingerd ch); \
                  COMP_CWORD=1; _lingerd lingerd ch lingerd; echo ${COMPREPLY[@]}";
    let completed = run(&["bash", "-c", script])?;
    ensure!(completed.trim() == "check", "completed {completed:?}");
    Ok(())
}

/// The package's settings.
const SETTINGS: &str = "/etc/linger/lingerd.toml";

fn upgrade_keeps_settings(files: &Files) -> Result<()> {
    let changed = fs::read_to_string(SETTINGS)? + "# changed here\n";
    fs::write(SETTINGS, &changed)?;
    run(&["systemctl", "start", service::UNIT])?;
    service::counting_goes_on(|| run(&["dpkg", "--install", &files.newer]).map(drop))?;
    ensure!(
        fs::read_to_string(SETTINGS)? == changed,
        "settings were replaced"
    );
    Ok(())
}

fn removal_leaves_settings_only(_: &Files) -> Result<()> {
    let programs = Programs::of(&Lingerd::installed(Plan::Fentry).scrape()?)?;
    run(&["dpkg", "--remove", "lingerd"])?;
    ensure!(Service::property("ActiveState")? == "inactive");
    programs.expect_gone()?;
    ensure!(pinned()?.is_empty(), "{:?} are still pinned", pinned()?);
    let probes = fs::read_to_string("/sys/kernel/tracing/kprobe_events")?;
    ensure!(!probes.contains("lingerd"), "probes are left: {probes}");
    ensure!(!Path::new("/usr/bin/lingerd").exists());
    ensure!(Path::new(SETTINGS).exists(), "the settings are gone");
    Ok(())
}

fn purge_leaves_nothing(_: &Files) -> Result<()> {
    run(&["dpkg", "--purge", "lingerd"])?;
    for path in [
        "/etc/linger",
        PINS,
        "/run/lingerd",
        "/usr/share/doc/lingerd",
        "/usr/share/lingerd",
    ] {
        ensure!(!Path::new(path).exists(), "{path} is still there");
    }
    run(&["systemctl", "daemon-reload"])?;
    ensure!(Service::property("LoadState")? == "not-found");
    let links = run(&[
        "find",
        "/etc/systemd",
        "/var/lib/systemd",
        "-name",
        "lingerd*",
    ])?;
    ensure!(links.is_empty(), "left: {links}");
    Ok(())
}

/// Directory of the service's pins.
const PINS: &str = "/sys/fs/bpf/lingerd";

/// Returns the names of all pins.
fn pinned() -> Result<Vec<String>> {
    let folder = match fs::read_dir(PINS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folder => folder.context(PINS)?,
    };
    folder
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}
