//! Compiles `src/main.rs` and `src/floor.rs` for the BPF virtual machine, with a toolchain that can, and
//! leaves the objects where `src/lib.rs` embeds them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

const INLINE: &str = "-inline-threshold=1000000";
const TARGET: &str = "bpfel-unknown-none";
const OBJECTS: [&str; 2] = ["linger-ebpf", "floor"];
const HOW: &str = "run `cargo xtask setup`, which installs it (or says what to install)";

fn main() {
    // One line for people, instead of a backtrace.
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
    }
}

fn build() -> Result<()> {
    for path in [
        "src",
        "build.rs",
        "Cargo.toml",
        "../Cargo.toml",
        "../Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["LINGER_BPF_RUSTC", "LINGER_BPF_LINKER", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    // This script also runs for the nested build below, which needs nothing of it.
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    if architecture == "bpf" {
        return Ok(());
    }

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest
        .parent()
        .context("the package stands in a workspace")?;
    let linker = find_linker(workspace)?;
    let compiler = find_compiler()?;

    let target_dir = shared_target_dir(&out)?;
    let mut cargo = Command::new(env::var("CARGO")?);
    cargo
        .current_dir(&manifest)
        .args([
            "build",
            "--locked",
            "--profile",
            "bpf",
            "--features",
            "kernel",
        ])
        .args(["--package", "linger-ebpf", "--bins", "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir);
    // Settings of the outer build (clippy's driver, coverage, flags for the host) do not apply.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_") && name != "CARGO_HOME" || name.starts_with("RUST") {
            cargo.env_remove(name);
        }
    }
    let flags = [
        "-Cdebuginfo=2",
        // Every kernel from 5.1 on understands this: 32-bit operations, without pairs of shifts.
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
        // Everything not marked otherwise is inlined, both by the compiler and by the linker.
        &format!("-Cllvm-args={INLINE}"),
        &format!("-Clink-arg=--llvm-args={INLINE}"),
        &format!("-Clinker={}", linker.display()),
        // The same source makes the same objects, in whichever folder.
        &format!("--remap-path-prefix={}=/linger", workspace.display()),
        &format!("--remap-path-prefix={}=/cargo", cargo_home()?.display()),
    ]
    .join("\u{1f}");
    cargo
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        // Decides where a function's arguments lie in `struct pt_regs`; by default as on this machine.
        .env("AYA_BPF_TARGET_ARCH", architecture)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    if compiler.build_core {
        cargo.args(["-Z", "build-std=core"]);
    }
    if let Ok(home) = env::var("RUSTUP_HOME") {
        cargo.env("RUSTUP_HOME", home);
    }

    let output = cargo.output().context("start cargo for the BPF programs")?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        bail!(
            "the BPF programs do not compile with {}",
            compiler.rustc.display()
        );
    }
    for name in OBJECTS {
        let object = target_dir.join(TARGET).join("bpf").join(name);
        std::fs::copy(&object, out.join(name))
            .with_context(|| format!("take the object {}", object.display()))?;
    }
    Ok(())
}

/// The folder in which cargo keeps the sources of dependencies.
fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}

/// The folder in which the objects are built: one for all profiles, so that they are compiled once.
///
/// `out` is `TARGET_DIR/PROFILE/build/PACKAGE/out`; with `--target`, cargo has a folder for it in `TARGET_DIR`.
fn shared_target_dir(out: &Path) -> Result<PathBuf> {
    let target_dir = out.ancestors().nth(4);
    let target_dir = target_dir.with_context(|| format!("{} is not cargo's", out.display()))?;
    Ok(target_dir.join("bpf"))
}

/// A compiler that can make code for [`TARGET`].
struct Compiler {
    rustc: PathBuf,
    /// It has core only as source, which must be compiled too.
    build_core: bool,
}

/// Tries, in this order: the compiler that the environment names, Debian's `rustc-web` with its precompiled core, the
/// current toolchain if it has the `rust-src` component.
fn find_compiler() -> Result<Compiler> {
    let named = env::var_os("LINGER_BPF_RUSTC").map(PathBuf::from);
    let candidates = named.is_none().then(|| PathBuf::from("/usr/bin/rustc"));
    let own = named
        .is_none()
        .then(|| env::var_os("RUSTC").map(PathBuf::from))
        .flatten();
    for rustc in named.into_iter().chain(candidates).chain(own) {
        let Some(sysroot) = sysroot(&rustc) else {
            continue;
        };
        let rustlib = sysroot.join("lib/rustlib");
        if rustlib.join(TARGET).join("lib").is_dir() {
            return Ok(Compiler {
                rustc,
                build_core: false,
            });
        }
        if rustlib.join("src/rust/library/core").is_dir() {
            return Ok(Compiler {
                rustc,
                build_core: true,
            });
        }
    }
    bail!("no Rust compiler with a core library for {TARGET}: {HOW}")
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim()))
}

/// Tries, in this order: the linker that the environment names, the one that `cargo xtask setup` installed, those on
/// the path.
fn find_linker(workspace: &Path) -> Result<PathBuf> {
    if let Some(named) = env::var_os("LINGER_BPF_LINKER") {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(workspace.join("target/tools/bin"))
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file())
        .with_context(|| format!("bpf-linker is not installed: {HOW}"))
}
