//! The running kernel's BTF: offsets of the fields that the programs read, and which functions exist.

mod types;

use std::fs;
use std::io;
use std::path::Path;

use aya::{Btf, Endianness};
use aya_obj::generated::{BTF_KIND_ENUM, BTF_KIND_FUNC, BTF_KIND_STRUCT, BTF_KIND_TYPEDEF};
use linger_ebpf::{Field, Offsets, Shape};
use serde::Serialize;
use thiserror::Error;

use self::types::{Type, Types};

pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The reason why the kernel's types cannot be used.
#[derive(Debug, Error)]
pub enum KernelError {
    /// BTF is missing or unreadable.
    #[error(
        "cannot read the kernel's BTF at {path}: {reason}; lingerd needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y (Debian since 11, Ubuntu since 20.10, RHEL since 8.2)"
    )]
    NoBtf {
        /// The file.
        path: String,
        /// The cause.
        reason: String,
    },
    /// The kernel is older than the oldest one that lingerd supports.
    #[error("this kernel is too old: lingerd needs Linux 5.15 or later")]
    TooOld,
    /// A field or an enum differs from what the programs expect.
    #[error(
        "the kernel's {field} {reason}; lingerd refuses to count with a guess: please report this \
         kernel's version"
    )]
    Field {
        /// The field, as `struct.path`.
        field: String,
        /// The difference.
        reason: String,
    },
}

/// A field that the programs read, with its offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// The field, as `struct.path`.
    #[serde(rename = "name")]
    pub field: String,
    /// Byte offset in the struct; `None` if this kernel does not have the field.
    pub offset: Option<u32>,
    /// The mask in that byte, for a bit field.
    pub mask: Option<u8>,
}

/// Whether the programs can recognize a system call by its saved registers on this architecture.
pub(super) const RECOGNIZES_SYSCALLS: bool =
    cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Socket flags whose bits are built into the programs (`enum sock_flags`).
const SOCK_FLAGS: &[(&str, u32)] = &[("SOCK_DEAD", 0), ("SOCK_DONE", 1), ("SOCK_LINGER", 4)];

/// The running kernel's types.
pub struct Kernel {
    types: Types,
}

impl Kernel {
    /// Reads the running kernel's BTF.
    pub fn running() -> Result<Self, KernelError> {
        Self::from_file(Path::new(VMLINUX))
    }

    /// Reads BTF from a file.
    pub fn from_file(path: &Path) -> Result<Self, KernelError> {
        let types = fs::read(path)
            .and_then(|bytes| Types::new(bytes).map_err(io::Error::other))
            .map_err(|error| KernelError::NoBtf {
                path: path.display().to_string(),
                reason: error.to_string(),
            })?;
        Ok(Self { types })
    }

    /// Finds every field that the programs read with these key fields in use, a set of
    /// [`key_field`](linger_ebpf::key_field) bits.
    pub fn offsets(&self, key_fields: u32) -> Result<(Offsets, Vec<Resolved>), KernelError> {
        // All kinds of namespaces keep their reference count in the same field since v5.11. This stands in for BPF's
        // compare-and-swap, which came soon after, in v5.12, and does not show in BTF.
        if self.places("ns_common", "count|__ns_ref").is_empty() {
            return Err(KernelError::TooOld);
        }
        self.check_sock_flags()?;
        let mut offsets = Offsets::ZERO;
        let mut resolved = Vec::with_capacity(Field::ALL.len());
        for field in Field::ALL {
            let Some(found) = self.find(field, key_fields)? else {
                continue;
            };
            (field.set)(&mut offsets, found.offset.unwrap_or(Offsets::ABSENT));
            if let Some(mask) = found.mask {
                (field.set_mask)(&mut offsets, mask.into());
            }
            resolved.push(found);
        }
        Ok((offsets, resolved))
    }

    pub(super) fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    pub(super) fn has_struct(&self, name: &str) -> bool {
        self.types.named(BTF_KIND_STRUCT, name).next().is_some()
    }

