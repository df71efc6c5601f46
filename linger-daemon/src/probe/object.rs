//! The object as this kernel takes it.

use std::borrow::Cow;
use std::ops::Range;

use aya_obj::generated::BPF_F_NO_PREALLOC;
use linger_ebpf::OBJECT;
use object::{Object as _, ObjectSection as _};
use tracing::debug;

use super::btf::Kernel;

/// Size of a map's definition, and where its flags are in it.
///
/// aya-ebpf: `struct bpf_map_def`
const DEFINITION: usize = 28;
const FLAGS: Range<usize> = 16..20;

/// The object for this kernel.
///
/// Before Linux 6.1 the kernel allocates entries of maps in a way that is not safe in kprobes and raw tracepoints: it
/// warns of such programs once, and refuses them with `PREEMPT_RT`. There, all entries are allocated at start.
///
/// kernel: v5.8..v6.0 kernel/bpf/verifier.c: `check_map_prog_compatibility`
pub(super) fn of(kernel: &Kernel) -> Cow<'static, [u8]> {
    if kernel.has_struct("bpf_mem_alloc") {
        OBJECT.into()
    } else {
        debug!("this kernel is older than Linux 6.1: maps are allocated as a whole");
        preallocated(OBJECT).into()
    }
}

/// An object without the flag of maps whose entries are allocated when they are needed.
fn preallocated(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    let maps = maps(&object).expect("our own object has maps");
    for definition in object[maps].chunks_exact_mut(DEFINITION) {
        let flags = &mut definition[FLAGS];
        let without = u32::from_ne_bytes(flags.try_into().expect("4 bytes")) & !BPF_F_NO_PREALLOC;
        flags.copy_from_slice(&without.to_ne_bytes());
    }
    object
}

/// Where the definitions of maps are in an object.
fn maps(object: &[u8]) -> Option<Range<usize>> {
    let file = object::File::parse(object).ok()?;
    let (start, size) = file.section_by_name("maps")?.file_range()?;
    let start = usize::try_from(start).ok()?;
    Some(start..start + usize::try_from(size).ok()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Everything of each map but its contents, with these flags left out.
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
    fn only_the_flag_is_gone_and_from_every_map() {
        let object = preallocated(OBJECT);
        assert_eq!(
            definitions(&object, 0),
            definitions(OBJECT, BPF_F_NO_PREALLOC)
        );
        assert_ne!(definitions(&object, 0), definitions(OBJECT, 0));
        assert_eq!(object.len(), OBJECT.len());
    }
}
