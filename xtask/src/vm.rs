//! Boots kernels in QEMU for the scenario tests, without systemd.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::artifacts::Executables;
use crate::kernels::Kernel;
use crate::machine::{self, Machine};
use crate::modules;
use crate::overlay::Overlay;
use crate::tally::Scenarios;

/// Time limit of a machine. Under emulation the scenarios of a plan take some minutes, on a busy host three times that.
const TIME_LIMIT: Duration = Duration::from_secs(40 * 60);

/// Closes of the load scenarios: fewer than the million of a native run, which takes too long under emulation.
const LOAD: u32 = 20_000;

/// The script that is the machine's first process.
const INIT: &str = include_str!("init.sh");

/// Which pairs of scenario and plan to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Scenarios that depend on the plan under each, others under one
    #[default]
    Standard,
    /// Each scenario under each plan
    Full,
    /// Scenarios that depend on the kernel or the plan, under each plan
    Plan,
    /// Scenarios that depend on the kernel, under each plan
    Kernel,
}

/// Which scenarios to run, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Selection {
    /// Only scenarios whose name contains this
    #[arg(long = "test", value_name = "FILTER")]
    pub filter: Option<String>,
    /// Only this plan: fentry, kprobe or tracepoint
    #[arg(long)]
    pub plan: Option<String>,
    /// Which pairs of scenario and plan to run
    #[arg(long, value_enum, default_value_t)]
    pub scope: Scope,
    /// Seed of random scenarios: a number, or `random` [default: always the same]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<String>,
    /// Number of closes in the load scenarios
    #[arg(long, value_name = "CLOSES", default_value_t = LOAD)]
    pub load: u32,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            filter: None,
            plan: None,
            scope: Scope::default(),
            seed: None,
            load: LOAD,
        }
    }
}

impl Selection {
    /// Returns the selection as arguments of the scenario tests.
    pub fn args(&self) -> Vec<String> {
        let scope = self.scope.to_possible_value();
        let options = [
            ("plan", self.plan.as_deref()),
            ("scope", scope.as_ref().map(PossibleValue::get_name)),
            ("seed", self.seed.as_deref()),
        ];
        let given = options
            .iter()
            .filter_map(|(name, value)| Some(format!("--{name}={}", value.as_ref()?)));
        self.filter.iter().cloned().chain(given).collect()
    }
}

/// Runs scenarios on a kernel.
///
/// # Errors
///
/// If the machine did not end in an orderly way, or the kernel reported a fault. Failed scenarios are part of the
/// result.
pub fn run_scenarios(
    kernel: &Kernel,
    built: &Executables,
    selection: &Selection,
) -> Result<Scenarios> {
    let environment = kernel
        .entry
        .map(|entry| format!("--environment={}", entry.label));
    let arguments: Vec<_> = environment.into_iter().chain(selection.args()).collect();
    let work = format!(
        "scenarios --lingerd /usr/local/bin/lingerd --summary /run/summary.json --load {} {}",
        selection.load,
        quoted(&arguments)
    );
    let programs = [
        (built.scenarios.as_path(), "scenarios"),
        (built.lingerd.as_path(), "lingerd"),
    ];
    boot(kernel, &programs, &work, |machine| {
        machine.run()?.scenarios()
    })
}

/// Opens a shell on a kernel, with lingerd installed.
pub fn shell(kernel: &Kernel, lingerd: &Path) -> Result<()> {
    let work = "echo 'lingerd is at hand. exit or Ctrl-A X ends it.'\n\
                setsid --ctty --wait sh -i </dev/@CONSOLE@ >/dev/@CONSOLE@ 2>&1";
    let programs = [(lingerd, "lingerd")];
    boot(kernel, &programs, work, |machine| machine.interact())
}

/// Makes a machine with these programs under these names, which is to run the shell script `work`, and passes it to
/// `run`.
pub fn boot<T>(
    kernel: &Kernel,
    programs: &[(&Path, &str)],
    work: &str,
    run: impl FnOnce(Machine<'_>) -> Result<T>,
) -> Result<T> {
    let overlay = Overlay::new(kernel)?;
    for (file, name) in programs {
        overlay.put_program(file, name)?;
    }
    let with_ports = |text| machine::with_ports(text, kernel.architecture);
    overlay.write_script("/linger-init", &with_ports(INIT))?;
    let modules = kernel.modules.as_ref().map_or(&[][..], |_| modules::WANTED);
    overlay.write("/etc/linger-modules", &modules.join("\n"))?;
    overlay.write("/etc/linger-work", &with_ports(work))?;
    let archive = overlay.pack()?;
    run(Machine::new(
        kernel,
        archive,
        "rdinit=/linger-init".to_owned(),
        TIME_LIMIT,
    ))
}

/// Quotes the words into one line for a shell.
fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_keep_their_quotes() {
        let words = ["a", "it's b"].map(str::to_owned);
        assert_eq!(quoted(&words), r"'a' 'it'\''s b'");
    }

    #[test]
    fn selection_becomes_arguments_of_the_tests() {
        let selection = Selection {
            filter: Some("linger0".into()),
            plan: Some("kprobe".into()),
            scope: Scope::Full,
            ..Selection::default()
        };
        assert_eq!(
            selection.args(),
            ["linger0", "--plan=kprobe", "--scope=full"]
        );
    }
}
