//! Finds what building and testing need beyond Rust, and installs what is missing.

mod grafana;
mod qemu;

use std::collections::BTreeSet;
use std::fs;
use std::hash::Hash;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::architecture::Architecture;
use crate::cache;
use crate::debian;
use crate::kernels::{self, Entry, TABLE};
use crate::oldest;
use crate::shell::{self, cargo, command, output, run, tool, tools};

/// What the machine is to be made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// `cargo build`, `cargo xtask run`
    Build,
    /// `cargo xtask package`, besides building
    Package,
    /// `cargo xtask package --release`, besides packages of both architectures
    Release,
    /// `cargo xtask lab stack`, besides building
    Stack,
    /// `cargo xtask lab bench`, besides building
    Bench,
    /// `cargo xtask docs`
    Docs,
    /// `cargo xtask test` and `vm`, besides all of this
    Test,
    /// `cargo xtask package --arch arm64`, besides packages of this machine's
    PackageArm64,
    /// `cargo xtask test --full`, and `vm` on kernels of arm64, besides what tests need
    FullTest,
}

impl Purpose {
    /// Returns the purpose that covers tests on machines of this architecture.
    pub fn test_on(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Amd64 => Self::Test,
            Architecture::Arm64 => Self::FullTest,
        }
    }
}

/// A program or file system that must be present.
struct Need {
    what: &'static str,
    why: &'static str,
    present: fn() -> bool,
    /// Debian packages to install for it.
    packages: &'static [&'static str],
    /// The step that completes the installation after that.
    then: Option<fn() -> Result<()>>,
    /// How to get it on systems other than Debian.
    elsewhere: &'static str,
}

const BUILD: &[Need] = &[
    Need {
        what: "a Rust compiler for BPF",
        why: "compiles the programs that run in the kernel; rustc-web brings core for BPF",
        present: || bpf_rustc().is_some(),
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        then: None,
        elsewhere: "`rustup component add rust-src`, or point LINGER_BPF_RUSTC at a rustc that has \
                    core for bpfel-unknown-none",
    },
    Need {
        what: "bpf-linker 0.13.0",
        why: "links those programs; it is compiled here, against Debian's LLVM 22",
        present: has_bpf_linker,
        packages: &["llvm-22-dev", "libclang-22-dev", "libpolly-22-dev", "g++"],
        then: Some(|| BPF_LINKER.install()),
        elsewhere: "install LLVM 22 with headers, then `LLVM_PREFIX=<its folder> cargo install \
                    bpf-linker --version 0.13.0 --locked --no-default-features --features llvm-22`, \
                    and keep it on the path (or point LINGER_BPF_LINKER at it)",
    },
];

const PACKAGE: &[Need] = &[
    Need {
        what: "cargo-deb 3.8.0",
        why: "makes the Debian package; it is compiled here, in a minute",
        present: || CARGO_DEB.is_linked(),
        packages: &[],
        then: Some(|| CARGO_DEB.install()),
        elsewhere: "`cargo install cargo-deb --version 3.8.0 --locked --root target/tools`",
    },
    Need {
        what: "dpkg-shlibdeps",
        why: "finds the packages that the daemon's binary depends on",
        present: || shell::find("dpkg-shlibdeps").is_some(),
        packages: &["dpkg-dev"],
        then: None,
        elsewhere: "install dpkg-dev",
    },
    Need {
        what: "lintian",
        why: "checks the Debian package",
        present: || shell::find("lintian").is_some(),
        packages: &["lintian"],
        then: None,
        elsewhere: "only found on Debian",
    },
];

