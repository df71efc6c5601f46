//! Packages of Debian that are fetched without being installed, and the mirrors they come from.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache;
use crate::kernels::TABLE;
use crate::shell::{command, output, run};

/// The suite with newer versions of some packages.
pub(crate) const BACKPORTS: &str = "bookworm-backports";

/// Returns a program of apt that uses its own package lists and leaves those of this machine alone.
pub(crate) fn isolated(program: &str) -> Command {
    let mut apt = command(program);
    apt.env("APT_CONFIG", folder().join("apt.conf"));
    apt
}

fn folder() -> PathBuf {
    cache::folder().join("apt")
}

/// Fetches the package lists of the suites that kernels and QEMU come from.
pub(crate) fn update_lists() -> Result<()> {
    let folder = folder();
    for place in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(place))?;
    }
    let suites = TABLE.iter().map(|entry| entry.suite).chain([BACKPORTS]);
    let listed = targets("$(REPO_URI) $(RELEASE)")?;
    let suites: BTreeSet<_> = suites.collect();
    let sources: String = suites.iter().map(|suite| source(&listed, suite)).collect();
    fs::write(folder.join("sources.list"), sources)?;
    // To this apt, no package is installed.
    fs::write(folder.join("status"), "")?;
    let path = folder.display();
    let settings = format!(
        "Dir::Etc::SourceList \"{path}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::State::Lists \"{path}/lists\";\n\
         Dir::State::status \"{path}/status\";\n\
         Dir::Cache \"{path}/cache\";\n\
         APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n"
    );
    fs::write(folder.join("apt.conf"), settings)?;
    run(isolated("apt-get").args(["update", "--quiet=2", "--error-on=any"]))
}

/// Downloads a package without installing it, and unpacks it into a folder.
pub(crate) fn unpack(mut apt_get: Command, package: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    run(apt_get
        .args(["-o", "APT::Sandbox::User=root", "download", "--quiet=2"])
        .arg(package)
        .current_dir(into))?;
    let deb = fs::read_dir(into)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| format!("apt-get brought no file for {package}"))?;
    run(command("dpkg").arg("-x").arg(&deb).arg(into))?;
    Ok(fs::remove_file(deb)?)
}

/// Returns the source lines of this machine for a suite. If there are none, mmdebstrap uses its default mirror.
pub(crate) fn mirrors(suite: &str) -> Result<Vec<String>> {
    let format = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)";
    Ok(of_suite(&targets(format)?, suite))
}

/// Lists the package indexes that this machine's apt fetches from Debian, a line each.
fn targets(format: &str) -> Result<String> {
    let filters = ["Created-By: Packages", "Origin: Debian"];
    output(
        command("apt-get")
            .args(["indextargets", "--format", format])
            .args(filters),
    )
}

/// Returns the line of a sources.list for a suite, from this machine's mirrors, verified with Debian's own keys;
/// `listed` has the URI of each suite that this machine uses.
fn source(listed: &str, suite: &str) -> String {
    /// The keyring is that of the package debian-archive-keyring; `target` limits the fetch to package lists.
    const OPTIONS: &str =
        "signed-by=/usr/share/keyrings/debian-archive-keyring.gpg target=Packages";
    let is_security = |suite: &str| suite.ends_with("-security");
    let default = if is_security(suite) {
        "http://deb.debian.org/debian-security"
    } else {
        "http://deb.debian.org/debian"
    };
    let mut targets = listed.lines().filter_map(|line| line.split_once(' '));
    let target = targets.find(|(_, known)| is_security(known) == is_security(suite));
    let uri = target.map_or(default, |(uri, _)| uri);
    format!("deb [{OPTIONS}] {uri} {suite} main\n")
}

/// Returns the lines of a suite and of its updates, each once.
fn of_suite(listed: &str, suite: &str) -> Vec<String> {
    let wanted = ["", "-updates", "-security"].map(|part| format!("{suite}{part}"));
    let lines = listed.lines().filter(|line| {
        let mut words = line.split(' ').skip(2);
        let release = words.next().unwrap_or_default();
        wanted.iter().any(|wanted| wanted == release) && words.next() == Some("main")
    });
    let lines: BTreeSet<_> = lines.map(str::to_owned).collect();
    lines.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_suites_come_from_the_same_mirror() {
        let listed = "http://m.test/debian/ bookworm\nhttp://s.test/security/ bookworm-security\n";
        let uri = |listed: &str, suite: &str| {
            let line = source(listed, suite);
            line.split("] ").nth(1).unwrap().to_owned()
        };
        assert_eq!(uri(listed, "sid"), "http://m.test/debian/ sid main\n");
        assert_eq!(
            uri(listed, "trixie-security"),
            "http://s.test/security/ trixie-security main\n"
        );
        assert_eq!(uri("", "sid"), "http://deb.debian.org/debian sid main\n");
    }

    #[test]
    fn only_mirrors_of_the_suite_are_listed_and_each_once() {
        let listed = "\
deb http://mirror.test/debian/ bookworm main
deb http://mirror.test/debian/ bookworm main
deb http://mirror.test/debian/ bookworm non-free
deb http://mirror.test/debian/ trixie main
deb http://mirror.test/debian/ bookworm-backports main
deb http://mirror.test/security/ bookworm-security main
";
        assert_eq!(
            of_suite(listed, "bookworm"),
            [
                "deb http://mirror.test/debian/ bookworm main",
                "deb http://mirror.test/security/ bookworm-security main"
            ]
        );
        assert!(of_suite("", "bookworm").is_empty());
    }
}
