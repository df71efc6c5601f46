//! What the running kernel's BTF says: where the fields are that the programs read, and which
//! functions there are.

mod types;

use std::fs;
use std::io;
use std::path::Path;

use aya::{Btf, Endianness};
use linger_ebpf::Offsets;
use thiserror::Error;

use self::types::{Type, Types};

/// Where the kernel shows its own BTF.
pub(super) const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel cannot be read.
#[derive(Debug, Error)]
pub enum KernelError {
    /// There is no BTF, or it is unreadable.
    #[error(
        "cannot read the kernel's BTF at {path}: {reason}; lingerd needs a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y (Debian since 11, Ubuntu since 20.10, RHEL since 8.2)"
    )]
    NoBtf {
        /// The file that was tried.
        path: String,
        /// What went wrong.
        reason: String,
    },
    /// A field is not where, or not what, the programs expect.
    #[error(
        "the kernel's {field} {reason}; lingerd refuses to count with a guess: please report this \
         kernel's version"
    )]
    Field {
        /// The field, as `struct.path`.
        field: String,
        /// What is the matter with it.
        reason: String,
    },
}

/// A field that the programs read, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The field, as `struct.path`.
    pub field: String,
    /// Byte offset in the struct; none if this kernel does without it.
    pub offset: Option<u32>,
    /// For a bit field, its mask in that byte.
    pub mask: Option<u8>,
}

/// One row of the table of fields.
struct Field {
    name: &'static str,
    /// Where it is in there; several, separated by `|`, if kernels differ.
    path: &'static str,
    shape: Shape,
    set: fn(&mut Offsets, u32),
    /// Of a bit, what takes its place in that byte.
    set_mask: fn(&mut Offsets, u32),
}

/// What a field must look like.
enum Shape {
    /// This many bytes.
    Bytes(usize),
    /// At least this many bytes, of which the first are read.
    Array(usize),
    /// One bit.
    Bit,
    /// This many bytes, or no such field.
    Optional(usize),
}

macro_rules! field {
    ($offset:ident, $name:literal, $path:literal, $shape:expr) => {
        Field {
            name: $name,
            path: $path,
            shape: $shape,
            set: |offsets, at| offsets.$offset = at,
            set_mask: |_, _| {},
        }
    };
    ($offset:ident, $mask:ident, $name:literal, $path:literal) => {
        Field {
            set_mask: |offsets, mask| offsets.$mask = mask,
            ..field!($offset, $name, $path, Shape::Bit)
        }
    };
}

