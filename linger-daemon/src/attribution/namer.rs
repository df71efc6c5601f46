//! Finds the label values of groups.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use linger_ebpf::{Exe, Group, Path};
use nix::libc::{AF_INET, AF_INET6};

use super::cgroups::Cgroups;
use super::names::Names;
use super::{Dimension, Labels};

/// A cgroup that closed.
#[derive(Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path from the root of the hierarchy.
    pub path: PathBuf,
    /// The names in that path.
    pub names: Names,
}

impl Cgroup {
    fn at(path: PathBuf) -> Self {
        let names = Names::of(&path.to_string_lossy());
        Self { path, names }
    }
}

/// Finds the names of groups.
pub struct Namer {
    /// The dimensions of the labels.
    pub dimensions: Arc<[Dimension]>,
    /// Searched for cgroups without a recorded path.
    pub cgroups: Cgroups,
    known: HashMap<u64, Arc<Cgroup>>,
    /// Ids of cgroups that a search did not find: they are gone, and ids are not reused.
    gone: HashSet<u64>,
    searches: u32,
}

/// Maximum number of searches through all cgroups by [`Namer::names`] until the next [`Namer::end_pass`]: a user who
/// may create cgroups can create many whose paths are too long to be recorded, each of which would need a search.
const SEARCHES: u32 = 8;

/// Maximum number of known cgroups without a group, and of cgroups that are gone.
const KEPT: usize = 256;

impl Namer {
    /// A namer for these labels.
    #[must_use]
    pub fn new(dimensions: Arc<[Dimension]>, cgroups: Cgroups) -> Self {
        Self {
            dimensions,
            cgroups,
            known: HashMap::new(),
            gone: HashSet::new(),
            searches: SEARCHES,
        }
    }

    /// Ends a maintenance pass of the ledger: allows searches again, and forgets the known cgroups without a group if
    /// there are many.
    pub fn end_pass(&mut self) {
        self.searches = SEARCHES;
        let is_held = |cgroup: &Arc<Cgroup>| Arc::strong_count(cgroup) > 1;
        let held = self.known.values().filter(|cgroup| is_held(cgroup)).count();
        if self.known.len() - held > KEPT {
            self.known.retain(|_, cgroup| is_held(cgroup));
            self.known.shrink_to_fit();
        }
        if self.gone.len() > KEPT {
            self.gone = HashSet::new();
        }
    }

    /// Finds the cgroup with this id, if it is known or its path was `recorded` by the kernel side, and remembers it.
    fn cgroup(&mut self, id: u64, recorded: impl Fn(u64) -> Option<Path>) -> Option<Arc<Cgroup>> {
        let cgroup = self.look_up(id, recorded)?;
        self.learn(id, Some(&cgroup));
        Some(cgroup)
    }

    /// Like `cgroup`, without remembering the result.
    #[must_use]
    pub fn look_up(&self, id: u64, recorded: impl Fn(u64) -> Option<Path>) -> Option<Arc<Cgroup>> {
        if let Some(known) = self.known.get(&id) {
            return Some(Arc::clone(known));
        }
        let path = recorded(id).and_then(|path| join(&path))?;
        Some(Arc::new(Cgroup::at(path)))
    }

    /// Searches all cgroups for these, without remembering the result.
    #[must_use]
    pub fn search(&self, mut ids: HashSet<u64>) -> HashMap<u64, Arc<Cgroup>> {
        ids.retain(|id| !self.gone.contains(id));
        if ids.is_empty() {
            return HashMap::new();
        }
        let mut all = self.cgroups.all();
        let found = ids.into_iter().filter_map(|id| {
            let path = all.remove(&id)?;
            Some((id, Arc::new(Cgroup::at(path))))
        });
        found.collect()
    }

    /// The names of these cgroups, all of which must have existed; `None` for those that are unknown. Their paths may
    /// be `recorded` by the kernel side; there is at most one search for all that are not known yet.
    pub fn names(
        &mut self,
        ids: &[u64],
        recorded: impl Fn(u64) -> Option<Path>,
    ) -> Vec<Option<Names>> {
        let unknown: HashSet<u64> = ids
            .iter()
            .copied()
            .filter(|id| !self.gone.contains(id) && self.cgroup(*id, &recorded).is_none())
            .collect();
        if !unknown.is_empty() && self.searches > 0 {
            self.searches -= 1;
            let found = self.search(unknown.clone());
            for id in unknown {
                self.learn(id, found.get(&id));
            }
        }
        let names = ids.iter();
        names
            .map(|id| Some(self.cgroup(*id, &recorded)?.names.clone()))
            .collect()
    }

