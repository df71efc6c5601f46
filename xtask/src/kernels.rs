//! Debian's kernel images for the VM: which there are, and unpacking the newest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::shell::{self, command, output, root, run};

/// The series that are tested: what Debian 12 ships, and what it has to offer beyond.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// The series to boot where one is enough.
pub(crate) const NEWEST: &str = SERIES[1];

/// A kernel to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What to call it, for instance `6.1`.
    pub(crate) label: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Its folder of modules, with `modules.dep`, if there is one.
    pub(crate) modules: Option<PathBuf>,
}

impl Kernel {
    /// The newest unpacked kernel of a series.
    pub(crate) fn of_series(series: &str) -> Result<Self> {
        let package = unpacked(series)
            .with_context(|| format!("no kernel {series}: run `cargo xtask setup --for test`"))?;
        let image = fs::read_dir(package.join("boot"))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
            .with_context(|| format!("{} has no vmlinuz", package.display()))?;
        Ok(Self {
            label: series.to_owned(),
            ..Self::of_image(&image)?
        })
    }

    /// The kernel in a file `…/boot/vmlinuz-VERSION`, with `…/lib/modules/VERSION` if that exists.
    pub(crate) fn of_image(image: &Path) -> Result<Self> {
        let image = image
            .canonicalize()
            .with_context(|| format!("the kernel {}", image.display()))?;
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let version = name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned();
        let modules = image
            .ancestors()
            .nth(2)
            .map(|package| package.join("lib/modules").join(&version))
            .filter(|folder| folder.join("modules.dep").is_file());
        Ok(Self {
            label: version,
            image,
            modules,
        })
    }
}

fn folder() -> PathBuf {
    root().join("target/vm")
}

/// The newest package of a series that is unpacked.
pub(crate) fn unpacked(series: &str) -> Option<PathBuf> {
    let names: Vec<String> = fs::read_dir(folder())
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    let name = newest(names.iter().map(String::as_str), series)?;
    Some(folder().join(name))
}

/// Unpacks the newest package of a series that the machine's package lists know.
pub(crate) fn unpack_newest(series: &str) -> Result<()> {
    let pattern = format!("^linux-image-{}\\.", series.replace('.', "\\."));
    let listed = output(command("apt-cache").args(["search", "--names-only", &pattern]))?;
    let names = listed.lines().filter_map(|line| line.split(' ').next());
    let package = newest(names, series)
        .with_context(|| format!("the package lists have no linux-image-{series}.*-cloud-amd64"))?;

    // A name that is no package's until everything is in place.
    let partial = folder().join(format!("{package}.partial"));
    unpack(package, &partial)?;
    let version = package.trim_start_matches("linux-image-");
    let depmod = shell::find("depmod").context("depmod is not installed")?;
    run(command(depmod).arg("-b").arg(&partial).arg(version))?;
    fs::rename(&partial, folder().join(package))?;
    Ok(())
}

/// Fetches a package without installing it, and unpacks it into a new folder.
pub(crate) fn unpack(package: &str, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::create_dir_all(into)?;
    run(command("apt-get")
        .args(["-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(into))?;
    let deb = fs::read_dir(into)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get brought no file for {package}"))?;
    run(command("dpkg").arg("-x").arg(&deb).arg(into))?;
    fs::remove_file(deb)?;
    Ok(())
}

/// The newest of a series among names of packages, debugging symbols and the like left out.
fn newest<'a>(names: impl Iterator<Item = &'a str>, series: &str) -> Option<&'a str> {
    let start = format!("linux-image-{series}.");
    names
        .filter(|name| name.starts_with(&start) && name.ends_with("-cloud-amd64"))
        .max_by_key(|name| version(name))
}

/// All numbers of a name, in order: they compare like the version.
fn version(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 7] = [
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-57-cloud-amd64-dbg",
        "linux-image-6.12-cloud-amd64",
        "linux-image-6.12.99+deb12-cloud-amd64",
        "linux-image-6.12.117+deb12-cloud-amd64",
        "linux-image-6.12.118+deb12-rt-amd64",
    ];

    #[test]
    fn newest_compares_numbers_and_keeps_series_apart() {
        assert_eq!(
            newest(NAMES.into_iter(), "6.1"),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            newest(NAMES.into_iter(), "6.12"),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(newest(NAMES.into_iter(), "6.6"), None);
    }

    #[test]
    fn modules_of_an_image_stand_beside_its_boot_folder() {
        let package = tempfile::tempdir().unwrap();
        let modules = package.path().join("lib/modules/6.6.1");
        let image = package.path().join("boot/vmlinuz-6.6.1");
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(package.path().join("boot")).unwrap();
        fs::write(&image, "").unwrap();
        assert_eq!(Kernel::of_image(&image).unwrap().modules, None);

        fs::write(modules.join("modules.dep"), "").unwrap();
        let kernel = Kernel::of_image(&image).unwrap();
        assert_eq!(kernel.label, "6.6.1");
        assert_eq!(kernel.modules, Some(modules.canonicalize().unwrap()));
    }
}
