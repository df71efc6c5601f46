//! What tests need, besides test machines.

use anyhow::Result;

use super::{Need, compiled, has};
use crate::oldest;
use crate::setup::tools::{Compiled, unpack_tool};
use crate::setup::{grafana, rust};
use crate::shell::{cargo, command, run, tool, tools};

pub(super) const TEST: &[Need] = &[
    Need {
        what: "rustfmt and clippy",
        why: "check form and style",
        present: || has_subcommand("fmt") && has_subcommand("clippy"),
        packages: &[],
        then: Some(|| run(command("rustup").args(["component", "add", "rustfmt", "clippy"]))),
        elsewhere: "`rustup component add rustfmt clippy`",
    },
    Need {
        what: "clippy for the kernel side",
        why: "checks the BPF programs with the compiler that builds them; unpacked, not installed",
        present: rust::has_bpf_clippy,
        packages: &[],
        then: Some(rust::unpack_bpf_clippy),
        elsewhere: "only used with Debian's rustc-web",
    },
    compiled!(
        "cargo-deny",
        "0.20.2",
        [],
        "checks the licences of the dependencies; it is compiled here, in a few minutes"
    ),
    Need {
        what: "ip and tc",
        why: "make the networks of the tests",
        present: || has(&["ip", "tc"]),
        packages: &["iproute2"],
        then: None,
        elsewhere: "install iproute2",
    },
    Need {
        what: "tmux",
        why: "a terminal for the tests of `lingerd top`",
        present: || has(&["tmux"]),
        packages: &["tmux"],
        then: None,
        elsewhere: "install tmux",
    },
    Need {
        what: "nginx",
        why: "closes connections in tests; taken out of Debian's package, so that none is started",
        present: || has_server("nginx"),
        packages: &["libpcre2-8-0", "libssl3"],
        then: Some(|| unpack_tool("nginx", "usr/sbin/nginx", "nginx")),
        elsewhere: "put nginx on the path or into target/tools/bin; no server needs to run",
    },
    Need {
        what: "HAProxy",
        why: "closes connections in tests; taken out of Debian's package, so that none is started",
        present: || has_server("haproxy"),
        packages: &[
            "liblua5.3-0",
            "libopentracing-c-wrapper0",
            "libpcre2-8-0",
            "libssl3",
        ],
        then: Some(|| unpack_tool("haproxy", "usr/sbin/haproxy", "haproxy")),
        elsewhere: "put haproxy on the path or into target/tools/bin; no server needs to run",
    },
    Need {
        what: "Python 3",
        why: "closes connections in tests",
        present: || has(&["python3"]),
        packages: &["python3"],
        then: None,
        elsewhere: "install python3",
    },
    Need {
        what: "Node",
        why: "closes connections in tests",
        present: || has(&["node"]),
        packages: &["nodejs"],
        then: None,
        elsewhere: "put node on the path",
    },
    Need {
        what: "prometheus_client for Python",
        why: "reads the metrics as OpenMetrics; taken out of Debian's package, which is not installed",
        present: has_python_parser,
        packages: &[],
        then: Some(unpack_python_parser),
        elsewhere: "`pip install prometheus_client`",
    },
    Need {
        what: "Grafana's types for Python",
        why: "keep what they know of the dashboards; taken from PyPI into the cache",
        present: grafana::is_present,
        packages: &["python3", "python3-pip"],
        then: Some(grafana::install),
        elsewhere: "only found by pip: python 3.11 or later, and its pip",
    },
    Need {
        what: "Chromium",
        why: "shows the daemon's page in tests",
        present: || has(&["chromium"]),
        packages: &["chromium"],
        then: None,
        elsewhere: "put chromium on the path; without it, the tests of the page are not run",
    },
    Need {
        what: "promtool",
        why: "checks the metrics; taken out of Debian's package prometheus, which is not installed",
        present: || tool("promtool").is_some(),
        packages: &[],
        then: Some(|| unpack_tool("prometheus", "usr/bin/promtool", "promtool")),
        elsewhere: "put promtool (part of Prometheus) on the path or into target/tools/bin",
    },
];

/// libFuzzer is compiled with the fuzz targets.
pub(super) const FUZZ: &[Need] = &[Need {
    what: "a C++ compiler",
    why: "compiles libFuzzer",
    present: || has(&["c++"]),
    packages: &["g++"],
    then: None,
    elsewhere: "install a C++ compiler that is called c++",
}];

/// Only full tests use a second compiler.
pub(super) const OLDEST: &[Need] = &[Need {
    what: "the oldest Rust that is enough",
    why: "checks `rust-version` of Cargo.toml; a toolchain of rustup, beside the one in use",
    present: oldest::is_present,
    packages: &[],
    then: Some(oldest::install),
    elsewhere: "`rustup toolchain install` with that version",
}];

/// Returns whether this server is present, with the libraries that it needs.
fn has_server(name: &str) -> bool {
    let version = |server| command(server).arg("-v").output();
    tool(name).is_some_and(|server| version(server).is_ok_and(|output| output.status.success()))
}

/// Returns whether Python has a parser of `OpenMetrics`.
fn has_python_parser() -> bool {
    let import = "import prometheus_client.openmetrics.parser";
    let mut python = command("python3");
    python.args(["-c", import]).env("PYTHONPATH", tools());
    python.output().is_ok_and(|output| output.status.success())
}

fn unpack_python_parser() -> Result<()> {
    let folder = "usr/lib/python3/dist-packages/prometheus_client";
    unpack_tool("python3-prometheus-client", folder, "prometheus_client")
}

/// Returns whether cargo has this command.
fn has_subcommand(name: &str) -> bool {
    cargo()
        .args([name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}
