//! Runs the fuzz targets under libFuzzer, guided by coverage.

use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::shell::{cargo, command, root, run};

/// The fuzz targets, each a binary of the package `linger-fuzz`.
const TARGETS: [&str; 4] = ["cgroup_path", "config", "request", "web_config"];

/// Flags that instrument coverage and comparisons for libFuzzer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct Options {
    /// What to fuzz [default: everything, one after another]
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long to fuzz each, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Options {
    /// All targets, for this many seconds each.
    pub fn all(seconds: u32) -> Self {
        Self {
            target: None,
            seconds,
        }
    }
}

/// Fuzzes the targets one after another. Fails at the first input that breaks one; it is kept in target/fuzz/found.
///
/// Inputs that reached new code are kept in target/fuzz/corpus, where the next run starts.
pub fn fuzz(options: &Options) -> Result<()> {
    let targets: Vec<&str> = match &options.target {
        Some(target) => vec![target],
        None => TARGETS.to_vec(),
    };
    let programs = build()?;
    for target in targets {
        let folder = |what: &str| -> Result<PathBuf> {
            let folder = root().join("target/fuzz").join(what).join(target);
            fs::create_dir_all(&folder)?;
            Ok(folder)
        };
        let found = folder("found")?;
        let fuzzed = run(command(programs.join(target))
            .arg(folder("corpus")?)
            .arg(root().join("fuzz/seeds").join(target))
            .arg(format!("-max_total_time={}", options.seconds))
            .arg(format!("-artifact_prefix={}/", found.display()))
            .args(["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"])
            .args(["-print_final_stats=1", "-verbosity=0"]));
        if fuzzed.is_err() {
            bail!(
                "{target} broke: see above, and the input in {}",
                found.display()
            );
        }
    }
    Ok(())
}

/// Builds the targets; returns the folder of their executables.
fn build() -> Result<PathBuf> {
    // With an explicit target, RUSTFLAGS do not apply to build scripts.
    let target = format!("{ARCH}-unknown-linux-gnu");
    let folder = root().join("target/fuzz");
    run(cargo()
        .args([
            "build",
            "--package",
            "linger-fuzz",
            "--features",
            "libfuzzer",
        ])
        .args(["--profile", "fuzz"])
        .args(["--target", &target, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", RUSTFLAGS))?;
    Ok(folder.join(target).join("fuzz"))
}
