//! Booting a Debian with systemd in QEMU, to run a unit there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};

use crate::archive::{self, Owner};
use crate::artifacts::Executables;
use crate::debian::Debian;
use crate::kernels::Kernel;
use crate::machine::{self, Machine, Report};
use crate::modules;
use crate::shell::{self, command, run_unseen};
use crate::tally::Scenarios;
use crate::vm::Selection;

/// Emulated, the machine boots and the tests run in two minutes, on a busy host in six.
const TIME_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Systemd as the kernel's first process. What fails while it boots is shown, in plain letters; no
/// login is offered, for the console is the unit's.
const PARAMETERS: &str = "rdinit=/lib/systemd/systemd TERM=dumb systemd.show_status=error \
                          systemd.getty_auto=no systemd.mask=proc-sys-fs-binfmt_misc.automount";

/// What makes any unit the machine's work: it has the console, and at its end what became of it is
/// reported on the second serial port and the machine is switched off.
const DROP_IN: &str = include_str!("systemd/work.conf");
/// The tests of units and packages.
const TESTS: &str = "linger-test.service";
const TEST_UNIT: &str = include_str!("systemd/linger-test.service");
/// A shell on the console.
const SHELL_UNIT: &str = include_str!("systemd/linger-shell.service");

/// A file to put into the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// A file here; its permissions are taken along.
    file: PathBuf,
    /// Its path there.
    place: PathBuf,
}

impl FromStr for Put {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (file, place) = text
            .rsplit_once(':')
            .context("say FILE:PLACE, for instance ./x.service:/etc/systemd/system/x.service")?;
        if !place.starts_with('/') {
            bail!("the place {place:?} must be an absolute path");
        }
        Ok(Self {
            // Commands run in the workspace's folder, wherever this was typed.
            file: fs::canonicalize(file).with_context(|| format!("the file {file}"))?,
            place: place.into(),
        })
    }
}

/// What to run there.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Boot a Debian 12 with systemd, and run the tests that need it
    #[arg(long)]
    pub(crate) systemd: bool,
    /// Run this service of that machine, instead of the tests
    #[arg(long, requires = "systemd", conflicts_with_all = ["filter", "plan"])]
    pub(crate) unit: Option<String>,
    /// Put a file into that machine; may be given several times
    #[arg(long = "put", value_name = "FILE:PLACE", requires = "systemd")]
    puts: Vec<Put>,
}

/// A unit to run on a machine, and the files that it takes.
pub(crate) struct Job<'a> {
    kernel: &'a Kernel,
    unit: &'a str,
    folder: PathBuf,
    /// What is put into the machine.
    tree: PathBuf,
}

impl<'a> Job<'a> {
    /// Runs this unit, a service, after the boot. It is installed there, or is put there.
    fn new(kernel: &'a Kernel, unit: &'a str, puts: &[Put]) -> Result<Self> {
        let folder = machine::folder(&format!("{}-systemd", kernel.label))?;
        let tree = folder.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        let job = Self {
            kernel,
            unit,
            folder,
            tree,
        };
        job.write(&format!("/etc/systemd/system/{unit}.d/work.conf"), DROP_IN)?;
        job.put_modules()?;
        for put in puts {
            job.put(put)?;
        }
        Ok(job)
    }

    /// Puts a file into the machine.
    fn put(&self, put: &Put) -> Result<()> {
        let to = self.make_room(&put.place)?;
        fs::copy(&put.file, &to).with_context(|| format!("take {}", put.file.display()))?;
        Ok(())
    }

    /// Puts a program among the commands of the machine. It finds its libraries there if it was built
    /// on the Debian that the machine has.
    fn put_program(&self, file: &Path, name: &str) -> Result<()> {
        self.put(&Put {
            file: file.to_owned(),
            place: Path::new("/usr/local/bin").join(name),
        })
    }

    /// Puts the modules where modprobe looks for them.
    fn put_modules(&self) -> Result<()> {
        let Some(from) = &self.kernel.modules else {
            return Ok(());
        };
        let version = from.file_name().context("a kernel has a version")?;
        let to = Path::new("/usr/lib/modules").join(version);
        let lists = [
            "modules.builtin",
            "modules.builtin.modinfo",
            "modules.order",
        ];
        let modules = modules::needed(self.kernel)?;
        for name in lists.into_iter().chain(modules.iter().map(String::as_str)) {
            self.put(&Put {
                file: from.join(name),
                place: to.join(name),
            })?;
        }
        let depmod = shell::find("depmod").context("depmod is not installed")?;
        let usr = self.tree.join("usr");
        run_unseen(command(depmod).arg("-b").arg(usr).arg(version))
    }

