//! Adapts the object to the running kernel.

use std::ops::Range;

use aya_obj::generated::BPF_F_NO_PREALLOC;
use linger_ebpf::{Constants, OBJECT, key_field};
use object::{Object as _, ObjectSection, ObjectSymbol as _, SectionKind};
use tracing::debug;

use super::btf::Kernel;
use super::constants;
use super::error::AttachError;

/// Size of a map's definition, and the ranges of fields in it, bytes.
///
/// aya-ebpf: `struct bpf_map_def`
const DEFINITION: usize = 28;
const KEY_SIZE: Range<usize> = 4..8;
const FLAGS: Range<usize> = 16..20;

/// Returns the object for this kernel, with these constants.
///
/// Before Linux 6.1 the kernel allocates map entries in a way that is not safe in kprobes and raw tracepoints: it warns
/// once about such programs, and rejects them with `PREEMPT_RT`. On these kernels, all entries are preallocated.
///
/// kernel: v5.8..v6.0 kernel/bpf/verifier.c: `check_map_prog_compatibility`
pub(super) fn for_kernel(kernel: &Kernel, constants: &Constants) -> Result<Vec<u8>, AttachError> {
    let mut object = OBJECT.to_vec();
    let Parts { code, maps, ledger } = parts(OBJECT).expect("our own object has maps");
    for code in code {
        constants::fill(&mut object[code], constants)?;
    }
    shorten_keys(&mut object[ledger], constants.key_fields);
    if !kernel.has_struct("bpf_mem_alloc") {
        debug!("this kernel is older than Linux 6.1: maps are allocated as a whole");
        preallocate(&mut object[maps]);
    }
    Ok(object)
}

/// Returns the names of all maps, without the data sections of programs (`.bss`).
pub(super) fn maps() -> impl Iterator<Item = String> {
    let object = aya_obj::Object::parse(OBJECT).expect("our own object");
    let names = object.maps.into_keys();
    names.filter(|name| !name.starts_with('.'))
}

/// Sets the size of keys in the ledger's definition to that of the fields in use.
fn shorten_keys(ledger: &mut [u8], key_fields: u32) {
    let size = u32::try_from(key_field::key_size(key_fields)).expect("a small struct");
    ledger[KEY_SIZE].copy_from_slice(&size.to_ne_bytes());
}

/// Clears `BPF_F_NO_PREALLOC` in every map definition.
fn preallocate(maps: &mut [u8]) {
    for definition in maps.chunks_exact_mut(DEFINITION) {
        let flags = &mut definition[FLAGS];
        let without = u32::from_ne_bytes(flags.try_into().expect("4 bytes")) & !BPF_F_NO_PREALLOC;
        flags.copy_from_slice(&without.to_ne_bytes());
    }
}

struct Parts {
    code: Vec<Range<usize>>,
    maps: Range<usize>,
    ledger: Range<usize>,
}

fn parts(object: &[u8]) -> Option<Parts> {
    let object = object::File::parse(object).ok()?;
    let code = object
        .sections()
        .filter(|section| section.kind() == SectionKind::Text && section.size() > 0);
    let code = code.map(|section| place(&section)).collect::<Option<_>>()?;
    let maps = place(&object.section_by_name("maps")?)?;
    let ledger = object.symbol_by_name("LEDGER")?.address();
    let ledger = maps.start.checked_add(usize::try_from(ledger).ok()?)?;
    Some(Parts {
        code,
        maps,
        ledger: ledger..ledger + DEFINITION,
    })
}

fn place<'a>(section: &impl ObjectSection<'a>) -> Option<Range<usize>> {
    let (start, size) = section.file_range()?;
    let start = usize::try_from(start).ok()?;
    Some(start..start.checked_add(usize::try_from(size).ok()?)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use linger_ebpf::{Field, Group, Offsets};

    use super::*;

    /// The definition of each map, with these flags cleared.
    fn definitions(object: &[u8], without: u32) -> BTreeMap<String, [u32; 5]> {
        let object = aya_obj::Object::parse(object).unwrap();
        let definition = |map: &aya_obj::Map| {
            let flags = map.map_flags() & !without;
            [
                map.map_type(),
                map.key_size(),
                map.value_size(),
                map.max_entries(),
                flags,
            ]
        };
        let maps = object.maps.iter();
        maps.map(|(name, map)| (name.clone(), definition(map)))
            .collect()
    }

    #[test]
    fn preallocation_clears_only_the_flag_in_every_map() {
        let mut object = OBJECT.to_vec();
        preallocate(&mut object[parts(OBJECT).unwrap().maps]);
        assert_eq!(
            definitions(&object, 0),
            definitions(OBJECT, BPF_F_NO_PREALLOC)
        );
        assert_ne!(definitions(&object, 0), definitions(OBJECT, 0));
        assert_eq!(object.len(), OBJECT.len());
    }

    #[test]
    fn only_the_ledger_has_keys_of_the_fields_in_use() {
        let of = |key_fields| {
            let mut object = OBJECT.to_vec();
            shorten_keys(&mut object[parts(OBJECT).unwrap().ledger], key_fields);
            definitions(&object, 0)
        };
        assert_eq!(of(key_field::ALL), definitions(OBJECT, 0));
        for (key_fields, key_size) in [
            (0, 8),
            (key_field::CGROUP, 8),
            (key_field::COMM, 24),
            (key_field::CGROUP | key_field::COMM, 24),
            (key_field::CGROUP | key_field::FAMILY, 40),
            (key_field::EXE, size_of::<Group>()),
            (key_field::PORT, size_of::<Group>()),
        ] {
            let mut expected = definitions(OBJECT, 0);
            expected.get_mut("LEDGER").unwrap()[1] = u32::try_from(key_size).unwrap();
            assert_eq!(of(key_fields), expected);
        }
    }

    /// The code of the object, filled with these constants.
    fn filled(constants: &Constants) -> Vec<u8> {
        let code = parts(OBJECT).unwrap().code.into_iter();
        let mut code: Vec<u8> = code.flat_map(|code| OBJECT[code].to_vec()).collect();
        constants::fill(&mut code, constants).unwrap();
        code
    }

    #[test]
    fn every_constant_has_a_use() {
        let all = Constants {
            offsets: Offsets::ZERO,
            key_fields: key_field::ALL,
            close_syscall: 3,
            copies: Constants::COPIES,
            leaves_old_names: 0,
        };
        let before = filled(&all);
        let mut unused = Vec::new();
        for field in Field::ALL {
            let mut other = all;
            (field.set)(&mut other.offsets, 8);
            if filled(&other) == before {
                unused.push(field.path);
            }
        }
        assert!(unused.is_empty(), "no instruction reads {unused:?}");
        let changes: [fn(&mut Constants); 4] = [
            |constants| constants.key_fields = 0,
            |constants| constants.copies = Constants::NO_COPIES,
            |constants| constants.close_syscall = 4,
            |constants| constants.leaves_old_names = 1,
        ];
        for change in changes {
            let mut other = all;
            change(&mut other);
            assert!(filled(&other) != before, "{other:?}");
        }
    }
}
