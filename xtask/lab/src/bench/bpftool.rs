//! What bpftool shows of this host: all programs, and all maps.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use linger_xtask::shell::{self, output};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A program.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Program {
    id: u32,
    #[serde(default)]
    pub(super) name: String,
    /// Nanoseconds that its runs took, while the kernel kept statistics.
    #[serde(default)]
    pub(super) run_time_ns: u64,
    /// How many runs that were.
    #[serde(default)]
    pub(super) run_cnt: u64,
}

/// All programs, by their id.
pub(super) fn programs() -> Result<BTreeMap<u32, Program>> {
    let programs: Vec<Program> = show("prog")?;
    Ok(programs
        .into_iter()
        .map(|program| (program.id, program))
        .collect())
}

/// A map, whoever holds it and however.
#[derive(Deserialize)]
struct Map {
    id: u32,
    #[serde(default)]
    bytes_memlock: u64,
}

/// What each map says it holds of the kernel's memory, bytes, by its id.
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