    fn write(&self, place: &str, text: &str) -> Result<()> {
        let file = self.make_room(Path::new(place))?;
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))
    }

    /// Where to make the file that will have this place in the machine.
    fn make_room(&self, place: &Path) -> Result<PathBuf> {
        let file = self.tree.join(place.strip_prefix("/").unwrap_or(place));
        let folder = file.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(file)
    }

    /// Boots, runs the unit to its end, and shows what it prints.
    fn run(&self) -> Result<Report> {
        self.machine()?.run()
    }

    /// Boots and runs the tests with these arguments; what they found.
    fn run_tests(&self, tests: &Path, arguments: &[String]) -> Result<Scenarios> {
        self.put_program(tests, "linger-test")?;
        let unit = TEST_UNIT.replace("@ARGUMENTS@", &arguments.join(" "));
        self.write(&format!("/etc/systemd/system/{TESTS}"), &unit)?;
        self.run()?.scenarios()
    }

    /// Whether there is a file of the service, or of the template that it is an instance of.
    fn has_unit(&self, debian: &Debian) -> bool {
        let file = match self.unit.split_once('@') {
            Some((template, _)) => format!("{template}@.service"),
            None => self.unit.to_owned(),
        };
        let stands_in = |folder: &str| {
            let place = format!("{folder}/systemd/system/{file}");
            self.tree.join(&place).exists() || debian.contents.contains_key(&place)
        };
        self.unit.ends_with(".service") && ["etc", "usr/lib"].into_iter().any(stands_in)
    }

    fn machine(&self) -> Result<Machine<'a>> {
        let debian = Debian::open()?;
        if !self.has_unit(&debian) {
            // The machine would wait for it without end.
            bail!(
                "that machine has no service {0}: put it there, `--put FILE:/etc/systemd/system/{0}`",
                self.unit
            );
        }
        let own = self.folder.join("own");
        let contents = archive::contents(&self.tree)?;
        let added = added(&contents, &debian.contents)?;
        archive::pack(&self.tree, added.into_iter(), Owner::Root, &own)?;
        // The kernel unpacks archives that stand one after another, each over those before.
        let all = self.folder.join("initramfs");
        let mut file = File::create(&all)?;
        for archive in [&debian.archive, &own] {
            io::copy(&mut File::open(archive)?, &mut file)?;
        }
        let parameters = format!("{PARAMETERS} systemd.wants={}", self.unit);
        Ok(Machine::new(self.kernel, all, parameters, TIME_LIMIT))
    }
}

/// What there is to unpack over what is there: all but the folders that both have, which keep their
/// permissions.
///
/// `contents` is what [`archive::contents`] says; `there` the kind of each path that is there.
fn added<'a>(contents: &'a str, there: &BTreeMap<String, char>) -> Result<Vec<&'a str>> {
    let mut added = Vec::new();
    for (kind, path) in contents.lines().filter_map(|line| line.split_once(' ')) {
        match (kind, there.get(path)) {
            ("d", Some('d')) => {}
            ("d", Some('l')) => bail!("/{path} is a link in that machine: name the folder itself"),
            (_, Some('d')) => bail!("/{path} is a folder in that machine: name a file in it"),
            _ => added.push(path),
        }
    }
    Ok(added)
}

/// Runs the tests of units; failed ones are in the result.
pub(crate) fn run_tests(
    kernel: &Kernel,
    built: &Executables,
    selection: &Selection,
    options: &Options,
) -> Result<Scenarios> {
    let job = Job::new(kernel, TESTS, &options.puts)?;
    job.put_program(&built.lingerd, "lingerd")?;
    let lingerd = ["--lingerd", "/usr/local/bin/lingerd"].map(str::to_owned);
    job.run_tests(&built.systemd, &[&lingerd, &selection.args()[..]].concat())
}

/// Runs the tests of the packages, of which the second is the newer, and of the tarball; failed ones
/// are in the result.
pub(crate) fn run_package_tests(
    kernel: &Kernel,
    tests: &Path,
    [deb, newer]: [&Path; 2],
    tarball: &Path,
) -> Result<Scenarios> {
    let job = Job::new(kernel, TESTS, &[])?;
    let mut arguments = Vec::new();
    for (option, file) in [("--deb", deb), ("--newer", newer), ("--tarball", tarball)] {
        let name = file.file_name().context("a package has a name")?;
        let place = Path::new("/root").join(name);
        arguments.extend([option.to_owned(), place.display().to_string()]);
        job.put(&Put {
            file: file.to_owned(),
            place,
        })?;
    }
    job.run_tests(tests, &arguments)
}

/// Runs the unit asked for; whether it succeeded.
pub(crate) fn run_unit(kernel: &Kernel, unit: &str, options: &Options) -> Result<bool> {
    let report = Job::new(kernel, unit, &options.puts)?.run()?;
    println!("{unit} ended with exit code {}", report.code);
    Ok(report.code == 0)
}

/// A shell, with lingerd at hand.
pub(crate) fn shell(kernel: &Kernel, lingerd: &Path, options: &Options) -> Result<()> {
    let name = "linger-shell.service";
    let job = Job::new(kernel, name, &options.puts)?;
    job.put_program(lingerd, "lingerd")?;
    job.write(&format!("/etc/systemd/system/{name}"), SHELL_UNIT)?;
    job.machine()?.interact()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there() -> BTreeMap<String, char> {
        [("usr", 'd'), ("lib", 'l'), ("usr/x", 'f')]
            .map(|(path, kind)| (path.to_owned(), kind))
            .into()
    }

    #[test]
    fn folders_that_are_there_are_left_alone_and_files_replaced() {
        let contents = "d usr\nf usr/x\nd usr/new\nf usr/new/y\n";
        assert_eq!(
            added(contents, &there()).unwrap(),
            ["usr/x", "usr/new", "usr/new/y"]
        );
    }

    #[test]
    fn a_place_that_would_break_the_machine_is_an_error() {
        for contents in ["d lib\nf lib/x\n", "f usr\n"] {
            assert!(added(contents, &there()).is_err(), "{contents}");
        }
    }

    #[test]
    fn a_file_to_put_names_a_place() {
        let put: Put = "/proc/version:/etc/x".parse().unwrap();
        assert_eq!(put.place, Path::new("/etc/x"));
        for wrong in ["/proc/version", "/proc/version:x", "/no/such/file:/etc/x"] {
            assert!(wrong.parse::<Put>().is_err(), "{wrong}");
        }
    }
}
