//! Feeding what parses input with what a fuzzer makes up, guided by the code that it reaches.

use std::env::consts::ARCH;
use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::shell::{cargo, command, root, run};

/// What can be fuzzed, each a binary of the package `linger-fuzz`.
const TARGETS: [&str; 4] = ["cgroup_path", "config", "request", "web_config"];

/// The code that the compiler adds counts what is reached and compared, for libFuzzer.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                         -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
                         -Cllvm-args=-sanitizer-coverage-pc-table \
                         -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// What to fuzz, and for how long.
#[derive(Args)]
pub struct Options {
    /// What to fuzz; all, one after another, if left out
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long, each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Options {
    /// All targets, each for so long.
    pub fn all(seconds: u32) -> Self {
        Self {
            target: None,
            seconds,
        }
    }
}

/// Fails with the first input that breaks something; it is kept in target/fuzz/found.
///
/// What reached new code is kept in target/fuzz/corpus, and built on the next time.
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

/// The folder of the programs.
fn build() -> Result<PathBuf> {
    // With a target named, the flags are for it alone: build scripts are built as ever.
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
