//! Who closed, and what is known of it beyond its key.

/// Who closed: the key of the ledger. What is not asked for ([`keyed`]) is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Cgroup v2 id (`kernfs_node.id`) of the closing process; of the socket, where no process closes.
    pub cgroup_id: u64,
    /// Name of the process: `comm` of the thread group's leader, zero-terminated bytes; in words, as
    /// the programs copy it. Empty where no process closes.
    pub comm: [u64; 2],
    /// The file that the process executes: number of its inode, with its generation in the upper half,
    /// for numbers are used again; 0 if it is not known.
    pub exe_inode: u64,
    /// As `exe_inode`: number of its device (`super_block.s_dev`).
    pub exe_device: u32,
    /// Local port of a connection that this host accepted, among those that are to be told apart.
    pub port: u16,
    /// `AF_INET` or `AF_INET6`, by what is on the wire.
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

    /// All that have no group of their own: no place was left, or they are left out.
    pub const OTHER: Self = Self {
        cgroup_id: u64::MAX,
        ..Self::ZERO
    };

    /// What happens to sockets whose cgroup is gone, and that no process does.
    pub const RETIRED: Self = Self {
        cgroup_id: u64::MAX - 1,
        ..Self::ZERO
    };

    /// No one on this host: RSTs that answer packets which no close of this host is known to be behind.
    pub const NOBODY: Self = Self {
        cgroup_id: u64::MAX - 2,
        ..Self::ZERO
    };

    /// Those that are no one's own, in the order in which their rows stand.
    pub const SHARED: [Self; 3] = [Self::OTHER, Self::RETIRED, Self::NOBODY];

    /// A number that stands for this group wherever a word must be enough; never 0. Two groups may have the same,
    /// though hardly ever do.
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
            // As FxHash does it: 2^64 divided by the golden ratio.
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

    /// The file that its process executes.
    #[must_use]
    pub const fn exe(&self) -> Exe {
        Exe {
            inode: self.exe_inode,
            device: self.exe_device as u64,
        }
    }
}

/// A file that processes execute.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exe {
    /// As [`Group::exe_inode`].
    pub inode: u64,
    /// As [`Group::exe_device`].
    pub device: u64,
}

/// What of a [`Group`] is asked for, as a set of bits.
pub mod keyed {
    /// The cgroup.
    pub const CGROUP: u32 = 1 << 0;
    /// The name of the process.
    pub const COMM: u32 = 1 << 1;
    /// The file that it executes.
    pub const EXE: u32 = 1 << 2;
    /// The local port.
    pub const PORT: u32 = 1 << 3;
    /// The address family.
    pub const FAMILY: u32 = 1 << 4;
    /// All of them.
    pub const ALL: u32 = CGROUP | COMM | EXE | PORT | FAMILY;
}

/// What the daemon may change while the programs run: the only entry of its map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Who is left out, as a set of [`setting`]s.
    pub left_out: u64,
}

/// What decides whether a close has a group of its own.
pub mod setting {
    /// Some cgroups are left out: those in their map.
    pub const CGROUPS: u64 = 1 << 0;
    /// Some names of processes are denied: those in their map with [`super::verdict::DENIED`].
    pub const COMMS_DENIED: u64 = 1 << 1;
    /// Only some names of processes are allowed: those with [`super::verdict::ALLOWED`].
    pub const COMMS_ALLOWED: u64 = 1 << 2;
    /// Some ports are denied.
    pub const PORTS_DENIED: u64 = 1 << 3;
    /// Only connections accepted at some ports are allowed.
    pub const PORTS_ALLOWED: u64 = 1 << 4;
    /// Those that take the port of the connection.
    pub const PORTS: u64 = PORTS_DENIED | PORTS_ALLOWED;
    /// Those that take the name of the process.
    pub const COMMS: u64 = COMMS_DENIED | COMMS_ALLOWED;
}

/// What is said of a name in the map of names of processes.
pub mod verdict {
    /// On the list of those allowed.
    pub const ALLOWED: u64 = 1;
    /// On the list of those denied.
    pub const DENIED: u64 = 2;
}

/// What is said of 64 ports: the port's lowest six bits number the bit, those above the entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortBits {
    /// Told apart by the label.
    pub told: u64,
    /// Allowed.
    pub allowed: u64,
    /// Denied.
    pub denied: u64,
}

impl PortBits {
    /// How many entries hold all ports.
    pub const ENTRIES: u32 = (1 << 16) / u64::BITS;
}

/// How many names a [`Path`] has places for.
pub const PATH_NAMES: usize = 16;

/// The path of a cgroup or of a file, as the kernel had it when it was first met.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// How far it has come: 0 while it is being written, [`Path::WHOLE`] or [`Path::CUT`].
    pub state: u64,
    /// The names from the last to the first, zero-terminated, with empty places between them and after.
    pub names: [[u8; Path::NAME]; PATH_NAMES],
}

impl Path {
    /// Bytes of a name, the terminating zero included.
    pub const NAME: usize = 128;
    /// It is all there.
    pub const WHOLE: u64 = 1;
    /// A name was too long, or there were too many: it has to be found another way.
    pub const CUT: u64 = 2;
    /// Nothing written.
    pub const ZERO: Self = Self {
        state: 0,
        names: [[0; Self::NAME]; PATH_NAMES],
    };
}
