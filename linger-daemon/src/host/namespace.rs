//! The namespaces of this process.

use std::fs;
use std::path::Path;

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The PID namespace.
    Pid,
    /// The user namespace, which decides the scope of capabilities.
    User,
}

impl Namespace {
    /// Whether this process is in the initial one, by the files below `root`.
    #[must_use]
    pub fn is_initial(self, root: &Path) -> bool {
        // include/linux/proc_ns.h: PROC_PID_INIT_INO, PROC_USER_INIT_INO
        let (file, initial) = match self {
            Self::Pid => ("pid", "pid:[4026531836]"),
            Self::User => ("user", "user:[4026531837]"),
        };
        let link = fs::read_link(root.join("proc/self/ns").join(file));
        link.is_ok_and(|link| link.as_os_str() == initial)
    }
}
