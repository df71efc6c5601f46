//! Reloads the web configuration when its file, or a file that it names, changes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;

use super::file::{self, File, Tls};
use super::passwords::{Gate, Refusal, Users};
use super::{Mistake, Rules, SecurityError, ServerTls};
use crate::config;
use crate::http::listen::Peer;
use crate::sync::lock;

/// Minimum time between checks of the files, which are made on requests.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The access rules of the web configuration, kept up to date with its files.
pub struct Security {
    file: Option<PathBuf>,
    state: Mutex<WatchedRules>,
    gate: Gate,
}

/// The rules, and what they were read from.
struct WatchedRules {
    rules: Arc<Rules>,
    seen: Seen,
    /// Time of the last check of these files.
    looked: Instant,
}

/// Files, with their metadata from before they were read; `None` where it could not be read.
type Seen = BTreeMap<PathBuf, Option<Stamp>>;

/// Metadata that changes whenever the file does: device, inode, length, and the times of changes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp([u64; 3], [i64; 4]);

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let of = fs::metadata(path).ok()?;
        let times = [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()];
        Some(Self([of.dev(), of.ino(), of.len()], times))
    }
}

impl Security {
    /// Allows everyone who can reach the endpoints, without TLS.
    #[must_use]
    pub fn none() -> Self {
        Self::with(None, Rules::default(), Seen::new())
    }

    /// Loads a file, which must be valid.
    pub fn load(file: &Path) -> Result<Self, SecurityError> {
        let mut seen = Seen::new();
        let rules = read(file, &mut seen)?;
        Ok(Self::with(Some(file.to_owned()), rules, seen))
    }

    fn with(file: Option<PathBuf>, rules: Rules, seen: Seen) -> Self {
        let state = WatchedRules {
            rules: Arc::new(rules),
            seen,
            looked: Instant::now(),
        };
        Self {
            file,
            state: Mutex::new(state),
            gate: Gate::new(),
        }
    }

    /// Returns whether TLS is configured.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// Returns TLS for a new connection; plain HTTP if `None`.
    pub(in crate::http) fn tls(&self) -> Option<ServerTls> {
        self.rules().tls.clone()
    }

    /// Fails if a request with these headers must be refused. Returns whether it carries a required password.
    pub(in crate::http) async fn check(
        &self,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<bool, Refusal> {
        let rules = self.rules();
        self.gate.check(&rules.users, headers, peer).await?;
        Ok(!rules.users.is_empty())
    }

    /// Returns the rules in effect. If the files become invalid, the rules stay as they are, and the error is logged
    /// once.
    fn rules(&self) -> Arc<Rules> {
        let mut state = lock(&self.state);
        if let Some(file) = &self.file
            && state.looked.elapsed() >= LOOK_EVERY
        {
            state.looked = Instant::now();
            let mut seen = state.seen.iter();
            if seen.any(|(path, stamp)| Stamp::of(path) != *stamp) {
                state.renew(file);
            }
        }
        Arc::clone(&state.rules)
    }
}

impl WatchedRules {
    fn renew(&mut self, file: &Path) {
        let mut seen = Seen::new();
        let path = file.display();
        let read = read(file, &mut seen).and_then(|rules| {
            // An editor may have emptied the file to write it anew. Or it may be cut short, before the passwords.
            let why = if rules.is_open() && !self.rules.is_open() {
                "requires neither TLS nor passwords any more: if that is intended, restart lingerd"
            } else if rules.admit_everyone() && !self.rules.admit_everyone() {
                "requires neither passwords nor trusted certificates any more: if that is intended, \
                 restart lingerd"
            } else {
                return Ok(rules);
            };
            Err(Mistake::Contradiction(why).in_file(file))
        });
        match read {
            Ok(rules) => {
                self.rules = Arc::new(rules);
                tracing::info!("read {path} again: it, or a file that it names, has changed");
            }
            Err(error) => {
                tracing::error!("{error}");
                tracing::error!("keeping the previous TLS and passwords: correct {path}");
                // Watch the files that it named before as well: one of them may be what is missing now.
                for path in self.seen.keys() {
                    look(path, &mut seen);
                }
            }
        }
        self.seen = seen;
    }
}

/// Adds a file with its present metadata, which must be taken before the file is read.
fn look(path: &Path, seen: &mut Seen) {
    let seen = seen.entry(path.to_owned());
    seen.or_insert_with_key(|path| Stamp::of(path));
}

/// Reads the file. Adds it and the files that it names to `seen`.
fn read(path: &Path, seen: &mut Seen) -> Result<Rules, SecurityError> {
    look(path, seen);
    let here = |mistake: Mistake| mistake.in_file(path);
    let text = config::text(path).map_err(|why| here(why.into()))?;
    let File {
        tls_server_config,
        basic_auth_users,
        ..
    } = file::parse(&text).map_err(here)?;
    let mut rules = Rules::default();
    if let Some(tls) = tls_server_config.filter(Tls::is_enabled) {
        for path in tls.files(path) {
            look(&path, seen);
        }
        rules.tls = Some(tls.server(path)?);
    }
    rules.users = Users::new(basic_auth_users.unwrap_or_default()).map_err(here)?;
    Ok(rules)
}
