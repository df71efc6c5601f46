//! The BPF programs and maps of this host, as bpftool lists them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use linger_xtask::shell::{self, output};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A BPF program.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Program {
    id: u32,
    #[serde(default)]
    pub(super) name: String,
    /// Nanoseconds that its runs took while the kernel kept statistics.
    #[serde(default)]
    pub(super) run_time_ns: u64,
    /// Number of those runs.
    #[serde(default)]
    pub(super) run_cnt: u64,
}

/// Returns all programs by id.
pub(super) fn programs() -> Result<BTreeMap<u32, Program>> {
    let programs: Vec<Program> = show("prog")?;
    Ok(programs
        .into_iter()
        .map(|program| (program.id, program))
        .collect())
}

/// A BPF map, however it is held.
#[derive(Deserialize)]
struct Map {
    id: u32,
    #[serde(default)]
    bytes_memlock: u64,
}

/// Returns the kernel memory that each map reports, bytes, by id.
pub(super) fn maps() -> Result<BTreeMap<u32, u64>> {
    let maps: Vec<Map> = show("map")?;
    Ok(maps
        .into_iter()
        .map(|map| (map.id, map.bytes_memlock))
        .collect())
}

fn show<T: DeserializeOwned>(what: &str) -> Result<T> {
    let bpftool = shell::find("bpftool").context("bpftool is not installed")?;
    let mut command = std::process::Command::new(bpftool);
    let shown = output(command.args(["-j", what, "show"]))?;
    serde_json::from_str(&shown).with_context(|| format!("what `bpftool {what} show` printed"))
}
