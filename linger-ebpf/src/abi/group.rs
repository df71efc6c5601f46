//! Groups: who closed. Their key, their paths, and the rules that leave some out.

/// Who closed: the key of the ledger, up to the last field in use. Fields that are not in use ([`key_field`]) are zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Cgroup v2 id (`kernfs_node.id`) of the closing process, or of the socket if no process closes.
    pub cgroup_id: u64,
    /// Name of the process: `comm` of the thread group leader, zero-terminated bytes, in words as the
    /// programs copy it. Empty if no process closes.
    pub comm: [u64; 2],
    /// The executable: its inode number, combined with the inode's generation in the upper half because
    /// numbers are reused; 0 if unknown.
    pub exe_inode: u64,
    /// The executable's device number (`super_block.s_dev`).
    pub exe_device: u32,
    /// Local port of a connection that this host accepted, if the label `port` distinguishes it.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`, as on the wire.
    pub family: u16,
}

impl Group {
    /// Nothing known.
    pub const ZERO: Self = Self {
        cgroup_id: 0,
        comm: [0; 2],
        exe_inode: 0,
        exe_device: 0,
        port: 0,
        family: 0,
    };

    /// Closes without a group of their own: there was no room, or they are left out.
    pub const OTHER: Self = Self {
        cgroup_id: u64::MAX,
        ..Self::ZERO
    };

    /// Actions that no process takes, on sockets whose cgroup is gone.
    pub const RETIRED: Self = Self {
        cgroup_id: u64::MAX - 1,
        ..Self::ZERO
    };

    /// RSTs that answer a packet without a known close of this host as the reason.
    pub const NOBODY: Self = Self {
        cgroup_id: u64::MAX - 2,
        ..Self::ZERO
    };

    /// The shared groups, in the order of their rows.
    pub const SHARED: [Self; 3] = [Self::OTHER, Self::RETIRED, Self::NOBODY];

    /// A hash of this group that fits a word; never 0. Two groups can have the same number, which is very rare.
    #[must_use]
    pub const fn number(&self) -> u64 {
        let last = self.exe_device as u64 | (self.port as u64) << 32 | (self.family as u64) << 48;
        let words = [
            self.cgroup_id,
            self.comm[0],
            self.comm[1],
            self.exe_inode,
            last,
        ];
        let mut number = 0_u64;
        let mut place = 0;
        while place < words.len() {
            // As in FxHash, with 2^64 divided by the golden ratio.
            number = (number.rotate_left(5) ^ words[place]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            place += 1;
        }
        number | 1
    }

    /// The name of the process, zero-terminated bytes.
    #[must_use]
    pub fn comm(&self) -> [u8; 16] {
        let [first, second] = self.comm.map(u64::to_ne_bytes);
        let mut comm = [0; 16];
        comm[..8].copy_from_slice(&first);
        comm[8..].copy_from_slice(&second);
        comm
    }

    /// The executable of its process.
    #[must_use]
    pub const fn exe(&self) -> Exe {
        Exe {
            inode: self.exe_inode,
            device: self.exe_device as u64,
        }
    }
}

/// A slot of the ledger: a group whose counters are in an array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupSlot {
    /// [`GroupSlot::FREE`], [`GroupSlot::CLAIMED`] or, while it has a group, the [hash](GroupSlot::hash) of that.
    pub stage: u64,
    /// The group. It stays until the daemon retires it.
    pub group: Group,
}

impl GroupSlot {
    /// No group is in it, and its counters are zero.
    pub const FREE: u64 = 0;
    /// Its group is being written.
    pub const CLAIMED: u64 = 1;

    /// The hash of a group, from the exclusive or of its words. No stage of a slot without a group.
    #[must_use]
    pub const fn hash(word: u64) -> u64 {
        // Fibonacci hashing, as in `Slot::index`.
        word.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 2
    }

    /// The index of a group's slot, and of its counters, by its hash. The first ones are those of [`Group::SHARED`],
    /// which have no slot.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "as many bits as the slots need"
    )]
    pub const fn row(hash: u64) -> u32 {
        SHARED_GROUPS + (hash >> (u64::BITS - GROUP_SLOTS.ilog2())) as u32
    }

    /// Whether a group is in it.
    #[must_use]
    pub const fn is_taken(&self) -> bool {
        self.stage > Self::CLAIMED
    }
}

/// Number of [`GroupSlot`]s; a power of two.
pub const GROUP_SLOTS: u32 = 256;

/// Number of rows of counters: of [`Group::SHARED`], and of the groups in slots.
pub const GROUP_ROWS: u32 = SHARED_GROUPS + GROUP_SLOTS;

