//! The table of kernels that the tests run on, and unpacking them from Debian's packages into the cache.

mod kernel;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

pub use self::kernel::Kernel;

use crate::apt;
use crate::architecture::Architecture;
use crate::cache;
use crate::shell::{self, command, output, run};

/// A line of the table: a kernel to boot. To add a kernel, add a line.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, also in `linger-daemon/tests/expected.toml`, which has the expected results.
    pub label: &'static str,
    /// Major and minor version.
    series: &'static str,
    /// The architecture that it is built for.
    pub architecture: Architecture,
    /// Debian's suite that has it.
    pub(crate) suite: &'static str,
    /// The part of the package's name before the architecture.
    flavour: &'static str,
    /// Parameters added to its command line.
    pub parameters: &'static str,
    /// Whether it is too old, so that lingerd refuses to run there.
    pub is_refused: bool,
    /// The plans that the usual tests use there; full tests use all.
    pub plans: &'static [&'static str],
}

/// All plans, in order of preference.
pub const PLANS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// The table.
pub const TABLE: &[Entry] = &[
    Entry {
        suite: "bullseye",
        plans: &[],
        is_refused: true,
        ..Entry::new("5.10", "5.10")
    },
    Entry {
        suite: "bullseye",
        is_refused: true,
        ..Entry::arm64("5.10-arm64", "5.10")
    },
    // The default kernel of Debian 12, and the newer one that it offers.
    Entry::new("6.1", "6.1"),
    Entry::new("6.12", "6.12"),
    // Preempts threads everywhere, in BPF programs too.
    Entry {
        parameters: "preempt=full",
        plans: &["fentry", "kprobe"],
        ..Entry::new("6.12-full", "6.12")
    },
    Entry {
        flavour: "rt",
        plans: &[],
        ..Entry::new("6.12-rt", "6.12")
    },
    Entry {
        plans: &["fentry"],
        suite: "trixie-backports",
        ..Entry::new("6.18", "6.18")
    },
    // Preempts lazily by default.
    Entry {
        suite: "trixie-backports",
        ..Entry::new("7.3", "7.3")
    },
    // Preempts soft interrupts too.
    Entry {
        flavour: "rt",
        suite: "trixie-backports",
        plans: &["fentry"],
        ..Entry::new("7.3-rt", "7.3")
    },
    // Has no BPF trampolines.
    Entry::arm64("6.1-arm64", "6.1"),
    Entry::arm64("6.12-arm64", "6.12"),
    Entry {
        suite: "trixie-backports",
        ..Entry::arm64("6.18-arm64", "6.18")
    },
    Entry {
        suite: "trixie-backports",
        ..Entry::arm64("7.3-arm64", "7.3")
    },
];

/// The label of the kernel to boot where a single one is enough.
pub const NEWEST: &str = "6.12";
/// The same for arm64.
pub const NEWEST_ARM64: &str = "6.12-arm64";

impl Entry {
    /// One of Debian 12's cloud kernels, with its default parameters.
    const fn new(label: &'static str, series: &'static str) -> Self {
        Self {
            label,
            series,
            architecture: Architecture::Amd64,
            suite: "bookworm-security",
            flavour: "cloud",
            parameters: "",
            is_refused: false,
            plans: &PLANS,
        }
    }

    /// The same for arm64, which is too slow for the usual tests.
    const fn arm64(label: &'static str, series: &'static str) -> Self {
        Self {
            architecture: Architecture::Arm64,
            plans: &[],
            ..Self::new(label, series)
        }
    }

