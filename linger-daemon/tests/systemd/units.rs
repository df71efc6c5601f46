//! Each kind of unit, and the closes that it makes.
//!
//! The expected counts follow from the requests: for each, the server accepts one connection, and closes it while the
//! client still has it open and waits for the end. With everything sent that is a graceful close; with `SO_LINGER` and
//! a time of zero it is an abort. The listening socket of a server stays open until the unit is stopped. So the counts
//! are the numbers of requests, and no group has other closes.

use std::path::Path;

use anyhow::{Result, ensure};
use linger_ebpf::Plan;

use crate::lingerd::Lingerd;
use crate::server::{Server, ask};
use crate::tools::wait_for;

/// A test; no two of them use the same unit, so that each group starts without closes.
pub(crate) type Test = fn(&Lingerd) -> Result<()>;

/// All tests, in the order in which they run.
pub(crate) const ALL: &[(&str, Test)] = &[
    ("debians_own_service", debians_own_service),
    ("service_with_two_outcomes", service_with_two_outcomes),
    ("instances_of_a_template", instances_of_a_template),
    ("scope_of_a_user", scope_of_a_user),
    ("service_of_a_user", service_of_a_user),
    ("scope_named_as_docker_does", scope_named_as_docker_does),
    ("unit_gone_before_the_scrape", unit_gone_before_the_scrape),
    ("nothing_is_lost", nothing_is_lost),
];

/// Label of the server's process.
const PYTHON: (&str, &str) = ("comm", "python3");

/// Slice of the system's services.
const SYSTEM: (&str, &str) = ("slice", "system.slice");

/// Slice of what a user starts.
const APP: (&str, &str) = ("slice", "app.slice");

/// The nginx that was started at boot, whose workers close.
fn debians_own_service(lingerd: &Lingerd) -> Result<()> {
    (0..25).try_for_each(|_| ask(80, "/"))?;
    lingerd.expect(
        &[
            ("unit", "nginx.service"),
            ("slice", "system.slice"),
            ("container", ""),
            ("comm", "nginx"),
            ("exe", "/usr/sbin/nginx"),
        ],
        &[("graceful", 25)],
    )
}

fn service_with_two_outcomes(lingerd: &Lingerd) -> Result<()> {
    let server = Server::of_system("py-web.service")?;
    server.ask("/", 20)?;
    server.ask("/abort", 7)?;
    lingerd.expect(
        &[("unit", "py-web.service"), SYSTEM, PYTHON],
        &[("graceful", 20), ("linger_aborted", 7)],
    )
}

fn instances_of_a_template(lingerd: &Lingerd) -> Result<()> {
    let one = Server::of_system("web@one.service")?;
    let two = Server::of_system("web@two.service")?;
    one.ask("/", 3)?;
    two.ask("/", 5)?;
    one.ask("/", 1)?;
    // systemd creates a slice for the instances.
    let slice = ("slice", "system-web.slice");
    for (unit, closes) in [("web@one.service", 4), ("web@two.service", 5)] {
        lingerd.expect(&[("unit", unit), slice, PYTHON], &[("graceful", closes)])?;
    }
    Ok(())
}

/// The innermost unit counts, not the service of the user's manager.
fn scope_of_a_user(lingerd: &Lingerd) -> Result<()> {
    let server = Server::in_scope("web-in-scope.scope")?;
    server.ask("/", 11)?;
    lingerd.expect(
        &[("unit", "web-in-scope.scope"), APP, PYTHON],
        &[("graceful", 11)],
    )
}

fn service_of_a_user(lingerd: &Lingerd) -> Result<()> {
    let server = Server::of_user("web-of-user.service")?;
    server.ask("/", 6)?;
    lingerd.expect(
        &[("unit", "web-of-user.service"), APP, PYTHON],
        &[("graceful", 6)],
    )
}

/// A container is recognized by the name of its scope.
fn scope_named_as_docker_does(lingerd: &Lingerd) -> Result<()> {
    let id = "0123456789ab".repeat(6);
    let unit = format!("docker-{}.scope", &id[..64]);
    let server = Server::in_scope(&unit)?;
    server.ask("/", 2)?;
    lingerd.expect(
        &[
            ("unit", unit.as_str()),
            ("container", "0123456789ab"),
            PYTHON,
        ],
        &[("graceful", 2)],
    )
}

/// The first scrape since the unit's start comes after its cgroup is gone. (A signal stops the server: its exit closes
/// its listening socket.)
fn unit_gone_before_the_scrape(lingerd: &Lingerd) -> Result<()> {
    let cgroup = Path::new("/sys/fs/cgroup/system.slice/gone.service");
    let mut server = Server::of_system("gone.service")?;
    ensure!(cgroup.exists(), "{} is elsewhere", cgroup.display());
    server.ask("/", 13)?;
    server.stop()?;
    wait_for("the cgroup to go", || (!cgroup.exists()).then_some(()))?;
    lingerd.expect(
        &[("unit", "gone.service"), SYSTEM, PYTHON],
        &[("graceful", 13), ("listener", 1)],
    )
}

fn nothing_is_lost(lingerd: &Lingerd) -> Result<()> {
    let scrape = lingerd.scrape()?;
    let losses: Vec<_> = scrape.of("linger_lost_total").collect();
    ensure!(!losses.is_empty(), "there is no linger_lost_total");
    for lost in losses {
        let what = lost.label("what");
        // The servers' listening sockets are closed at exit, where this plan sees no return.
        if what == "return" && lingerd.plan == Plan::Tracepoint {
            continue;
        }
        ensure!(lost.value == 0.0, "{what}: {}", lost.value);
    }
    Ok(())
}
