//! The licences of the libraries in the daemon's binary, which must be distributed with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell::{cargo, output};

const HEAD: &str = "\
The binary lingerd contains the libraries below, each under the licence named. The texts follow, each
once. Where there is a choice of licences, any of them may be chosen. The static binary also contains
the GNU C Library, under LGPL-2.1-or-later. With the source of linger, lingerd can be built anew with
other versions of each.
";

/// Returns all notices as one text.
pub(crate) fn text() -> Result<String> {
    let mut list = String::new();
    // The packages that have each text.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in libraries()? {
        let word = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", word("name"), word("version"));
        writeln!(list, "  {name}: {}", word("license"))?;
        let manifest = Path::new(word("manifest_path"));
        let folder = manifest.parent().context("a manifest is in a folder")?;
        for text in licences(folder)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut all = format!("{HEAD}\n{list}");
    for (text, names) in texts {
        write!(
            all,
            "\n{:-<80}\n{}\n\n{}\n",
            "",
            names.join(", "),
            text.trim_end()
        )?;
    }
    Ok(all)
}

/// Returns cargo's metadata of each library in the binary, except the project's own.
pub(crate) fn libraries() -> Result<Vec<Value>> {
    let metadata = output(cargo().args(["metadata", "--locked", "--format-version=1"]))?;
    let mut metadata: Value = serde_json::from_str(&metadata)?;
    let Value::Array(mut packages) = metadata["packages"].take() else {
        bail!("cargo names no packages");
    };
    let shipped = shipped()?;
    packages.retain(|package| {
        let word = |name: &str| package[name].as_str().unwrap_or_default();
        let name = format!("{} {}", word("name"), word("version"));
        !package["source"].is_null() && shipped.contains(&name)
    });
    Ok(packages)
}

/// Returns the names and versions of all packages linked into the binary or into the BPF programs.
fn shipped() -> Result<BTreeSet<String>> {
    let mut shipped = BTreeSet::new();
    for package in [
        &["--package=linger-daemon"][..],
        &["--package=linger-ebpf", "--target=bpfel-unknown-none"],
    ] {
        let mut tree = cargo();
        tree.args(["tree", "--locked", "--edges=normal,no-proc-macro"])
            .args(["--prefix=none", "--format={p}"])
            .args(package);
        let tree = output(&mut tree)?;
        shipped.extend(tree.lines().filter_map(name));
    }
    Ok(shipped)
}

/// Returns the name and version in a line such as `aya v0.14.0` or `aya v0.14.0 (*)`.
fn name(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (name, version) = (words.next()?, words.next()?);
    Some(format!("{name} {}", version.strip_prefix('v')?))
}

/// Reads the licence texts in a folder.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_text = ["LICEN", "COPYING", "NOTICE", "COPYRIGHT"]
            .iter()
            .any(|begin| name.to_uppercase().starts_with(begin));
        if is_text && path.is_file() {
            texts.push(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_read_with_or_without_a_repetition_mark() {
        let names = [
            "aya v0.14.0",
            "aya v0.14.0 (*)",
            "linger-ebpf v0.1.0 (/x)",
            "",
        ]
        .map(name);
        let names = names.each_ref().map(Option::as_deref);
        assert_eq!(
            names,
            [
                Some("aya 0.14.0"),
                Some("aya 0.14.0"),
                Some("linger-ebpf 0.1.0"),
                None
            ]
        );
    }

    #[test]
    fn every_library_is_named_and_its_text_is_there() {
        let text = text().unwrap();
        // One library of the daemon, and one of the BPF programs.
        for name in ["  tokio 1.", "  aya-ebpf 0."] {
            assert!(text.contains(name), "{name}");
        }
        assert!(text.contains("Permission is hereby granted, free of charge"));
    }
}
