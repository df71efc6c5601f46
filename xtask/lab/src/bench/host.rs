//! The machine that the measurements run on.

use std::fs;
use std::process::Command;
use std::thread;

use anyhow::Result;
use linger_xtask::shell::command;
use serde::Serialize;

/// The hardware and versions that figures depend on.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    cpu: String,
    cpus: usize,
    kernel: String,
    /// The hypervisor, if there is one.
    virtualised: Option<String>,
    lingerd: String,
    /// The packages of the programs that lingerd is compared with, and their versions.
    peers: Vec<(&'static str, String)>,
}

impl Host {
    /// Describes this machine, with this lingerd.
    pub(super) fn of(lingerd: &std::path::Path) -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo")?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let peers = ["libbpf-tools", "bpftrace"].into_iter();
        Ok(Self {
            cpu: cpu_model(&info).unwrap_or("of an unknown model").to_owned(),
            cpus: thread::available_parallelism()?.get(),
            kernel: kernel.trim().to_owned(),
            virtualised: hypervisor(&info),
            lingerd: output_of(command(lingerd).arg("--version")).unwrap_or_default(),
            peers: peers
                .filter_map(|package| Some((package, installed_version(package)?)))
                .collect(),
        })
    }

    /// Formats the description as a paragraph.
    pub(super) fn markdown(&self) -> String {
        let machine = match &self.virtualised {
            None => "no virtual machine as far as it can tell".to_owned(),
            Some(by) => format!("a virtual machine ({by})"),
        };
        let peers = self.peers.iter();
        let peers: Vec<_> = peers
            .map(|(package, version)| format!("{package} {version}"))
            .collect();
        let peers = match peers.as_slice() {
            [] => "no peers are installed".to_owned(),
            peers => format!("its peers {}", peers.join(", ")),
        };
        format!(
            "Linux {} on {} CPUs, {}, {machine}; {}; {peers}.\n",
            self.kernel, self.cpus, self.cpu, self.lingerd
        )
    }
}

/// Returns the model of the first CPU in /proc/cpuinfo.
fn cpu_model(info: &str) -> Option<&str> {
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Returns the name of the hypervisor from systemd; if systemd finds none but the CPU's flags do, "of an unknown kind".
fn hypervisor(info: &str) -> Option<String> {
    let flagged = info
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|flags| {
            flags
                .split_ascii_whitespace()
                .any(|flag| flag == "hypervisor")
        });
    output_of(command("systemd-detect-virt").arg("--vm"))
        .filter(|name| name != "none")
        .or_else(|| flagged.then(|| "of an unknown kind".to_owned()))
}

fn installed_version(package: &str) -> Option<String> {
    output_of(command("dpkg-query").args(["--show", "--showformat=${Version}", package]))
}

/// Returns the output of a program, unless it fails or prints nothing.
fn output_of(program: &mut Command) -> Option<String> {
    let output = program.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found() {
        let info = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu hypervisor\n";
        assert_eq!(cpu_model(info), Some("Some CPU @ 2.0GHz"));
        assert_eq!(cpu_model("processor : 0\n"), None);
    }

    #[test]
    fn the_flag_of_the_cpu_shows_an_unknown_hypervisor() {
        assert!(hypervisor("flags\t\t: fpu hypervisor\n").is_some());
    }
}
