//! What is made or fetched once and serves every checkout: tools, kernels, file systems.
//!
//! It lies in `$LINGER_CACHE`, else `$XDG_CACHE_HOME/linger`, else `~/.cache/linger`. Each entry is named after
//! all that it depends on, so that an outdated one is not found; and has its name only once it is complete.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use nix::fcntl::{Flock, FlockArg};

/// The folder of all of it.
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

/// Keeps others from changing the cache while the lock is held.
///
/// # Errors
///
/// The folder cannot be written to.
pub(crate) fn lock() -> Result<Flock<File>> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let file = File::create(folder.join("lock"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| anyhow!("lock {}: {error}", folder.display()))
}

/// An empty folder for an entry that is being made, to be renamed to `name` when it is complete.
pub(crate) fn partial(folder: &Path, name: &str) -> Result<PathBuf> {
    let partial = folder.join(format!("{name}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    Ok(partial)
}

/// A short word that differs where the recipes differ.
pub(crate) fn key(recipe: impl Hash) -> String {
    // The same in every build by the same compiler, which is all that is wanted.
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