/// Needs of a release beyond those of the packages.
const RELEASE: &[Need] = &[
    Need {
        what: "cargo-generate-rpm 0.21.1",
        why: "makes the rpm package; it is compiled here, in a few minutes",
        present: || CARGO_GENERATE_RPM.is_linked(),
        packages: &[],
        then: Some(|| CARGO_GENERATE_RPM.install()),
        elsewhere: "`cargo install cargo-generate-rpm --version 0.21.1 --locked --root target/tools`",
    },
    Need {
        what: "cargo-auditable 0.7.7",
        why: "writes the list of libraries into the binary; it is compiled here, in a minute",
        present: || CARGO_AUDITABLE.is_linked(),
        packages: &[],
        then: Some(|| CARGO_AUDITABLE.install()),
        elsewhere: "`cargo install cargo-auditable --version 0.7.7 --locked --root target/tools`",
    },
    Need {
        what: "rpm and rpmlint",
        why: "check the rpm package, and install, upgrade and remove it in a root of its own",
        present: || shell::find("rpm").is_some() && shell::find("rpmlint").is_some(),
        packages: &["rpm", "rpmlint"],
        then: None,
        elsewhere: "install rpm and rpmlint",
    },
    Need {
        what: "buildah and skopeo",
        why: "make the container image, and read it back",
        present: || shell::find("buildah").is_some() && shell::find("skopeo").is_some(),
        packages: &["buildah", "skopeo"],
        then: None,
        elsewhere: "install buildah and skopeo",
    },
];

const STACK: &[Need] = &[Need {
    what: "prometheus",
    why: "answers the dashboards' queries; taken out of Debian's package, so that none is started",
    present: || prometheus().is_some(),
    packages: &[],
    then: Some(|| unpack_tool("prometheus", "usr/bin/prometheus", "prometheus")),
    elsewhere: "put prometheus on the path or into target/tools/bin; no server needs to run",
}];

const BENCH: &[Need] = &[
    Need {
        what: "tcplife and tcpstates",
        why: "show how connections end, line by line; lingerd is measured beside them",
        present: || shell::find("tcplife").is_some() && shell::find("tcpstates").is_some(),
        packages: &["libbpf-tools"],
        then: None,
        elsewhere: "build them from libbpf-tools of github.com/iovisor/bcc, and put them on the path",
    },
    Need {
        what: "bpftrace",
        why: "counts closes by a script; lingerd is measured beside it",
        present: || shell::find("bpftrace").is_some(),
        packages: &["bpftrace"],
        then: None,
        elsewhere: "install bpftrace",
    },
];

/// Not needed by `cargo xtask test`, whose tests of the pages do without.
const DOCS: &[Need] = &[Need {
    what: "mdbook 0.5.4",
    why: "makes the book of the pages in docs; it is compiled here, in a few minutes",
    present: || MDBOOK.is_linked(),
    packages: &[],
    then: Some(|| MDBOOK.install()),
    elsewhere: "`cargo install mdbook --version 0.5.4 --locked --root target/tools`",
}];

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
        present: || shell::find("cpio").is_some(),
        packages: &["cpio"],
        then: None,
        elsewhere: "install cpio",
    },
    Need {
        what: "depmod and modprobe",
        why: "find and load kernel modules that the tests use",
        present: || shell::find("depmod").is_some() && shell::find("modprobe").is_some(),
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
            Architecture::here() == Architecture::Arm64 || sysroot(Architecture::Arm64).is_dir()
        },
        packages: &["debian-archive-keyring"],
        then: Some(|| unpack_sysroot(Architecture::Arm64)),
        elsewhere: "only found on Debian",
    },
    Need {
        what: "GCC for arm64",
        why: "links what is built for arm64",
        present: || {
            Architecture::here() == Architecture::Arm64
                || shell::find("aarch64-linux-gnu-gcc").is_some()
        },
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
        present: has_bpf_clippy,
        packages: &[],
        then: Some(unpack_bpf_clippy),
        elsewhere: "only used with Debian's rustc-web",
    },
    Need {
        what: "cargo-deny 0.20.2",
        why: "checks the licences of the dependencies; it is compiled here, in a few minutes",
        present: || CARGO_DENY.is_linked(),
        packages: &[],
        then: Some(|| CARGO_DENY.install()),
        elsewhere: "`cargo install cargo-deny --version 0.20.2 --locked --root target/tools`",
    },
    Need {
        what: "ip and tc",
        why: "make the networks of the tests",
        present: || shell::find("ip").is_some() && shell::find("tc").is_some(),
        packages: &["iproute2"],
        then: None,
        elsewhere: "install iproute2",
    },
    Need {
        what: "tmux",
        why: "a terminal for the tests of `lingerd top`",
        present: || shell::find("tmux").is_some(),
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
        present: || shell::find("python3").is_some(),
        packages: &["python3"],
        then: None,
        elsewhere: "install python3",
    },
    Need {
        what: "Node",
        why: "closes connections in tests",
        present: || shell::find("node").is_some(),
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
        present: || shell::find("chromium").is_some(),
        packages: &["chromium"],
        then: None,
        elsewhere: "put chromium on the path; without it, the tests of the page are not run",
    },
    Need {
        what: "promtool",
        why: "checks the metrics; taken out of Debian's package prometheus, which is not installed",
        present: || promtool().is_some(),
        packages: &[],
        then: Some(unpack_promtool),
        elsewhere: "put promtool (part of Prometheus) on the path or into target/tools/bin",
    },
];

