//! Raw BTF (Documentation/bpf/btf.rst), read in place: of some hundred thousand types, only a few dozen are
//! needed.

use std::iter::successors;

use aya_obj::generated::{
    BTF_KIND_ARRAY, BTF_KIND_CONST, BTF_KIND_DATASEC, BTF_KIND_DECL_TAG, BTF_KIND_ENUM,
    BTF_KIND_ENUM64, BTF_KIND_FLOAT, BTF_KIND_FUNC, BTF_KIND_FUNC_PROTO, BTF_KIND_FWD,
    BTF_KIND_INT, BTF_KIND_PTR, BTF_KIND_RESTRICT, BTF_KIND_STRUCT, BTF_KIND_TYPE_TAG,
    BTF_KIND_TYPEDEF, BTF_KIND_UNION, BTF_KIND_VAR, BTF_KIND_VOLATILE,
};

/// All types of a kernel, by id and by name.
pub(super) struct Types {
    bytes: Vec<u8>,
    /// Offset of the string section, which holds all names.
    strings: usize,
    /// Offset of each type, by its id; id 0 is `void`.
    starts: Vec<u32>,
    /// Hash of the name, and id, of each type that can be looked up by name.
    named: Vec<(u32, u32)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it does not begin as BTF of this machine does")]
    Header,
    #[error("it ends within its type {0}")]
    Cut(usize),
    #[error("it has types of the kind {0}, which is not known")]
    Kind(u32),
}

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;

/// Size of `struct btf_type`, bytes: name, kind with the number of parts, size or type.
const HEAD: usize = 12;

/// Maximum length of a chain of typedefs and qualifiers: a longer one is a cycle.
const MAX_CHAIN: usize = 64;

impl Types {
    /// Finds where each type begins. Fails if the bytes are not BTF that this program understands.
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let field = |at| word(&bytes, at).map(|word| word as usize);
        let header = || {
            let known = bytes.starts_with(&MAGIC.to_ne_bytes()) && bytes.get(2) == Some(&VERSION);
            let types = field(4)?.checked_add(field(8)?)?;
            let end = types.checked_add(field(12)?)?;
            let strings = field(4)?.checked_add(field(16)?)?;
            let all = strings.checked_add(field(20)?)?.max(end);
            (known && all <= bytes.len()).then_some((types, end, strings))
        };
        let (mut at, end, strings) = header().ok_or(Malformed::Header)?;
        let (mut starts, mut named) = (vec![0], Vec::new());
        while at < end {
            let cut = || Malformed::Cut(starts.len());
            let info = word(&bytes[..end], at + 4).ok_or_else(cut)?;
            let next = at + HEAD + rest(info)?;
            if next > end {
                return Err(cut());
            }
            if matches!(
                kind_of(info),
                BTF_KIND_STRUCT | BTF_KIND_ENUM | BTF_KIND_FUNC | BTF_KIND_TYPEDEF
            ) {
                let name = text(&bytes, strings, word(&bytes, at).unwrap_or_default());
                let id = u32::try_from(starts.len()).map_err(|_| cut())?;
                named.push((hash(name), id));
            }
            starts.push(u32::try_from(at).map_err(|_| cut())?);
            at = next;
        }
        Ok(Self {
            bytes,
            strings,
            starts,
            named,
        })
    }

    /// The types of this kind with this name: structs, enums, functions or typedefs.
    pub(super) fn named(&self, kind: u32, name: &str) -> impl Iterator<Item = Type<'_>> {
        let hash = hash(name.as_bytes());
        let alike = self.named.iter().filter(move |(other, _)| *other == hash);
        let types = alike.filter_map(|&(_, id)| self.of(id));
        types.filter(move |found| found.kind() == kind && found.name() == name.as_bytes())
    }

    /// The type with this id; `None` for `void`.
    fn of(&self, id: u32) -> Option<Type<'_>> {
        let start = *self.starts.get(id as usize).filter(|_| id > 0)?;
        Some(Type {
            types: self,
            id,
            at: start as usize,
        })
    }
}

/// A type, read in place.
#[derive(Clone, Copy)]
pub(in crate::probe) struct Type<'a> {
    types: &'a Types,
    pub(super) id: u32,
    at: usize,
}

/// A member of a struct or union.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) name: &'a [u8],
    pub(super) bit_offset: u32,
    pub(super) bits: Option<u32>,
    /// Its type, without typedefs and qualifiers.
    pub(super) is: Option<Type<'a>>,
}

impl<'a> Type<'a> {
    /// The word at this index. All words that the kind of the type implies exist.
    fn word(self, index: usize) -> u32 {
        word(&self.types.bytes, self.at + 4 * index).unwrap_or_default()
    }

    /// Its kind, one of `BTF_KIND_*`.
    pub(super) fn kind(self) -> u32 {
        kind_of(self.word(1))
    }

    /// Number of its members, values or parameters.
    fn parts(self) -> usize {
        parts(self.word(1))
    }

