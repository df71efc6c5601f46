//! The maps of a plan.

use std::collections::HashMap;

use aya::Ebpf;
use aya::maps::Map;

/// The maps that programs share with the daemon, by name.
pub struct Maps(HashMap<String, Map>);

impl Maps {
    /// Takes the maps of an object whose programs are not loaded yet. Those not taken from here must live until
    /// then.
    pub(super) fn of(ebpf: &mut Ebpf) -> Self {
        let names: Vec<_> = ebpf.maps().map(|(name, _)| name.to_owned()).collect();
        // Maps of sections belong to the programs.
        let names = names.into_iter().filter(|name| !name.starts_with('.'));
        let maps = names.filter_map(|name| ebpf.take_map(&name).map(|map| (name, map)));
        Self(maps.collect())
    }

    /// Takes a map; `None` if it does not exist or is taken already.
    pub fn take(&mut self, name: &str) -> Option<Map> {
        self.0.remove(name)
    }

    /// A map that is not taken.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Map> {
        self.0.get(name)
    }

    /// All maps that are not taken.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Map)> {
        self.0.iter().map(|(name, map)| (name.as_str(), map))
    }
}

impl FromIterator<(String, Map)> for Maps {
    fn from_iter<T: IntoIterator<Item = (String, Map)>>(maps: T) -> Self {
        Self(maps.into_iter().collect())
    }
}