    /// Remembers a cgroup or, if a search did not find it, that it is gone.
    pub fn learn(&mut self, id: u64, cgroup: Option<&Arc<Cgroup>>) {
        if let Some(cgroup) = cgroup {
            self.known.entry(id).or_insert_with(|| Arc::clone(cgroup));
        } else {
            self.gone.insert(id);
        }
    }

    /// Forgets a cgroup that is gone.
    pub fn forget(&mut self, id: u64) {
        self.known.remove(&id);
    }

    /// The labels of a group in this cgroup. `exe` returns the recorded path of an executable.
    #[must_use]
    pub fn labels(
        &self,
        group: &Group,
        cgroup: Option<&Cgroup>,
        exe: impl Fn(&Exe) -> Option<Path>,
    ) -> Labels {
        let names = cgroup.map(|cgroup| &cgroup.names);
        Labels::new(self.dimensions.iter().map(|dimension| {
            let name = match dimension {
                Dimension::Unit => names.map(|names| names.unit.clone()),
                Dimension::Slice => names.map(|names| names.slice.clone()),
                Dimension::Container => names.map(|names| names.container.clone()),
                Dimension::Pod => names.map(|names| names.pod.clone()),
                Dimension::Comm => Some(comm(group.comm)),
                Dimension::Exe => exe(&group.exe())
                    .and_then(|path| join(&path))
                    .map(|path| path.to_string_lossy().into_owned()),
                Dimension::Port => (group.port != 0).then(|| group.port.to_string()),
                Dimension::Family => match i32::from(group.family) {
                    AF_INET => Some("ipv4".into()),
                    AF_INET6 => Some("ipv6".into()),
                    _ => None,
                },
            };
            name.unwrap_or_default()
        }))
    }
}

/// Decodes the name of a process, as the kernel side copies it; invalid UTF-8 becomes U+FFFD.
#[must_use]
pub fn comm(words: [u64; 2]) -> String {
    let bytes = words.map(u64::to_ne_bytes).concat();
    String::from_utf8_lossy(until_zero(&bytes)).into_owned()
}

/// Encodes the name of a process as the kernel side has it: at most 15 bytes, and a terminating zero.
pub(crate) fn comm_words(name: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    let (words, _) = bytes.as_chunks();
    [words[0], words[1]].map(u64::from_ne_bytes)
}