/// Installs what is missing; quick and silent if nothing is.
///
/// Fails where it cannot install by itself, and says what to install and how.
pub fn ensure(purpose: Purpose) -> Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    println!("linger needs, and this machine lacks:");
    for need in &missing {
        println!("  {:<26} {}", need.what, need.why);
    }
    if !is_debian() {
        println!("\nThis is not Debian, so please do this by hand:");
        for need in &missing {
            println!("  {:<26} {}", need.what, need.elsewhere);
        }
        bail!("{} tools are missing: see above for each", missing.len());
    }
    let _lock = cache::lock()?;
    // Another process may have installed some of it in the meantime.
    let missing = self::missing(purpose);
    install_packages(&missing)?;
    for need in &missing {
        if let Some(then) = need.then {
            println!("Preparing {}", need.what);
            then().with_context(|| format!("prepare {}", need.what))?;
        }
        if !(need.present)() {
            bail!(
                "{} is still not found after its installation: {}",
                need.what,
                need.elsewhere
            );
        }
    }
    println!("All tools are in place.");
    Ok(())
}

fn missing(purpose: Purpose) -> Vec<&'static Need> {
    let needs: &[&[Need]] = match purpose {
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
    };
    needs
        .iter()
        .flat_map(|needs| needs.iter())
        .filter(|need| !(need.present)())
        .collect()
}

/// Updates the package lists, and installs the Debian packages of these needs that are missing.
fn install_packages(needs: &[&Need]) -> Result<()> {
    let wanted: BTreeSet<&str> = needs
        .iter()
        .flat_map(|need| need.packages)
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        let wanted = Vec::from_iter(wanted).join(" ");
        bail!(
            "installing packages takes root. As root run: apt-get update && apt-get install \
             --no-install-recommends {wanted}; then run this command again"
        );
    }
    update_lists()?;
    run(command("apt-get")
        .args(["install", "--yes", "--no-install-recommends", "--quiet"])
        // Keeps progress output out of logs.
        .args(["-o", "Dpkg::Use-Pty=0"])
        .args(wanted)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Updates the package lists, once per process: a fresh machine may have none, or old ones whose packages are gone.
fn update_lists() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    let is_root = nix::unistd::geteuid().is_root();
    if DONE.set(()).is_err() || !is_root {
        return Ok(());
    }
    run(command("apt-get").args(["update", "--quiet=2"]))
}