    /// Returns the line with this label.
    pub fn of(label: &str) -> Option<&'static Self> {
        TABLE.iter().find(|entry| entry.label == label)
    }

    /// Returns whether its package is unpacked in the cache.
    pub fn is_present(&self) -> bool {
        self.unpacked().is_some()
    }

    /// Returns the folder of the newest of its unpacked packages.
    fn unpacked(&self) -> Option<PathBuf> {
        let names: Vec<String> = fs::read_dir(folder())
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let name = self.newest(names.iter().map(String::as_str))?;
        Some(folder().join(name))
    }

    /// Unpacks the newest of its packages that Debian has.
    pub fn unpack(&self) -> Result<()> {
        let listed = output(apt::isolated("apt-cache").args(["pkgnames", "linux-"]))?;
        let package = self.newest(listed.lines()).with_context(|| {
            format!(
                "Debian's {} has no kernel {}.* for {}-{} any more: change its line in xtask/src/kernels.rs",
                self.suite,
                self.series,
                self.flavour,
                self.architecture.debian()
            )
        })?;
        let partial = cache::partial(&folder(), package)?;
        for part in parts(package) {
            let part = format!("{part}:{}", self.architecture.debian());
            apt::unpack(apt::isolated("apt-get"), &part, &partial)?;
        }
        // depmod looks in /lib; the newest packages have their modules in /usr/lib only.
        if !partial.join("lib").exists() {
            symlink("usr/lib", partial.join("lib"))?;
        }
        let depmod = shell::find("depmod").context("depmod is not installed")?;
        run(command(depmod)
            .arg("-b")
            .arg(&partial)
            .arg(release(package)))?;
        fs::rename(&partial, folder().join(package))?;
        Ok(())
    }

    /// Returns the newest of its packages among these names; ignores those of debugging symbols and the like.
    fn newest<'a>(&self, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let start = format!("{}.", self.series);
        let end = format!("-{}-{}", self.flavour, self.architecture.debian());
        names
            .filter(|name| release(name).starts_with(&start) && name.ends_with(&end))
            // If a version has two packages, the one named `image` is empty.
            .max_by_key(|name| (version(name), name.starts_with(IMAGES[1])))
    }
}

/// Prefixes of the names of packages with a kernel's image: up to Linux 6.18, and since then.
const IMAGES: [&str; 2] = ["linux-image-", "linux-binary-"];

/// Returns the release of the kernel in a package; empty if it has none.
fn release(package: &str) -> &str {
    let release = IMAGES.iter().find_map(|start| package.strip_prefix(start));
    release.unwrap_or_default()
}

/// Returns the packages that make up a kernel, given the one with its image.
fn parts(package: &str) -> Vec<String> {
    let mut parts = vec![package.to_owned()];
    if package.starts_with(IMAGES[1]) {
        let others = ["linux-modules-", "linux-base-"];
        parts.extend(others.map(|start| format!("{start}{}", release(package))));
    }
    parts
}

/// Returns all numbers in a name, in order; they compare like versions.
fn version(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Prints the table, with the scenarios and plans of the usual tests. Full tests run all scenarios by all plans.
pub fn print_table() {
    println!(
        "{:<10}  {:<8}  {:<12}  {:<18}  {:<14}  {:<27}  scenarios",
        "label", "series", "package", "suite", "parameters", "plans"
    );
    for entry in TABLE {
        let scenarios = if entry.is_refused {
            "none: lingerd refuses to run there"
        } else {
            "those that depend on the kernel"
        };
        println!(
            "{:<10}  {:<8}  {:<12}  {:<18}  {:<14}  {:<27}  {scenarios}",
            entry.label,
            entry.series,
            format!("{}-{}", entry.flavour, entry.architecture.debian()),
            entry.suite,
            entry.parameters,
            entry.plans.join(", "),
        );
    }
}

fn folder() -> PathBuf {
    cache::folder().join("kernels")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 11] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-57-cloud-amd64-dbg",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.99+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.118+deb12-rt-amd64",
        "linux-modules-7.3.4+deb14-cloud-amd64",
        "linux-image-7.3.5+deb14-cloud-amd64-unsigned",
        "linux-binary-7.3.4+deb14-cloud-amd64",
        "linux-image-7.3.4+deb14-cloud-amd64",
    ];

    fn newest(label: &str) -> Option<&'static str> {
        Entry::of(label).unwrap().newest(NAMES.into_iter())
    }

    #[test]
    fn newest_compares_numbers_and_keeps_series_and_flavours_apart() {
        assert_eq!(newest("6.1"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(
            newest("6.12"),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(newest("6.12-full"), newest("6.12"));
        assert_eq!(
            newest("6.12-rt"),
            Some("linux-image-6.12.118+deb12-rt-amd64")
        );
        assert_eq!(newest("7.3"), Some("linux-binary-7.3.4+deb14-cloud-amd64"));
        assert_eq!(newest("6.18"), None);
    }

    #[test]
    fn a_kernel_named_binary_has_its_modules_in_another_package() {
        assert_eq!(parts(NAMES[0]), [NAMES[0]]);
        assert_eq!(parts(NAMES[9])[1], NAMES[7]);
    }
}
