//! The software bill of materials, as `CycloneDX`: each library of the daemon and of its BPF programs.
//!
//! It uses the list of the licence notices, since the BPF programs are a separate build that is not in cargo's
//! dependency graph of the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::notices;
use crate::package::{epoch, folder};
use crate::shell::{command, output, root};

/// Writes the bill beside the packages.
pub(super) fn make() -> Result<PathBuf> {
    let file = folder().join(format!("lingerd-{}.cdx.json", env!("CARGO_PKG_VERSION")));
    let time = format!("--date=@{}", epoch()?);
    let time = output(command("date").args(["--utc", &time, "+%FT%TZ"]))?;
    fs::write(&file, format!("{:#}\n", bill(time.trim())?))?;
    Ok(file)
}

fn bill(time: &str) -> Result<Value> {
    let checksums = checksums()?;
    let components = notices::libraries()?;
    let components: Vec<_> = components
        .iter()
        .map(|package| component(package, &checksums))
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application",
                "bom-ref": "lingerd",
                "name": "lingerd",
                "version": env!("CARGO_PKG_VERSION"),
                "licenses": [{ "expression": env!("CARGO_PKG_LICENSE") }],
            },
        },
        "components": components,
    }))
}

fn component(package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let word = |name: &str| package[name].as_str().unwrap_or_default();
    let purl = format!("pkg:cargo/{}@{}", word("name"), word("version"));
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": word("name"),
        "version": word("version"),
        // Older crates separate alternatives by a slash.
        "licenses": [{ "expression": word("license").replace('/', " OR ") }],
        "purl": purl,
    });
    if let Some(checksum) = checksums.get(&purl) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

/// Reads the checksum of each crate's archive from Cargo.lock, by package URL.
fn checksums() -> Result<BTreeMap<String, String>> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock"))?.parse()?;
    let packages = lock["package"].as_array().context("a list of packages")?;
    let checksum = |package: &toml::Value| {
        let word = |name| package.get(name)?.as_str();
        let purl = format!("pkg:cargo/{}@{}", word("name")?, word("version")?);
        Some((purl, word("checksum")?.to_owned()))
    };
    Ok(packages.iter().filter_map(checksum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bill_names_each_library_with_licence_and_digest() {
        let bill = bill("2026-01-01T00:00:00Z").unwrap();
        let components = bill["components"].as_array().unwrap();
        // One library of the daemon, and one of the BPF programs.
        for name in ["tokio", "aya-ebpf"] {
            assert!(components.iter().any(|one| one["name"] == name), "{name}");
        }
        for one in components {
            let digest = one["hashes"][0]["content"].as_str().unwrap();
            assert_eq!(digest.len(), 64, "{one}");
            let licence = one["licenses"][0]["expression"].as_str().unwrap();
            assert!(!licence.is_empty() && !licence.contains('/'), "{one}");
        }
    }
}
