//! The Debian package, and the tarball for other distributions.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::architecture::Architecture;
use crate::artifacts::{self, Libraries};
use crate::kernels::Kernel;
use crate::notices;
use crate::shell::{command, output, root, run, run_unseen, tools};
use crate::sums;
use crate::systemd;
use crate::tally::Scenarios;

/// Files of `linger-daemon/packaging` that go into the tarball.
const PACKAGING: [&str; 7] = [
    "INSTALL.md",
    "lingerd.toml",
    "lingerd.service",
    "lingerd.sysusers",
    "lingerd.tmpfile",
    "examples",
    "debian/copyright",
];

/// A version above every other, for a copy of the package to upgrade to.
const NEWER: &str = "99-1";

/// The files that [`make`] made.
pub struct Made {
    architecture: Architecture,
    pub(crate) deb: PathBuf,
    pub(crate) tarball: PathBuf,
}

/// Makes the package and the tarball, runs lintian on the package, and prints the files with their sizes.
pub fn make(architecture: Architecture) -> Result<Made> {
    artifacts::lingerd(architecture)?;
    make_pages()?;
    let made = pack(architecture, Libraries::Unlisted)?;
    sums::write(&folder(), &[&made.deb, &made.tarball])?;
    Ok(made)
}

/// Builds and packs the daemon, runs lintian on the package, and prints the files with their sizes.
pub(crate) fn pack(architecture: Architecture, libraries: Libraries) -> Result<Made> {
    let lingerd = artifacts::lingerd_static(architecture, libraries, &folder_static(architecture))?;
    let made = Made {
        architecture,
        deb: make_deb(architecture, &[])?,
        tarball: make_tarball(architecture, &lingerd)?,
    };
    // Errors and warnings fail; hints are only shown.
    run(command("lintian")
        .args([
            "--allow-root",
            "--display-info",
            "--fail-on",
            "error,warning",
        ])
        .arg(&made.deb))?;
    println!("lintian: no errors, no warnings");
    for file in [&made.deb, &made.tarball] {
        let size = fs::metadata(file)?.len();
        #[expect(clippy::cast_precision_loss, reason = "a size in MiB, to one digit")]
        let mebibytes = size as f64 / f64::from(1 << 20);
        println!("{mebibytes:5.1} MiB  {}", file.display());
    }
    Ok(made)
}

/// Installs the package on a Debian in QEMU, uses it, upgrades and removes it. Failed tests are not an `Err`, but part
/// of the result.
pub fn test(kernel: &Kernel, made: &Made) -> Result<Scenarios> {
    let newer = make_deb(made.architecture, &["--deb-version", NEWER])?;
    let built = artifacts::executables(made.architecture)?;
    systemd::run_package_tests(kernel, &built.systemd, [&made.deb, &newer], &made.tarball)
}

/// The environment variable that sets the time of all files in a package.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Returns the time of the last change of the source, in seconds since 1970: [`EPOCH`] if set, else the last commit's.
pub(crate) fn epoch() -> Result<String> {
    if let Ok(epoch) = env::var(EPOCH) {
        return Ok(epoch);
    }
    let time = output(command("git").args(["log", "-1", "--format=%ct"]))
        .with_context(|| format!("not in a git repository: set {EPOCH}"))?;
    Ok(time.trim().to_owned())
}

/// The folder of the static binary.
pub(crate) fn folder_static(architecture: Architecture) -> PathBuf {
    folder().join("static").join(architecture.name())
}

/// The folder of the packages and of the files generated for them.
pub(crate) fn folder() -> PathBuf {
    root().join("target/package")
}

/// Empties the folder, and makes the manual pages, completions and notices.
pub(crate) fn make_pages() -> Result<()> {
    if folder().exists() {
        fs::remove_dir_all(folder())?;
    }
    run(command(artifacts::pages()?).arg(folder()))?;
    Ok(fs::write(folder().join(NOTICES), notices::text()?)?)
}

/// The file with the licences of the libraries in the binary.
const NOTICES: &str = "THIRD-PARTY-NOTICES";

/// Packs the built daemon; `more` are further arguments of cargo-deb.
fn make_deb(architecture: Architecture, more: &[&str]) -> Result<PathBuf> {
    let mut deb = command(tools().join("cargo-deb"));
    deb.args(["--no-build", "--quiet", "--package", "linger-daemon"])
        .args(more)
        // By default, cargo-deb writes to a folder where it keeps only the last package.
        .arg("--output")
        .arg(folder())
        .env(EPOCH, epoch()?);
    artifacts::build_for(architecture, &mut deb);
    let file = output(&mut deb)?;
    let file = file.lines().last().context("cargo-deb names no package")?;
    Ok(file.into())
}

/// Packs the static binary with all that is needed to install it by hand.
fn make_tarball(architecture: Architecture, lingerd: &Path) -> Result<PathBuf> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("lingerd-{version}-{}", architecture.name());
    let tree = folder().join(&name);
    fs::create_dir_all(&tree)?;
    let from = root().join("linger-daemon/packaging");
    let copied = PACKAGING.iter().map(|file| from.join(file));
    let made = ["man", "completions", NOTICES].map(|made| folder().join(made));
    run_unseen(
        command("cp")
            .arg("-r")
            .args(copied.chain(made))
            .args(["README.md", "docs", "dashboards"].map(|file| root().join(file)))
            .arg(lingerd)
            .arg(&tree),
    )?;
    let tarball = folder().join(format!("{name}.tar.gz"));
    tar(&tarball, &folder(), &[&name])?;
    fs::remove_dir_all(&tree)?;
    Ok(tarball)
}

/// Packs files of a folder, compressed as the archive's extension says. The archive depends only on their contents, not
/// on who packs them or when.
pub(crate) fn tar(archive: &Path, folder: &Path, files: &[&str]) -> Result<()> {
    run(command("tar")
        .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=u=rwX,go=rX", &format!("--mtime=@{}", epoch()?)])
        .args(["--auto-compress", "--create", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(folder)
        .args(files))
}