/// Joins the names of a path; `None` if the path is incomplete.
fn join(path: &Path) -> Option<PathBuf> {
    if path.state != Path::WHOLE {
        return None;
    }
    let names = path.names.iter().map(|name| until_zero(name));
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    let mut joined = PathBuf::from("/");
    joined.extend(names.into_iter().rev().map(OsStr::from_bytes));
    Some(joined)
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use clap::ValueEnum as _;

    use super::*;

    /// A path as recorded by the programs, last name first.
    fn written(names: &[&str], state: u64) -> impl Fn(u64) -> Option<Path> {
        let mut path = Path {
            state,
            ..Path::ZERO
        };
        for (place, name) in path.names.iter_mut().zip(names) {
            place[..name.len()].copy_from_slice(name.as_bytes());
        }
        move |_| Some(path)
    }

    fn namer(dimensions: &[Dimension]) -> Namer {
        let nowhere = Cgroups::new(None);
        Namer::new(dimensions.into(), nowhere)
    }

    #[test]
    fn a_cgroup_is_named_as_the_kernel_wrote_it_down() {
        let mut namer = namer(Dimension::DEFAULT);
        let paths = written(&["web.service", "system.slice"], Path::WHOLE);
        let cgroup = namer.cgroup(5, &paths).unwrap();
        assert_eq!(cgroup.path, PathBuf::from("/system.slice/web.service"));
        let root = written(&[], Path::WHOLE);
        assert_eq!(namer.cgroup(6, &root).unwrap().path, PathBuf::from("/"));
        // It stays known when its record changes.
        assert_eq!(namer.cgroup(5, &root).unwrap(), cgroup);
    }

    #[test]
    fn an_incomplete_path_is_ignored() {
        let mut namer = namer(Dimension::DEFAULT);
        for state in [0, Path::CUT] {
            let paths = written(&["deep"], state);
            assert_eq!(namer.cgroup(5, &paths), None);
        }
    }

    #[test]
    fn cgroups_whose_paths_are_too_long_are_found_in_one_search() {
        let mount = tempfile::tempdir().unwrap();
        let id_of = |name: &str| {
            let folder = mount.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::metadata(folder).unwrap().ino()
        };
        let cgroups = Cgroups::new(Some(mount.path().into()));
        let mut namer = Namer::new(Dimension::DEFAULT.into(), cgroups);
        let paths = written(&[], Path::CUT);
        let ids: Vec<u64> = (0..100)
            .map(|number| id_of(&format!("{number}.service")))
            .collect();
        assert!(namer.names(&ids, &paths).iter().all(Option::is_some));
        assert_eq!(namer.searches, SEARCHES - 1);
        // Cgroups that are known, or known to be gone, cost no other search.
        let and_gone = [&ids[..], &[1]].concat();
        for _ in 0..2 {
            assert_eq!(namer.names(&and_gone, &paths).pop(), Some(None));
        }
        assert_eq!(namer.searches, SEARCHES - 2);
    }

    #[test]
    fn the_number_of_searches_is_limited() {
        let mount = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::new(Some(mount.path().into()));
        let mut namer = Namer::new(Dimension::DEFAULT.into(), cgroups);
        let paths = written(&[], Path::CUT);
        for id in 1..=u64::from(SEARCHES) {
            namer.names(&[id], &paths);
        }
        let folder = mount.path().join("late.service");
        fs::create_dir(&folder).unwrap();
        let late = fs::metadata(folder).unwrap().ino();
        assert_eq!(namer.names(&[late], &paths), [None]);
        namer.end_pass();
        assert_ne!(namer.names(&[late], &paths), [None]);
    }

    #[test]
    fn cgroups_without_a_group_are_forgotten() {
        let mut namer = namer(Dimension::DEFAULT);
        let paths = written(&["web.service", "system.slice"], Path::WHOLE);
        let held = namer.cgroup(0, &paths).unwrap();
        let unknown = written(&[], 0);
        for id in 1..10_000 {
            assert_ne!(namer.names(&[id], &paths), [None]);
            namer.names(&[id + 10_000], &unknown);
            namer.end_pass();
            let size = namer.known.len().max(namer.gone.len());
            assert!(size <= KEPT + 1, "{size}");
        }
        assert!(Arc::ptr_eq(&held, &namer.cgroup(0, &paths).unwrap()));
    }

    #[test]
    fn every_dimension_has_its_value() {
        let namer = namer(Dimension::value_variants());
        let paths = written(&["nginx", "sbin", "usr"], Path::WHOLE);
        let cgroup = Cgroup {
            path: "/system.slice/web.service".into(),
            names: Names::of("/system.slice/web.service"),
        };
        let group = Group {
            comm: [u64::from_ne_bytes(*b"nginx\0\xff\xff"), u64::MAX],
            port: 443,
            family: 10,
            ..Group::ZERO
        };
        let labels = namer.labels(&group, Some(&cgroup), |_| paths(0));
        let values: Vec<_> = labels.values().collect();
        let expected = [
            "web.service",
            "system.slice",
            "",
            "",
            "nginx",
            "/usr/sbin/nginx",
            "443",
            "ipv6",
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn a_name_is_compared_as_the_kernel_has_it() {
        for name in ["a", "nginx", "kworker/0:1", "fifteen-letters", "größe"] {
            assert_eq!(comm(comm_words(name)), name);
        }
    }

    #[test]
    fn labels_that_do_not_apply_are_empty() {
        let namer = namer(Dimension::value_variants());
        let paths = written(&[], 0);
        let labels = namer.labels(&Group::ZERO, None, |_| paths(0));
        assert!(labels.values().all(str::is_empty));
    }
}
