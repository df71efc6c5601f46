//! Decides which closes have a group of their own: the configured lists, as the programs read them.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{Array, HashMap, MapData};
use linger_ebpf::{PortBits, Settings, rule, verdict};
use tracing::{debug, warn};

use super::{LedgerError, keys, take, write};
use crate::attribution::comm_words;
use crate::config::{Config, Filter};
use crate::probe::Maps;

/// The maps by which the programs decide what is left out.
pub(super) struct Admission {
    settings: Array<MapData, Settings>,
    cgroups: HashMap<MapData, u64, u64>,
    comms: HashMap<MapData, [u64; 2], u64>,
    ports: Array<MapData, PortBits>,
    filter: Filter,
}

impl Admission {
    /// Takes the maps, and writes the configured lists into them.
    pub(super) fn new(maps: &mut Maps, config: &Config) -> Result<Self, LedgerError> {
        let mut admission = Self {
            settings: take(maps, "SETTINGS")?,
            cgroups: take(maps, "LEFT_OUT")?,
            comms: take(maps, "COMMS")?,
            ports: take(maps, "PORTS")?,
            filter: Filter::default(),
        };
        admission.set(config)?;
        Ok(admission)
    }

    /// Applies other lists. Cgroups are left out one by one, as their units become known.
    pub(super) fn set(&mut self, config: &Config) -> Result<(), LedgerError> {
        self.filter = config.filter.clone();
        self.write_comms()?;
        self.write_ports(&config.ports)?;
        for id in keys(&self.cgroups, "LEFT_OUT")? {
            self.forget(id);
        }
        let settings = Settings {
            rules: rules_in_use(&self.filter),
        };
        self.settings.set(0, settings, 0).map_err(write("SETTINGS"))
    }

    /// Whether this unit and this process name have groups of their own. `None` stands for a field that is not in the
    /// key: then the programs alone decide.
    pub(super) fn admits(&self, unit: Option<&str>, comm: Option<&str>) -> bool {
        unit.is_none_or(|unit| self.filter.admits_unit(unit))
            && comm.is_none_or(|comm| self.filter.admits_comm(comm))
    }

    /// Makes the programs leave out this cgroup, if the lists leave out its unit.
    pub(super) fn apply_to_cgroup(&mut self, id: u64, unit: &str) {
        if self.filter.admits_unit(unit) {
            return;
        }
        debug!(unit, "left out");
        // If the map is full, the cgroup keeps groups of its own, which are shown under `other`.
        if let Err(error) = self.cgroups.insert(id, 1, 0) {
            warn!(unit, %error, "the kernel goes on counting it by itself");
        }
    }

    pub(super) fn forget(&mut self, id: u64) {
        // It need not be in the map.
        let _ = self.cgroups.remove(&id);
    }

    fn write_comms(&mut self) -> Result<(), LedgerError> {
        let Filter { allow, deny } = &self.filter;
        let allowed = allow.comms.iter().map(|name| (name, verdict::ALLOWED));
        let denied = deny.comms.iter().map(|name| (name, verdict::DENIED));
        let verdicts = allowed.chain(denied);
        let verdicts: BTreeMap<_, _> = verdicts
            .map(|(name, said)| (comm_words(name), said))
            .collect();
        // First make room: both lists together may fill the map.
        for key in keys(&self.comms, "COMMS")? {
            if !verdicts.contains_key(&key) {
                let _ = self.comms.remove(&key);
            }
        }
        for (key, verdict) in verdicts {
            // A lookup may miss an entry while it is replaced.
            if !self.comms.get(&key, 0).is_ok_and(|said| said == verdict) {
                self.comms.insert(key, verdict, 0).map_err(write("COMMS"))?;
            }
        }
        Ok(())
    }

    fn write_ports(&mut self, labelled: &BTreeSet<u16>) -> Result<(), LedgerError> {
        let Filter { allow, deny } = &self.filter;
        let (labelled, allowed, denied) = (bits(labelled), bits(&allow.ports), bits(&deny.ports));
        for index in 0..PortBits::ENTRIES {
            let at = index as usize;
            let bits = PortBits {
                labelled: labelled[at],
                allowed: allowed[at],
                denied: denied[at],
            };
            self.ports.set(index, bits, 0).map_err(write("PORTS"))?;
        }
        Ok(())
    }
}

/// The lists that the programs must look at, a set of [`rule`]s.
fn rules_in_use(filter: &Filter) -> u8 {
    let Filter { allow, deny } = filter;
    let lists = [
        (rule::CGROUPS, filter.has_units()),
        (rule::COMMS_ALLOWED, !allow.comms.is_empty()),
        (rule::COMMS_DENIED, !deny.comms.is_empty()),
        (rule::PORTS_ALLOWED, !allow.ports.is_empty()),
        (rule::PORTS_DENIED, !deny.ports.is_empty()),
    ];
    let used = lists.iter().filter(|(_, is_used)| *is_used);
    used.fold(0, |all, (rule, _)| all | rule)
}

/// A bit for each port, 64 to a word.
fn bits(ports: &BTreeSet<u16>) -> Vec<u64> {
    let mut bits = vec![0; PortBits::ENTRIES as usize];
    for port in ports {
        bits[usize::from(port / 64)] |= 1 << (port % 64);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_its_bit() {
        let bits = bits(&[0, 63, 64, 65_535].into());
        assert_eq!(bits.len(), 1024);
        assert_eq!((bits[0], bits[1]), (1 | 1 << 63, 1));
        assert_eq!(bits[1023], 1 << 63);
        assert_eq!(bits.iter().map(|word| word.count_ones()).sum::<u32>(), 4);
    }

    #[test]
    fn the_programs_skip_empty_lists() {
        assert_eq!(rules_in_use(&Filter::default()), 0);
        let mut filter = Filter::default();
        filter.deny.comms.insert("sshd".into());
        assert_eq!(rules_in_use(&filter), rule::COMMS_DENIED);
        filter.allow.ports = [443].into();
        assert_eq!(
            rules_in_use(&filter),
            rule::COMMS_DENIED | rule::PORTS_ALLOWED
        );
    }
}
