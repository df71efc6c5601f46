//! What building, packaging and measuring need.

use super::{Need, compiled, has};
use crate::setup::rust;
use crate::setup::tools::{Compiled, unpack_tool};
use crate::shell::tool;

pub(super) const BUILD: &[Need] = &[
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

pub(super) const PACKAGE: &[Need] = &[
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
pub(super) const RELEASE: &[Need] = &[
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

pub(super) const STACK: &[Need] = &[Need {
    what: "prometheus",
    why: "answers the dashboards' queries; taken out of Debian's package, so that none is started",
    present: || tool("prometheus").is_some(),
    packages: &[],
    then: Some(|| unpack_tool("prometheus", "usr/bin/prometheus", "prometheus")),
    elsewhere: "put prometheus on the path or into target/tools/bin; no server needs to run",
}];

pub(super) const BENCH: &[Need] = &[
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
    Need {
        what: "bpftool",
        why: "shows the kernel memory that lingerd's maps take",
        present: || has(&["bpftool"]),
        packages: &["bpftool"],
        then: None,
        elsewhere: "install bpftool",
    },
];

/// Not needed by `cargo xtask test`, whose tests of the pages do without.
pub(super) const DOCS: &[Need] = &[compiled!(
    "mdbook",
    "0.5.4",
    ["--no-default-features", "--features", "search"],
    "makes the book of the pages in docs; it is compiled here, in a few minutes"
)];