fn is_installed(package: &str) -> bool {
    command("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

/// Debian's compiler, which the build prefers unless the environment names one.
pub const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Finds the compiler that `linger-ebpf/build.rs` will use.
fn bpf_rustc() -> Option<PathBuf> {
    let candidates = match std::env::var_os("LINGER_BPF_RUSTC") {
        Some(named) => vec![named.into()],
        None => vec![PathBuf::from(DEBIAN_RUSTC), PathBuf::from("rustc")],
    };
    candidates.into_iter().find(|rustc| {
        has_component(rustc, "bpfel-unknown-none/lib") || has_component(rustc, "src/rust/library")
    })
}

/// Returns whether Debian's compiler builds the kernel side.
pub fn has_debian_rustc() -> bool {
    bpf_rustc().is_some_and(|rustc| rustc == Path::new(DEBIAN_RUSTC))
}

fn has_component(rustc: &Path, folder: &str) -> bool {
    // Runs in the workspace, whose toolchain may differ from the default one.
    let sysroot = command(rustc).args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        output.status.success()
            && Path::new(sysroot.trim())
                .join("lib/rustlib")
                .join(folder)
                .is_dir()
    })
}

fn has_bpf_linker() -> bool {
    match std::env::var_os("LINGER_BPF_LINKER") {
        Some(named) => shell::works(Path::new(&named)),
        None if BPF_LINKER.is_linked() => shell::works(&BPF_LINKER.link()),
        // The build would use this link, made by another recipe, rather than a linker on the path.
        None if BPF_LINKER.link().is_symlink() => false,
        None => shell::find(BPF_LINKER.name).is_some_and(|linker| shell::works(&linker)),
    }
}

const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    options: &["--no-default-features", "--features", "llvm-22"],
};

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &[],
};

const CARGO_DEB: Tool = Tool {
    name: "cargo-deb",
    version: "3.8.0",
    options: &[],
};

const CARGO_GENERATE_RPM: Tool = Tool {
    name: "cargo-generate-rpm",
    version: "0.21.1",
    options: &[],
};

const CARGO_AUDITABLE: Tool = Tool {
    name: "cargo-auditable",
    version: "0.7.7",
    options: &[],
};

/// Without the features that serve a book and watch its pages.
const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    options: &["--no-default-features", "--features", "search"],
};

/// A tool compiled here, from crates.io.
struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
}

impl Tool {
    /// Returns the path where the build and the tests look for it.
    fn link(&self) -> PathBuf {
        tools().join(self.name)
    }

    /// Returns its folder in the cache.
    fn folder(&self) -> PathBuf {
        cached_tool(self.name, (self.version, self.options))
    }

    fn program(&self) -> PathBuf {
        self.folder().join("bin").join(self.name)
    }

    /// Returns whether it is where the build and the tests look, made by this recipe or put there by hand.
    fn is_linked(&self) -> bool {
        let link = self.link();
        let is_other = fs::read_link(&link).is_ok_and(|place| place != self.program());
        link.is_file() && !is_other
    }

    /// Compiles it unless the cache has one that works. A short build matters more than a fast tool.
    fn install(&self) -> Result<()> {
        let program = self.program();
        if !shell::works(&program) {
            run(cargo()
                .args(["install", self.name, "--version", self.version])
                .args(["--locked", "--force"])
                .args(self.options)
                .arg("--root")
                .arg(self.folder())
                .env("LLVM_PREFIX", "/usr/lib/llvm-22")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
                .env("CARGO_PROFILE_RELEASE_DEBUG", "0"))?;
        }
        link_tool(self.name, &program)
    }
}

/// Returns the folder in the cache of a tool made by this recipe.
fn cached_tool(name: &str, recipe: impl Hash) -> PathBuf {
    let folder = format!("{name}-{}", cache::key(recipe));
    cache::folder().join("tools").join(folder)
}

/// Links a program of the cache to where the build and the tests look.
fn link_tool(name: &str, program: &Path) -> Result<()> {
    let link = tools().join(name);
    fs::create_dir_all(tools())?;
    // An existing link is outdated or broken.
    if link.is_symlink() || link.exists() {
        fs::remove_file(&link)?;
    }
    symlink(program, &link).with_context(|| format!("link {}", link.display()))
}

