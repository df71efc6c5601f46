//! Tools that are compiled or unpacked into the cache, and linked to where the build and the tests look for them.

use std::fs;
use std::hash::Hash;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::update_lists;
use crate::apt;
use crate::cache;
use crate::shell::{self, cargo, command, run, tools};

/// A tool compiled here, from crates.io.
pub(super) struct Compiled {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    pub(super) options: &'static [&'static str],
}

impl Compiled {
    /// Returns the path where the build and the tests look for it.
    pub(super) fn link(&self) -> PathBuf {
        tools().join(self.name)
    }

    /// Returns its folder in the cache.
    fn folder(&self) -> PathBuf {
        cached_tool(self.name, (self.version, self.options))
    }

    fn program(&self) -> PathBuf {
        self.folder().join("bin").join(self.name)
    }

    /// Returns whether it is where the build and the tests look, made by this recipe or put there by hand.
    pub(super) fn is_linked(&self) -> bool {
        let link = self.link();
        let is_other = fs::read_link(&link).is_ok_and(|place| place != self.program());
        link.is_file() && !is_other
    }

    /// Compiles it unless the cache has one that works. A short build matters more than a fast tool.
    pub(super) fn install(&self) -> Result<()> {
        let program = self.program();
        if !shell::works(&program) {
            run(cargo()
                .args(["install", self.name, "--version", self.version])
                .args(["--locked", "--force"])
                .args(self.options)
                .arg("--root")
                .arg(self.folder())
                .env("LLVM_PREFIX", "/usr/lib/llvm-22")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
                .env("CARGO_PROFILE_RELEASE_DEBUG", "0"))?;
        }
        link_tool(self.name, &program)
    }
}

/// Returns the folder in the cache of a tool made by this recipe.
pub(super) fn cached_tool(name: &str, recipe: impl Hash) -> PathBuf {
    let folder = format!("{name}-{}", cache::key(recipe));
    cache::folder().join("tools").join(folder)
}

/// Links a program of the cache to where the build and the tests look.
pub(super) fn link_tool(name: &str, program: &Path) -> Result<()> {
    let link = tools().join(name);
    fs::create_dir_all(tools())?;
    // An existing link is outdated or broken.
    if link.is_symlink() || link.exists() {
        fs::remove_file(&link)?;
    }
    symlink(program, &link).with_context(|| format!("link {}", link.display()))
}

/// Unpacks a program or folder from a package of this Debian into the cache, under the name `name`, and links it.
pub(super) fn unpack_tool(package: &str, file: &str, name: &str) -> Result<()> {
    let debian = fs::read_to_string("/etc/debian_version")?;
    let folder = cached_tool(name, (package, file, debian));
    let program = folder.join(name);
    if !program.exists() {
        update_lists()?;
        take(command("apt-get"), package, file, &program)?;
    }
    link_tool(name, &program)
}

/// Unpacks a file or folder from a package to a path in the cache.
pub(super) fn take(apt_get: Command, package: &str, file: &str, to: &Path) -> Result<()> {
    let folder = to.parent().context("the cache is a folder")?;
    let partial = cache::partial(folder, "package")?;
    apt::unpack(apt_get, package, &partial)?;
    fs::rename(partial.join(file), to)?;
    Ok(fs::remove_dir_all(partial)?)
}