const FIELDS: &[Field] = &[
    field!(state, "sock", "__sk_common.skc_state", Shape::Bytes(1)),
    field!(flags, "sock", "__sk_common.skc_flags", Shape::Bytes(8)),
    field!(dport, "sock", "__sk_common.skc_dport", Shape::Bytes(2)),
    field!(shutdown, "sock", "sk_shutdown", Shape::Bytes(1)),
    field!(owned, "sock", "sk_lock.owned", Shape::Bytes(4)),
    field!(err, "sock", "sk_err", Shape::Bytes(4)),
    field!(socket, "sock", "sk_socket", Shape::Bytes(8)),
    field!(of_kernel, of_kernel_mask, "sock", "sk_kern_sock"),
    field!(
        receive_qlen,
        "sock",
        "sk_receive_queue.qlen",
        Shape::Bytes(4)
    ),
    field!(lingertime, "sock", "sk_lingertime", Shape::Bytes(8)),
    field!(cgroup, "sock", "sk_cgrp_data.cgroup", Shape::Bytes(8)),
    field!(cgroup_kn, "cgroup", "kn", Shape::Bytes(8)),
    field!(kernfs_id, "kernfs_node", "id", Shape::Bytes(8)),
    field!(cgroup_flags, "cgroup", "self.flags", Shape::Bytes(4)),
    field!(kernfs_name, "kernfs_node", "name", Shape::Bytes(8)),
    // Renamed in v6.15.
    field!(
        kernfs_parent,
        "kernfs_node",
        "parent|__parent",
        Shape::Bytes(8)
    ),
    field!(family, "sock", "__sk_common.skc_family", Shape::Bytes(2)),
    field!(
        v6_daddr,
        "sock",
        "__sk_common.skc_v6_daddr",
        Shape::Optional(16)
    ),
    field!(daddr, "sock", "__sk_common.skc_daddr", Shape::Bytes(4)),
    field!(saddr, "sock", "__sk_common.skc_rcv_saddr", Shape::Bytes(4)),
    field!(
        v6_saddr,
        "sock",
        "__sk_common.skc_v6_rcv_saddr",
        Shape::Optional(16)
    ),
    field!(sport, "inet_sock", "inet_sport", Shape::Bytes(2)),
    field!(mc_index, "inet_sock", "mc_index", Shape::Bytes(4)),
    field!(pinet6, "inet_sock", "pinet6", Shape::Optional(8)),
    field!(mcast_oif, "ipv6_pinfo", "mcast_oif", Shape::Optional(4)),
    field!(write_seq, "tcp_sock", "write_seq", Shape::Bytes(4)),
    field!(snd_nxt, "tcp_sock", "snd_nxt", Shape::Bytes(4)),
    field!(snd_una, "tcp_sock", "snd_una", Shape::Bytes(4)),
    field!(rcv_nxt, "tcp_sock", "rcv_nxt", Shape::Bytes(4)),
    field!(copied_seq, "tcp_sock", "copied_seq", Shape::Bytes(4)),
    field!(packets_out, "tcp_sock", "packets_out", Shape::Bytes(4)),
    field!(linger2, "tcp_sock", "linger2", Shape::Bytes(4)),
    field!(repair, repair_mask, "tcp_sock", "repair"),
    field!(is_mptcp, "tcp_sock", "is_mptcp", Shape::Optional(1)),
    field!(net, "sock", "__sk_common.skc_net.net", Shape::Bytes(8)),
    // Renamed in v6.18.
    field!(net_users, "net", "ns.count|ns.__ns_ref", Shape::Bytes(4)),
    field!(skb_head, "sk_buff", "head", Shape::Bytes(8)),
    field!(
        transport_header,
        "sk_buff",
        "transport_header",
        Shape::Bytes(2)
    ),
    field!(group_leader, "task_struct", "group_leader", Shape::Bytes(8)),
    field!(comm, "task_struct", "comm", Shape::Array(16)),
    field!(task_flags, "task_struct", "flags", Shape::Bytes(4)),
    field!(task_cgroups, "task_struct", "cgroups", Shape::Bytes(8)),
    field!(dfl_cgroup, "css_set", "dfl_cgrp", Shape::Bytes(8)),
    field!(start_time, "task_struct", "start_time", Shape::Bytes(8)),
    field!(mm, "task_struct", "mm", Shape::Bytes(8)),
    field!(exe_file, "mm_struct", "exe_file", Shape::Bytes(8)),
    field!(file_inode, "file", "f_inode", Shape::Bytes(8)),
    field!(file_dentry, "file", "f_path.dentry", Shape::Bytes(8)),
    field!(file_mnt, "file", "f_path.mnt", Shape::Bytes(8)),
    field!(inode_number, "inode", "i_ino", Shape::Bytes(8)),
    field!(inode_generation, "inode", "i_generation", Shape::Bytes(4)),
    field!(inode_sb, "inode", "i_sb", Shape::Bytes(8)),
    field!(sb_device, "super_block", "s_dev", Shape::Bytes(4)),
    // Read-only under its old name since v6.17.
    field!(
        dentry_name,
        "dentry",
        "d_name.name|__d_name.name",
        Shape::Bytes(8)
    ),
    field!(dentry_parent, "dentry", "d_parent", Shape::Bytes(8)),
    field!(mnt_root, "vfsmount", "mnt_root", Shape::Bytes(8)),
    field!(mount_mnt, "mount", "mnt", Shape::Array(8)),
    field!(mount_parent, "mount", "mnt_parent", Shape::Bytes(8)),
    field!(mountpoint, "mount", "mnt_mountpoint", Shape::Bytes(8)),
    #[cfg(target_arch = "x86_64")]
    field!(syscall, "pt_regs", "orig_ax", Shape::Bytes(8)),
    #[cfg(target_arch = "x86_64")]
    field!(syscall_result, "pt_regs", "ax", Shape::Bytes(8)),
];