/// Returns whether clippy for the kernel side is present, or not needed because another compiler builds that side.
fn has_bpf_clippy() -> bool {
    let other_rustc = bpf_rustc().is_some_and(|rustc| rustc != Path::new(DEBIAN_RUSTC));
    other_rustc || shell::works(&tools().join("bpf-clippy-driver"))
}

/// Finds the promtool to use.
fn promtool() -> Option<PathBuf> {
    tool("promtool")
}

/// Finds the Prometheus to use.
fn prometheus() -> Option<PathBuf> {
    tool("prometheus")
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

fn unpack_promtool() -> Result<()> {
    unpack_tool("prometheus", "usr/bin/promtool", "promtool")
}

/// Returns the version of Debian's compiler, which libraries and clippy must match.
fn rustc_version() -> Result<String> {
    output(command("dpkg-query").args(["--show", "--showformat=${Version}", "rustc-web"]))
}

/// Returns the sysroot with the standard library of Debian's compiler for another architecture.
pub(crate) fn sysroot(architecture: Architecture) -> PathBuf {
    let recipe = (architecture.debian(), rustc_version().ok());
    cached_tool("rust-std", recipe).join("usr")
}

fn unpack_sysroot(architecture: Architecture) -> Result<()> {
    kernels::update_lists()?;
    let version = rustc_version()?;
    let package = format!("libstd-rust-web-dev:{}={version}", architecture.debian());
    take(
        kernels::apt("apt-get"),
        &package,
        "usr",
        &sysroot(architecture),
    )
}

fn unpack_bpf_clippy() -> Result<()> {
    let package = format!("rust-web-clippy={}", rustc_version()?);
    unpack_tool(&package, "usr/bin/clippy-driver", "bpf-clippy-driver")
}

/// Unpacks a program or folder from a package of this Debian into the cache, under the name `name`, and links it.
fn unpack_tool(package: &str, file: &str, name: &str) -> Result<()> {
    let debian = fs::read_to_string("/etc/debian_version")?;
    let folder = cached_tool(name, (package, file, debian));
    let program = folder.join(name);
    if !program.exists() {
        update_lists()?;
        take(command("apt-get"), package, file, &program)?;
    }
    link_tool(name, &program)
}

/// Unpacks a file or folder from a package to a path in the cache.
fn take(apt_get: Command, package: &str, file: &str, to: &Path) -> Result<()> {
    let folder = to.parent().context("the cache is a folder")?;
    let partial = cache::partial(folder, "package")?;
    kernels::unpack(apt_get, package, &partial)?;
    fs::rename(partial.join(file), to)?;
    Ok(fs::remove_dir_all(partial)?)
}

/// Returns the lines of the table for an architecture.
fn kernels_of(architecture: Architecture) -> impl Iterator<Item = &'static Entry> {
    TABLE
        .iter()
        .filter(move |entry| entry.architecture == architecture)
}

/// Unpacks every kernel of an architecture in the table that the cache lacks.
fn unpack_kernels(architecture: Architecture) -> Result<()> {
    kernels::update_lists()?;
    let missing = kernels_of(architecture).filter(|entry| !entry.is_present());
    for entry in missing {
        // Two lines may share a package.
        if !entry.is_present() {
            entry
                .unpack()
                .with_context(|| format!("the kernel {}", entry.label))?;
        }
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

/// Mounts tracefs if it is not mounted: the `kprobe` plan makes its return probes there.
pub fn mount_tracefs() -> Result<()> {
    let place = Path::new("/sys/kernel/tracing");
    let is_root = nix::unistd::geteuid().is_root();
    // Without root it cannot be mounted; lingerd reports what it lacks.
    if place.join("events").is_dir() || !place.is_dir() || !is_root {
        return Ok(());
    }
    println!("Mounting tracefs: the kprobe plan makes its return probes there");
    run(command("mount")
        .args(["-t", "tracefs", "tracefs"])
        .arg(place))
}
