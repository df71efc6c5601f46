//! Booting Debian's kernels in QEMU, with nothing but the scenario tests in them.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::artifacts::Executables;
use crate::initramfs;
use crate::kernels::Kernel;
use crate::machine::{self, Machine};
use crate::shell::find;
use crate::tally::Scenarios;

/// Emulated, the scenarios take some ten minutes, and twice that on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(40 * 60);

/// Closes of the load there; emulated, the million that it makes natively takes too long.
const LOAD: &str = "20000";

/// Which scenarios to run: all, unless something is given.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Selection {
    /// Only scenarios whose name contains this
    #[arg(long = "test", value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Only this plan: fentry, kprobe or tracepoint
    #[arg(long)]
    pub(crate) plan: Option<String>,
}

impl Selection {
    /// As arguments of the scenario tests.
    pub(crate) fn args(&self) -> Vec<String> {
        let option = |name: &str, value: &Option<String>| {
            value
                .iter()
                .flat_map(|value| [format!("--{name}"), value.clone()])
                .collect::<Vec<_>>()
        };
        [option("filter", &self.filter), option("plan", &self.plan)].concat()
    }
}

/// Runs scenarios on a kernel.
///
/// Fails if the machine did not come to an orderly end or the kernel complained; failed scenarios
/// are in the result.
pub(crate) fn run_scenarios(
    kernel: &Kernel,
    built: &Executables,
    selection: &Selection,
) -> Result<Scenarios> {
    let folder = machine::folder(&kernel.label)?;
    let scenarios = folder.join("scenarios");
    fs::copy(&built.scenarios, &scenarios)?;
    let mut work = vec!["scenarios", "--lingerd", "/bin/lingerd"];
    work.extend([
        "--kernel-label",
        &kernel.label,
        "--summary",
        "/tmp/summary.json",
    ]);
    work.extend(["--load", LOAD]);
    let selection = selection.args();
    work.extend(selection.iter().map(String::as_str));

    let programs = programs(&[scenarios, built.lingerd.clone()])?;
    let archive = initramfs::pack(&folder, kernel, &programs, &quoted(&work))?;
    Machine::new(kernel, archive, String::new(), TIME_LIMIT)
        .run()?
        .scenarios()
}

/// A shell on a kernel, with the same programs at hand.
pub(crate) fn shell(kernel: &Kernel, lingerd: PathBuf) -> Result<()> {
    let folder = machine::folder(&kernel.label)?;
    let work = "echo 'Here are lingerd, tc, ss and /bin/ip (plain ip is that of busybox). exit or Ctrl-A X ends it.'\n\
                setsid cttyhack sh";
    let archive = initramfs::pack(&folder, kernel, &programs(&[lingerd])?, work)?;
    Machine::new(kernel, archive, String::new(), TIME_LIMIT).interact()
}

/// These programs, and those that tests call.
fn programs(own: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut programs = own.to_vec();
    for name in ["ip", "tc", "ss"] {
        programs.push(find(name).with_context(|| format!("{name} is not installed"))?);
    }
    Ok(programs)
}

/// The words as one line for a shell.
fn quoted(words: &[&str]) -> String {
    let quote = |word: &&str| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_survive_the_shell() {
        assert_eq!(quoted(&["a", "it's b"]), r"'a' 'it'\''s b'");
    }
}
