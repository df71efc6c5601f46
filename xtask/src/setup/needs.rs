//! The tables of what building and testing need.

mod build;
mod machine;
mod test;

use anyhow::Result;

use self::build::{BENCH, BUILD, DOCS, PACKAGE, RELEASE, STACK};
use self::machine::{CROSS, MACHINE, MACHINE_ARM64};
use self::test::{FUZZ, OLDEST, TEST};
use super::Purpose;
use crate::shell;

/// A program or file system that must be present.
pub(super) struct Need {
    pub(super) what: &'static str,
    pub(super) why: &'static str,
    pub(super) present: fn() -> bool,
    /// Debian packages to install for it.
    pub(super) packages: &'static [&'static str],
    /// The step that completes the installation after that.
    pub(super) then: Option<fn() -> Result<()>>,
    /// How to get it on systems other than Debian.
    pub(super) elsewhere: &'static str,
}

/// Returns the needs of a purpose, in the order in which they are met.
pub(super) fn of(purpose: Purpose) -> &'static [&'static [Need]] {
    match purpose {
        Purpose::Build => &[BUILD],
        Purpose::Package => &[BUILD, PACKAGE],
        Purpose::Release => &[BUILD, PACKAGE, MACHINE, CROSS, RELEASE],
        Purpose::Stack => &[BUILD, STACK],
        Purpose::Bench => &[BUILD, BENCH, MACHINE],
        Purpose::Docs => &[DOCS],
        Purpose::Fuzz => &[BUILD, FUZZ],
        Purpose::Test => &[BUILD, PACKAGE, STACK, BENCH, MACHINE, TEST, CROSS],
        Purpose::PackageArm64 => &[BUILD, PACKAGE, CROSS],
        Purpose::FullTest => &[
            BUILD,
            PACKAGE,
            STACK,
            BENCH,
            MACHINE,
            TEST,
            CROSS,
            FUZZ,
            OLDEST,
            MACHINE_ARM64,
        ],
    }
}

/// A tool that is compiled here: its name, version and options for cargo, and why it is needed.
macro_rules! compiled {
    ($name:literal, $version:literal, $options:expr, $why:literal) => {{
        const TOOL: Compiled = Compiled {
            name: $name,
            version: $version,
            options: &$options,
        };
        Need {
            what: concat!($name, " ", $version),
            why: $why,
            present: || TOOL.is_linked(),
            packages: &[],
            then: Some(|| TOOL.install()),
            elsewhere: concat!(
                "`cargo install ",
                $name,
                " --version ",
                $version,
                " --locked --root target/tools`"
            ),
        }
    }};
}
use compiled;

/// Returns whether all these programs are on the path.
fn has(programs: &[&str]) -> bool {
    programs
        .iter()
        .all(|program| shell::find(program).is_some())
}
