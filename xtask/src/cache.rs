//! The cache of tools, kernels and file systems, which are made or fetched once and shared by all checkouts.
//!
//! It is in `$LINGER_CACHE`, else `$XDG_CACHE_HOME/linger`, else `~/.cache/linger`. The name of an entry covers all
//! that it depends on, so that outdated entries are not found; an entry is renamed to it only when complete.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

/// Returns the folder of the cache.
pub(crate) fn folder() -> PathBuf {
    let named = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = named("LINGER_CACHE") {
        return folder.into();
    }
    let cache = named("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || named("HOME").map(|home| Path::new(&home).join(".cache"));
    cache
        .or_else(home)
        .unwrap_or_else(|| "/var/cache".into())
        .join("linger")
}

/// Locks the cache against changes by other processes.
///
/// # Errors
///
/// If the folder cannot be written to.
pub(crate) fn lock() -> Result<Flock<File>> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = File::create(folder.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow!("lock {}: {error}", folder.display()))
}

/// Creates an empty folder in which to make an entry; rename it when the entry is complete.
pub(crate) fn partial(folder: &Path, name: &str) -> Result<PathBuf> {
    let partial = folder.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    Ok(partial)
}

/// Returns a hash of a recipe, for the name of an entry.
pub(crate) fn key(recipe: impl Hash) -> String {
    // Stable across builds by the same compiler, which suffices.
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