/// Socket flags whose bits the programs know, from `enum sock_flags`.
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

    /// Finds every field the programs read.
    pub fn offsets(&self) -> Result<(Offsets, Vec<Resolved>), KernelError> {
        self.check_sock_flags()?;
        let mut offsets = Offsets::ZERO;
        let mut resolved = Vec::with_capacity(FIELDS.len());
        for field in FIELDS {
            let found = self.resolve(field)?;
            (field.set)(&mut offsets, found.offset.unwrap_or(Offsets::ABSENT));
            if let Some(mask) = found.mask {
                (field.set_mask)(&mut offsets, mask.into());
            }
            resolved.push(found);
        }
        Ok((offsets, resolved))
    }

    /// Whether the kernel has a function of this name that can be hooked.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    /// Whether programs can be attached to a tracepoint of this name that know the types of its arguments.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoint(name).is_some()
    }

    /// The names of those of these functions and tracepoints that there are, for a loader that looks for
    /// their ids: of a kernel's BTF it would take some ten megabytes apart.
    pub(super) fn names<'a>(
        &self,
        functions: impl Iterator<Item = &'a str>,
        tracepoints: impl Iterator<Item = &'a str>,
    ) -> Option<Btf> {
        let functions = functions.filter_map(|name| self.function(name));
        let tracepoints = tracepoints.filter_map(|name| self.tracepoint(name));
        let named: Vec<_> = functions.chain(tracepoints).collect();
        Btf::parse(&types::of_names(&named), Endianness::default()).ok()
    }

    /// What the kernel has for each tracepoint: a name for the type of its function.
    fn tracepoint(&self, name: &str) -> Option<Type<'_>> {
        let name = format!("btf_trace_{name}");
        self.types.named(&name).find(|found| found.is_typedef())
    }

    fn function(&self, name: &str) -> Option<Type<'_>> {
        self.types.named(name).find(|found| found.is_function())
    }

    fn resolve(&self, field: &Field) -> Result<Resolved, KernelError> {
        let full = format!("{}.{}", field.name, field.path);
        let error = |reason: &str| KernelError::Field {
            field: full.clone(),
            reason: reason.into(),
        };
        let mut places = Vec::new();
        for at in self.types.named(field.name).filter(|at| at.is_struct()) {
            for path in field.path.split('|') {
                walk(at, path, 0, &mut places);
            }
        }
        places.dedup_by_key(|place| place.bit_offset);
        let place = match (places.as_slice(), &field.shape) {
            ([place], _) => place,
            ([], Shape::Optional(_)) => {
                return Ok(Resolved {
                    field: full,
                    offset: None,
                    mask: None,
                });
            }
            ([], _) => return Err(error("does not exist")),
            _ => return Err(error("is ambiguous: there are several")),
        };
        let fits = match field.shape {
            Shape::Bit => place.bits == Some(1),
            Shape::Bytes(size) | Shape::Optional(size) => {
                place.bits.is_none() && place.size == size
            }
            Shape::Array(size) => place.bits.is_none() && place.size >= size,
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

    /// Makes sure that the socket flags have the bits that the programs test.
    fn check_sock_flags(&self) -> Result<(), KernelError> {
        let error = |reason: &str| KernelError::Field {
            field: "enum sock_flags".into(),
            reason: reason.into(),
        };
        let values: Vec<_> = self
            .types
            .named("sock_flags")
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

/// Finds a dotted path in a struct, through its anonymous members.
fn walk(at: Type, path: &str, base: u32, places: &mut Vec<Place>) {
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
                (None, _) => places.push(Place {
                    bit_offset,
                    bits: member.bits,
                    size: member.is.map_or(0, Type::size),
                }),
            }
        }
    }
}

/// Where a field was found.
#[derive(Debug)]
struct Place {
    bit_offset: u32,
    bits: Option<u32>,
    size: usize,
}

#[cfg(test)]
mod tests;