/// Length of [`Group::SHARED`].
#[expect(clippy::cast_possible_truncation, reason = "three")]
pub const SHARED_GROUPS: u32 = Group::SHARED.len() as u32;

/// Clears what follows the first zero byte of a name, without branches, which the verifier would follow separately.
#[must_use]
pub const fn clear_after_end([first, second]: [u64; 2]) -> [u64; 2] {
    let kept = before_end(first);
    // All ones if the name goes on in the second word.
    let goes_on = (kept.cast_signed() >> 63).cast_unsigned();
    [first & kept, second & before_end(second) & goes_on]
}

/// A mask of the bytes before the first zero byte, and of some bits of that; little-endian.
const fn before_end(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    // The lowest bit that is set belongs to the first zero byte; later ones may belong to other bytes.
    let ends = word.wrapping_sub(ONES) & !word & (ONES << 7);
    ends.wrapping_sub(1) & !ends
}

/// An executable.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exe {
    /// Like [`Group::exe_inode`].
    pub inode: u64,
    /// Like [`Group::exe_device`].
    pub device: u64,
}

/// Key fields of a [`Group`] in use, a set of bits.
pub mod key_field {
    use core::mem::offset_of;

    use super::Group;

    /// The cgroup.
    pub const CGROUP: u32 = 1 << 0;
    /// The name of the process.
    pub const COMM: u32 = 1 << 1;
    /// The executable.
    pub const EXE: u32 = 1 << 2;
    /// The local port.
    pub const PORT: u32 = 1 << 3;
    /// The address family.
    pub const FAMILY: u32 = 1 << 4;
    /// All of them.
    pub const ALL: u32 = CGROUP | COMM | EXE | PORT | FAMILY;

    /// Size of the ledger's keys, bytes: a shorter key is found faster. There are groups without any field in use.
    #[must_use]
    pub const fn key_size(key_fields: u32) -> usize {
        if key_fields & (EXE | PORT | FAMILY) != 0 {
            size_of::<Group>()
        } else if key_fields & COMM != 0 {
            offset_of!(Group, exe_inode)
        } else {
            offset_of!(Group, comm)
        }
    }
}

/// Settings that the daemon may change while the programs run: the only entry of its map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The rules in use, a set of [`rule`]s.
    pub rules: u8,
}

/// Rules by which a close has no group of its own.
pub mod rule {
    /// Cgroups in their map are left out.
    pub const CGROUPS: u8 = 1 << 0;
    /// Process names with [`super::verdict::DENIED`] are left out.
    pub const COMMS_DENIED: u8 = 1 << 1;
    /// Process names without [`super::verdict::ALLOWED`] are left out.
    pub const COMMS_ALLOWED: u8 = 1 << 2;
    /// Denied ports are left out.
    pub const PORTS_DENIED: u8 = 1 << 3;
    /// Connections not accepted at an allowed port are left out.
    pub const PORTS_ALLOWED: u8 = 1 << 4;
    /// Rules that need the port of the connection.
    pub const PORTS: u8 = PORTS_DENIED | PORTS_ALLOWED;
    /// Rules that need the name of the process.
    pub const COMMS: u8 = COMMS_DENIED | COMMS_ALLOWED;
}

/// Values in the map of process names.
pub mod verdict {
    /// On the allow list.
    pub const ALLOWED: u64 = 1;
    /// On the deny list.
    pub const DENIED: u64 = 2;
}

/// Settings of 64 ports: a port's lowest six bits select the bit, the others the entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortBits {
    /// Ports that the label `port` distinguishes.
    pub labelled: u64,
    /// Allowed ports.
    pub allowed: u64,
    /// Denied ports.
    pub denied: u64,
}

impl PortBits {
    /// Number of entries for all ports.
    pub const ENTRIES: u32 = (1 << 16) / u64::BITS;
}

/// Number of names that fit in a [`Path`].
pub const PATH_NAMES: usize = 16;

/// The path of a cgroup or of a file, as it was when first seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Progress: 0 while it is being written, then [`Path::WHOLE`] or [`Path::CUT`].
    pub state: u64,
    /// The names from the last to the first, zero-terminated; entries may be empty.
    pub names: [[u8; Path::NAME]; PATH_NAMES],
}

impl Path {
    /// Bytes of a name, including the terminating zero.
    pub const NAME: usize = 128;
    /// The path is complete.
    pub const WHOLE: u64 = 1;
    /// A name was too long, or there were too many: the path must be found another way.
    pub const CUT: u64 = 2;
    /// Nothing written.
    pub const ZERO: Self = Self {
        state: 0,
        names: [[0; Self::NAME]; PATH_NAMES],
    };
}