    fn name(self) -> &'a [u8] {
        text(&self.types.bytes, self.types.strings, self.word(0))
    }

    pub(super) fn is_aggregate(self) -> bool {
        matches!(self.kind(), BTF_KIND_STRUCT | BTF_KIND_UNION)
    }

    pub(super) fn members(self) -> impl Iterator<Item = Member<'a>> {
        let count = if self.is_aggregate() { self.parts() } else { 0 };
        // In a struct with bit fields, the upper byte of every offset is a width.
        let has_sizes = self.word(1) >> 31 == 1;
        (0..count).map(move |index| {
            let [name, id, place] = [0, 1, 2].map(|word| self.word(3 + 3 * index + word));
            let (bits, bit_offset) = if has_sizes {
                (
                    Some(place >> 24).filter(|bits| *bits > 0),
                    place & 0xff_ffff,
                )
            } else {
                (None, place)
            };
            Member {
                name: text(&self.types.bytes, self.types.strings, name),
                bit_offset,
                bits,
                is: self.types.of(id).and_then(Self::bare),
            }
        })
    }

    /// The names and values of an enum; the type must be one.
    pub(super) fn values(self) -> impl Iterator<Item = (&'a [u8], u32)> {
        (0..self.parts()).map(move |index| {
            let [name, value] = [0, 1].map(|word| self.word(3 + 2 * index + word));
            (text(&self.types.bytes, self.types.strings, name), value)
        })
    }

    pub(super) fn size(self) -> usize {
        match self.kind() {
            BTF_KIND_PTR => size_of::<u64>(),
            BTF_KIND_ARRAY => {
                let element = self.types.of(self.word(3)).and_then(Self::bare);
                let size = element.map_or(0, Self::size);
                size.saturating_mul(self.word(5) as usize)
            }
            BTF_KIND_INT | BTF_KIND_STRUCT | BTF_KIND_UNION | BTF_KIND_ENUM | BTF_KIND_ENUM64
            | BTF_KIND_FLOAT => self.word(2) as usize,
            _ => 0,
        }
    }

    /// The type itself, without typedefs and qualifiers.
    fn bare(self) -> Option<Self> {
        let mut chain = successors(Some(self), |of| of.types.of(of.word(2))).take(MAX_CHAIN);
        chain.find(|of| !of.is_alias())
    }

    fn is_alias(self) -> bool {
        matches!(
            self.kind(),
            BTF_KIND_TYPEDEF
                | BTF_KIND_VOLATILE
                | BTF_KIND_CONST
                | BTF_KIND_RESTRICT
                | BTF_KIND_TYPE_TAG
        )
    }
}

/// BTF with only the names of these types, under the same ids; all other ids are placeholders.
pub(super) fn minimal(named: &[Type]) -> Vec<u8> {
    let last = named.iter().map(|named| named.id).max().unwrap_or(0);
    let mut strings = vec![0];
    let mut types = Vec::with_capacity(last as usize * HEAD);
    for _ in 0..last {
        put(&mut types, &[0, BTF_KIND_FWD << 24, 0]);
    }
    for named in named {
        let mut head = Vec::new();
        put(&mut head, &[size(&strings), named.kind() << 24, 0]);
        strings.extend(named.name().iter().chain(&[0]));
        let at = (named.id as usize - 1) * HEAD;
        types[at..at + HEAD].copy_from_slice(&head);
    }
    assemble(&types, &strings)
}

/// BTF with these sections.
pub(super) fn assemble(types: &[u8], strings: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_ne_bytes().to_vec();
    bytes.extend([VERSION, 0]);
    let types_size = size(types);
    put(&mut bytes, &[24, 0, types_size, types_size, size(strings)]);
    [&bytes, types, strings].concat()
}

pub(super) fn put(bytes: &mut Vec<u8>, words: &[u32]) {
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("some megabytes")
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// The string at this offset, without its terminator; empty if there is none.
fn text(bytes: &[u8], strings: usize, at: u32) -> &[u8] {
    let from = bytes.get(strings + at as usize..).unwrap_or_default();
    let end = from.iter().position(|byte| *byte == 0);
    &from[..end.unwrap_or(0)]
}

const fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

const fn parts(info: u32) -> usize {
    (info & 0xffff) as usize
}

/// Bytes after the [`HEAD`] of a type.
fn rest(info: u32) -> Result<usize, Malformed> {
    let parts = parts(info);
    Ok(match kind_of(info) {
        BTF_KIND_INT | BTF_KIND_VAR | BTF_KIND_DECL_TAG => 4,
        BTF_KIND_ARRAY => 12,
        BTF_KIND_STRUCT | BTF_KIND_UNION | BTF_KIND_DATASEC | BTF_KIND_ENUM64 => 12 * parts,
        BTF_KIND_ENUM | BTF_KIND_FUNC_PROTO => 8 * parts,
        BTF_KIND_PTR..=BTF_KIND_TYPE_TAG => 0,
        other => return Err(Malformed::Kind(other)),
    })
}

fn hash(name: &[u8]) -> u32 {
    let mix = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    name.iter().fold(0x811c_9dc5, mix)
}
