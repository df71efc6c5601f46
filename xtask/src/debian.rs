//! A small Debian 12 with systemd for the test machines, made once from Debian's packages and kept in the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::architecture::Architecture;
use crate::archive::{self, Owner};
use crate::cache;
use crate::shell::{command, run};

const SUITE: &str = "bookworm";

/// Packages beyond Debian's essential ones.
const PACKAGES: &[&str] = &[
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "kmod",
    // Makes the tests' networks; then the servers whose closes they count.
    "iproute2",
    "nginx-light",
    "haproxy",
    "python3-minimal",
    "libpython3-stdlib",
    // Counts instructions per BPF program.
    "bpftool",
    // The alternative, usrmerge, depends on all of Perl.
    "usr-is-merged",
];

/// Files that no test needs, left out because the machine loads the whole file system at each boot. `@ARCH@` stands for
/// the architecture.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/i18n/*",
    "/usr/lib/@ARCH@-linux-gnu/gconv/*",
];

/// Commands that complete the file system; `$1` is its root.
const FINISH: &[&str] = &[
    // A user, to have a user manager.
    r#"chroot "$1" useradd --create-home --uid 1000 --shell /bin/sh someone"#,
    r#"echo linger-vm >"$1/etc/hostname""#,
    r#"echo 127.0.0.1 localhost linger-vm >"$1/etc/hosts""#,
    // Only tests start servers.
    r#"rm -f "$1"/etc/systemd/system/multi-user.target.wants/haproxy.service"#,
    // Without the exclusions above, so that packages installed later are complete.
    r#"rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap""#,
];

/// The file system in the cache.
pub(crate) struct Debian {
    /// The file system as a cpio archive, for an initramfs.
    pub(crate) archive: PathBuf,
    /// The type of each path in the archive, as listed by [`archive::contents`].
    pub(crate) contents: BTreeMap<String, char>,
}

impl Debian {
    /// Opens the file system that [`make`] made.
    pub(crate) fn open(architecture: Architecture) -> Result<Self> {
        let folder = folder(architecture);
        let list = fs::read_to_string(folder.join("contents")).with_context(|| {
            format!(
                "no Debian with systemd for {}: run `cargo xtask setup --for {}`",
                architecture.debian(),
                architecture.purpose()
            )
        })?;
        let entry = |line: &str| {
            let (kind, path) = line.split_once(' ')?;
            Some((path.to_owned(), kind.chars().next()?))
        };
        Ok(Self {
            archive: folder.join("archive"),
            contents: list.lines().filter_map(entry).collect(),
        })
    }
}

/// Returns whether the cache has it, made by the current recipe.
pub(crate) fn is_present(architecture: Architecture) -> bool {
    folder(architecture).is_dir()
}

/// Makes it. Requires root and takes a minute.
pub(crate) fn make(architecture: Architecture) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("making a file system of Debian's takes root: run this command as root");
    }
    if architecture != Architecture::here() {
        emulate(architecture)?;
    }
    let partial = cache::partial(&cache::folder(), "debian-12")?;
    let tree = partial.join("tree");
    run(command("mmdebstrap")
        .args(recipe(architecture))
        .arg(SUITE)
        .arg(&tree)
        .args(apt::mirrors(SUITE)?))?;
    fs::write(partial.join("contents"), archive::contents(&tree)?)?;
    archive::pack_all(&tree, Owner::AsIs, &partial.join("archive"))?;
    fs::remove_dir_all(&tree)?;
    fs::rename(&partial, folder(architecture))?;
    Ok(())
}

/// Lets this machine run programs of another architecture: registers QEMU with `binfmt_misc`, as the installation of
/// qemu-user-static does only where systemd runs.
fn emulate(architecture: Architecture) -> Result<()> {
    let formats = Path::new("/proc/sys/fs/binfmt_misc");
    if !formats.join("register").exists() {
        run(command("mount")
            .args(["-t", "binfmt_misc", "binfmt_misc"])
            .arg(formats))?;
    }
    let format = format!("qemu-{}", architecture.name());
    if formats.join(&format).exists() {
        return Ok(());
    }
    let file = format!("/usr/lib/binfmt.d/{format}.conf");
    let line = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    fs::write(formats.join("register"), line.trim_end())
        .with_context(|| format!("register the format {format} with this machine's kernel"))
}

fn folder(architecture: Architecture) -> PathBuf {
    let key = cache::key(recipe(architecture));
    cache::folder().join(format!("debian-12-{key}"))
}

/// Returns the options of mmdebstrap that determine the result.
fn recipe(architecture: Architecture) -> Vec<String> {
    let mut recipe = vec![
        "--quiet".to_owned(),
        "--mode=root".to_owned(),
        "--variant=essential".to_owned(),
        format!("--architectures={}", architecture.debian()),
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr".to_owned(),
        format!("--include={}", PACKAGES.join(",")),
    ];
    let excludes = LEFT_OUT.iter();
    let excludes = excludes.map(|glob| glob.replace("@ARCH@", architecture.name()));
    recipe.extend(excludes.map(|glob| format!("--dpkgopt=path-exclude={glob}")));
    let hooks = FINISH.iter();
    recipe.extend(hooks.map(|hook| format!("--customize-hook={hook}")));
    recipe
}