    /// Finds the typedef of a tracepoint; each that BTF-typed programs can attach to has one.
    pub(super) fn tracepoint(&self, name: &str) -> Option<Type<'_>> {
        let name = format!("btf_trace_{name}");
        self.types.named(BTF_KIND_TYPEDEF, &name).next()
    }

    pub(super) fn function(&self, name: &str) -> Option<Type<'_>> {
        self.types.named(BTF_KIND_FUNC, name).next()
    }

    /// Finds a field; `None` if that fails and no key field in use needs it.
    fn find(&self, field: &Field, key_fields: u32) -> Result<Option<Resolved>, KernelError> {
        match self.resolve(field) {
            Err(_) if field.key_fields != 0 && field.key_fields & key_fields == 0 => Ok(None),
            found => found.map(Some),
        }
    }

    /// Finds a field, and fails if it is missing, ambiguous, or not of the required form.
    fn resolve(&self, field: &Field) -> Result<Resolved, KernelError> {
        let full = format!("{}.{}", field.name, field.path);
        let error = |reason: &str| KernelError::Field {
            field: full.clone(),
            reason: reason.into(),
        };
        let absent = Resolved {
            field: full.clone(),
            offset: None,
            mask: None,
        };
        if matches!(field.shape, Shape::Register(_)) && !RECOGNIZES_SYSCALLS {
            return Ok(absent);
        }
        let mut places = self.places(field.name, field.path);
        places.dedup_by_key(|place| place.bit_offset);
        let place = match (places.as_slice(), &field.shape) {
            ([place], _) => place,
            ([], Shape::Optional(_)) => return Ok(absent),
            ([], _) => return Err(error("does not exist")),
            _ => return Err(error("is ambiguous: there are several")),
        };
        let fits = match field.shape {
            Shape::Bit => place.bits == Some(1),
            Shape::Bytes(size) | Shape::Optional(size) => {
                place.bits.is_none() && place.size == size
            }
            Shape::Array(size) | Shape::Register(size) => {
                place.bits.is_none() && place.size >= size
            }
        };
        if !fits {
            return Err(error(&format!("has another size ({} bytes)", place.size)));
        }
        Ok(Resolved {
            field: full,
            offset: Some(place.bit_offset / 8),
            mask: place.bits.map(|_| 1 << (place.bit_offset % 8)),
        })
    }

    /// Finds a field, by any of its alternative paths, in all structs with this name.
    fn places(&self, name: &str, path: &str) -> Vec<Location> {
        let mut places = Vec::new();
        for at in self.types.named(BTF_KIND_STRUCT, name) {
            for path in path.split('|') {
                walk(at, path, 0, &mut places);
            }
        }
        places
    }

    fn check_sock_flags(&self) -> Result<(), KernelError> {
        let error = |reason: &str| KernelError::Field {
            field: "enum sock_flags".into(),
            reason: reason.into(),
        };
        let values: Vec<_> = self
            .types
            .named(BTF_KIND_ENUM, "sock_flags")
            .flat_map(Type::values)
            .collect();
        if values.is_empty() {
            return Err(error("does not exist"));
        }
        for (name, value) in SOCK_FLAGS {
            if !values.contains(&(name.as_bytes(), *value)) {
                return Err(error(&format!("has no {name} = {value}")));
            }
        }
        Ok(())
    }
}

/// Minimal BTF with the ids of these types, for the loader, which would otherwise parse the kernel's whole BTF into
/// some ten megabytes.
pub(super) fn minimal(named: &[Type<'_>]) -> Option<Btf> {
    Btf::parse(&types::minimal(named), Endianness::default()).ok()
}

/// Finds a dotted path in a struct, also through its anonymous members.
fn walk(at: Type, path: &str, base: u32, places: &mut Vec<Location>) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    for member in at.members() {
        let bit_offset = base + member.bit_offset;
        let inner = member.is.filter(|is| is.is_aggregate());
        if member.name.is_empty() {
            if let Some(inner) = inner {
                walk(inner, path, bit_offset, places);
            }
        } else if member.name == name.as_bytes() {
            match (rest, inner) {
                (Some(rest), Some(inner)) => walk(inner, rest, bit_offset, places),
                (Some(_), None) => {}
                (None, _) => places.push(Location {
                    bit_offset,
                    bits: member.bits,
                    size: member.is.map_or(0, Type::size),
                }),
            }
        }
    }
}

/// Where a field is in its struct.
#[derive(Debug)]
struct Location {
    /// From the beginning of the outermost struct.
    bit_offset: u32,
    bits: Option<u32>,
    size: usize,
}

#[cfg(test)]
mod tests;
