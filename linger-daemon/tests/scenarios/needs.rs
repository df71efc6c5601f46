//! What a machine must have for some scenarios, and whether this one has it.
//!
//! Only a need that is stated beside the scenario, and that `expected.toml` says is not met on a machine, makes
//! a scenario not run. All that scenarios take beyond is there everywhere: that it is missing is a failure.

use std::fmt;
use std::path::Path;

use io_uring::IoUring;
use socket2::{Domain, Protocol, Socket, Type};

use crate::browser::{self, MISSING};
use crate::service;

/// Something that is not on every machine.
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
    /// The runtime of JavaScript.
    Node,
    /// To be all that runs on the machine: what is done to it would disturb others.
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
    /// All there are.
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

    /// What it is called in `expected.toml`.
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

    /// Why it is not met here, if it is not.
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
