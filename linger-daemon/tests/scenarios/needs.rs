//! Needs of some scenarios that not every machine meets, and their checks.
//!
//! A scenario is skipped only if `expected.toml` says that the machine does not meet a need stated with the scenario.
//! Everything else that scenarios need is present everywhere: its absence is a failure.

use std::fmt;
use std::path::Path;

use io_uring::IoUring;
use socket2::{Domain, Protocol, Socket, Type};

use crate::browser::{self, MISSING};
use crate::service;

/// Something that not every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// A browser.
    Chromium,
    /// The server.
    Haproxy,
    /// The system call, which some hosts forbid.
    IoUring,
    /// Sockets of that protocol.
    Mptcp,
    /// The server.
    Nginx,
    /// The JavaScript runtime.
    Node,
    /// A machine that runs nothing else, as the scenario would disturb it.
    OwnMachine,
    /// The interpreter, with its standard library.
    Python,
    /// The architecture.
    X86,
}

/// A need that is not met, and why.
#[derive(Clone, Debug)]
pub(crate) struct Unmet {
    pub(crate) need: Need,
    why: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "needs {}: {}", self.need.name(), self.why)
    }
}

impl Need {
    /// All needs.
    pub(crate) const ALL: [Self; 9] = [
        Self::Chromium,
        Self::Haproxy,
        Self::IoUring,
        Self::Mptcp,
        Self::Nginx,
        Self::Node,
        Self::OwnMachine,
        Self::Python,
        Self::X86,
    ];

    /// Returns its name in `expected.toml`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chromium => "chromium",
            Self::Haproxy => "haproxy",
            Self::IoUring => "io_uring",
            Self::Mptcp => "mptcp",
            Self::Nginx => "nginx",
            Self::Node => "node",
            Self::OwnMachine => "own_machine",
            Self::Python => "python3",
            Self::X86 => "x86-64",
        }
    }

    /// Returns why it is not met here, if it is not.
    pub(crate) fn unmet(self) -> Option<Unmet> {
        let program = |name| service::find(name).err().map(|error| error.to_string());
        let why = match self {
            Self::Chromium => browser::chromium().is_none().then(|| MISSING.to_owned()),
            Self::Haproxy | Self::Nginx | Self::Node | Self::Python => program(self.name()),
            Self::IoUring => IoUring::new(1).err().map(|error| error.to_string()),
            Self::Mptcp => Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP))
                .err()
                .map(|error| error.to_string()),
            Self::OwnMachine => (!Path::new("/etc/linger-work").exists())
                .then(|| "it was not booted for these tests".to_owned()),
            Self::X86 => (!cfg!(target_arch = "x86_64")).then(|| "another is here".to_owned()),
        };
        why.map(|why| Unmet { need: self, why })
    }
}
