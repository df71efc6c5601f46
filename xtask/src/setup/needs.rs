//! The table of what building and testing need.

use anyhow::{Context as _, Result};

use super::tools::{Compiled, unpack_tool};
use super::{Purpose, grafana, qemu, rust};
use crate::apt;
use crate::architecture::Architecture;
use crate::debian;
use crate::kernels::{Entry, TABLE};
use crate::oldest;
use crate::shell::{self, cargo, command, run, tool, tools};

/// A program or file system that must be present.
pub(super) struct Need {
    pub(super) what: &'static str,
    pub(super) why: &'static str,
    pub(super) present: fn() -> bool,
    /// Debian packages to install for it.
    pub(super) packages: &'static [&'static str],
    /// The step that completes the installation after that.
    pub(super) then: Option<fn() -> Result<()>>,
    /// How to get it on systems other than Debian.
    pub(super) elsewhere: &'static str,
}

/// Returns the needs of a purpose, in the order in which they are met.
pub(super) fn of(purpose: Purpose) -> &'static [&'static [Need]] {
    match purpose {
        Purpose::Build => &[BUILD],
        Purpose::Package => &[BUILD, PACKAGE],
        Purpose::Release => &[BUILD, PACKAGE, MACHINE, CROSS, RELEASE],
        Purpose::Stack => &[BUILD, STACK],
        Purpose::Bench => &[BUILD, BENCH, MACHINE],
        Purpose::Docs => &[DOCS],
        Purpose::Test => &[BUILD, PACKAGE, STACK, BENCH, MACHINE, TEST],
        Purpose::PackageArm64 => &[BUILD, PACKAGE, CROSS],
        Purpose::FullTest => &[
            BUILD,
            PACKAGE,
            STACK,
            BENCH,
            MACHINE,
            TEST,
            OLDEST,
            CROSS,
            MACHINE_ARM64,
        ],
    }
}

/// A tool that is compiled here: its name, version and options for cargo, and why it is needed.
macro_rules! compiled {
    ($name:literal, $version:literal, $options:expr, $why:literal) => {{
        const TOOL: Compiled = Compiled {
            name: $name,
            version: $version,
            options: &$options,
        };
        Need {
            what: concat!($name, " ", $version),
            why: $why,
            present: || TOOL.is_linked(),
            packages: &[],
            then: Some(|| TOOL.install()),
            elsewhere: concat!(
                "`cargo install ",
                $name,
                " --version ",
                $version,
                " --locked --root target/tools`"
            ),
        }
    }};
}

const BUILD: &[Need] = &[
    Need {
        what: "a Rust compiler for BPF",
        why: "compiles the programs that run in the kernel; rustc-web brings core for BPF",
        present: || rust::bpf_rustc().is_some(),
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        then: None,
        elsewhere: "`rustup component add rust-src`, or point LINGER_BPF_RUSTC at a rustc that has \
                    core for bpfel-unknown-none",
    },
    Need {
        what: "bpf-linker 0.13.0",
        why: "links those programs; it is compiled here, against Debian's LLVM 22",
        present: rust::has_bpf_linker,
        packages: &["llvm-22-dev", "libclang-22-dev", "libpolly-22-dev", "g++"],
        then: Some(|| rust::BPF_LINKER.install()),
        elsewhere: "install LLVM 22 with headers, then `LLVM_PREFIX=<its folder> cargo install \
                    bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22`, \
                    and keep it on the path (or point LINGER_BPF_LINKER at it)",
    },
];

const PACKAGE: &[Need] = &[
    compiled!(
        "cargo-deb",
        "3.8.0",
        [],
        "makes the Debian package; it is compiled here, in a minute"
    ),
    Need {
        what: "dpkg-shlibdeps",
        why: "finds the packages that the daemon's binary depends on",
        present: || has(&["dpkg-shlibdeps"]),
        packages: &["dpkg-dev"],
        then: None,
        elsewhere: "install dpkg-dev",
    },
    Need {
        what: "lintian",
        why: "checks the Debian package",
        present: || has(&["lintian"]),
        packages: &["lintian"],
        then: None,
        elsewhere: "only found on Debian",
    },
];

/// Needs of a release beyond those of the packages.
const RELEASE: &[Need] = &[
    compiled!(
        "cargo-generate-rpm",
        "0.21.1",
        [],
        "makes the rpm package; it is compiled here, in a few minutes"
    ),
    compiled!(
        "cargo-auditable",
        "0.7.7",
        [],
        "writes the list of libraries into the binary; it is compiled here, in a minute"
    ),
    Need {
        what: "rpm and rpmlint",
        why: "check the rpm package, and install, upgrade and remove it in a root of its own",
        present: || has(&["rpm", "rpmlint"]),
        packages: &["rpm", "rpmlint"],
        then: None,
        elsewhere: "install rpm and rpmlint",
    },
    Need {
        what: "buildah and skopeo",
        why: "make the container image, and read it back",
        present: || has(&["buildah", "skopeo"]),
        packages: &["buildah", "skopeo"],
        then: None,
        elsewhere: "install buildah and skopeo",
    },
];

const STACK: &[Need] = &[Need {
    what: "prometheus",
    why: "answers the dashboards' queries; taken out of Debian's package, so that none is started",
    present: || tool("prometheus").is_some(),
    packages: &[],
    then: Some(|| unpack_tool("prometheus", "usr/bin/prometheus", "prometheus")),
    elsewhere: "put prometheus on the path or into target/tools/bin; no server needs to run",
}];

const BENCH: &[Need] = &[
    Need {
        what: "tcplife and tcpstates",
        why: "show how connections end, line by line; lingerd is measured beside them",
        present: || has(&["tcplife", "tcpstates"]),
        packages: &["libbpf-tools"],
        then: None,
        elsewhere: "build them from libbpf-tools of github.com/iovisor/bcc, and put them on the path",
    },
    Need {
        what: "bpftrace",
        why: "counts closes by a script; lingerd is measured beside it",
        present: || has(&["bpftrace"]),
        packages: &["bpftrace"],
        then: None,
        elsewhere: "install bpftrace",
    },
];

/// Not needed by `cargo xtask test`, whose tests of the pages do without.
const DOCS: &[Need] = &[compiled!(
    "mdbook",
    "0.5.4",
    ["--no-default-features", "--features", "search"],
    "makes the book of the pages in docs; it is compiled here, in a few minutes"
)];

/// Needs of a machine in QEMU.
const MACHINE: &[Need] = &[
    Need {
        what: "QEMU for x86",
        why: "boots the kernels that the tests run on",
        present: || qemu::is_present(Architecture::Amd64),
        packages: &[qemu::package(Architecture::Amd64), "debian-archive-keyring"],
        then: Some(|| qemu::install(Architecture::Amd64)),
        elsewhere: "install qemu-system-x86_64, 8.1 or later",
    },
    Need {
        what: "cpio",
        why: "packs its file system",
        present: || has(&["cpio"]),
        packages: &["cpio"],
        then: None,
        elsewhere: "install cpio",
    },
    Need {
        what: "depmod and modprobe",
        why: "find and load kernel modules that the tests use",
        present: || has(&["depmod", "modprobe"]),
        packages: &["kmod"],
        then: None,
        elsewhere: "install kmod",
    },
    Need {
        what: "Debian 12 with systemd",
        why: "the user space of that machine; made in the cache",
        present: || debian::is_present(Architecture::Amd64),
        packages: &["mmdebstrap"],
        then: Some(|| debian::make(Architecture::Amd64)),
        elsewhere: "only made on Debian, by mmdebstrap",
    },
    Need {
        what: "Debian's kernels",
        why: "to test on; unpacked in the cache, not installed",
        present: || kernels_of(Architecture::Amd64).all(Entry::is_present),
        packages: &["debian-archive-keyring"],
        then: Some(|| unpack_kernels(Architecture::Amd64)),
        elsewhere: "only found on Debian",
    },
];

/// Needs of building for arm64 on another architecture.
const CROSS: &[Need] = &[
    Need {
        what: "Rust's library for arm64",
        why: "what is built for arm64 is linked of it; unpacked in the cache, not installed",
        present: || {
            Architecture::here() == Architecture::Arm64
                || rust::sysroot(Architecture::Arm64).is_dir()
        },
        packages: &["debian-archive-keyring"],
        then: Some(|| rust::unpack_sysroot(Architecture::Arm64)),
        elsewhere: "only found on Debian",
    },
    Need {
        what: "GCC for arm64",
        why: "links what is built for arm64",
        present: || Architecture::here() == Architecture::Arm64 || has(&["aarch64-linux-gnu-gcc"]),
        packages: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        then: None,
        elsewhere: "install a GCC that is called aarch64-linux-gnu-gcc",
    },
];

/// Needs of an arm64 machine in QEMU.
const MACHINE_ARM64: &[Need] = &[
    Need {
        what: "QEMU for arm64",
        why: "boots the kernels of arm64 that the tests run on",
        present: || qemu::is_present(Architecture::Arm64),
        packages: &[qemu::package(Architecture::Arm64), "debian-archive-keyring"],
        then: Some(|| qemu::install(Architecture::Arm64)),
        elsewhere: "install qemu-system-aarch64, 8.1 or later",
    },
    Need {
        what: "Debian 12 for arm64",
        why: "the user space of that machine; made in the cache, by emulated programs",
        present: || debian::is_present(Architecture::Arm64),
        packages: &["mmdebstrap", "qemu-user-static", "arch-test"],
        then: Some(|| debian::make(Architecture::Arm64)),
        elsewhere: "only made on Debian, by mmdebstrap",
    },
    Need {
        what: "Debian's kernels for arm64",
        why: "to test on; unpacked in the cache, not installed",
        present: || kernels_of(Architecture::Arm64).all(Entry::is_present),
        packages: &["debian-archive-keyring"],
        then: Some(|| unpack_kernels(Architecture::Arm64)),
        elsewhere: "only found on Debian",
    },
];

/// Only full tests use a second compiler.
const OLDEST: &[Need] = &[Need {
    what: "the oldest Rust that is enough",
    why: "checks `rust-version` of Cargo.toml; a toolchain of rustup, beside the one in use",
    present: oldest::is_present,
    packages: &[],
    then: Some(oldest::install),
    elsewhere: "`rustup toolchain install` with that version",
}];

const TEST: &[Need] = &[
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

/// Returns whether all these programs are on the path.
fn has(programs: &[&str]) -> bool {
    programs
        .iter()
        .all(|program| shell::find(program).is_some())
}

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

/// Returns the lines of the table for an architecture.
fn kernels_of(architecture: Architecture) -> impl Iterator<Item = &'static Entry> {
    TABLE
        .iter()
        .filter(move |entry| entry.architecture == architecture)
}

/// Unpacks every kernel of an architecture in the table that the cache lacks.
fn unpack_kernels(architecture: Architecture) -> Result<()> {
    apt::update_lists()?;
    // Asked before each, since two lines may share a package.
    for entry in kernels_of(architecture).filter(|entry| !entry.is_present()) {
        entry
            .unpack()
            .with_context(|| format!("the kernel {}", entry.label))?;
    }
    Ok(())
}

/// Returns whether cargo has this command.
fn has_subcommand(name: &str) -> bool {
    cargo()
        .args([name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}
