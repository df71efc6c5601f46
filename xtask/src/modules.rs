//! The kernel modules that a test machine needs, out of those of its kernel.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Modules that tests may need, beyond what is built into the kernel.
pub(crate) const WANTED: &[&str] = &[
    "veth",
    "sch_netem",
    "inet_diag",
    "tcp_diag",
    "nf_tables",
    "nft_reject_inet",
    "nf_conntrack",
    "nft_ct",
    "iptable_filter",
    "xt_tcpudp",
    "tls",
];

/// Where the modules are that tests may need, and those that they need in turn: paths inside the kernel's folder
/// of modules, which is given.
pub(crate) fn needed(folder: &Path) -> Result<Vec<String>> {
    let read = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    load_order(WANTED, &read("modules.dep")?, &read("modules.builtin")?)
}

/// The files of these modules and of all they depend on, each after what it depends on.
///
/// `dep` and `builtin` are the contents of `modules.dep` and `modules.builtin`.
fn load_order(wanted: &[&str], dep: &str, builtin: &str) -> Result<Vec<String>> {
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let mut order: Vec<String> = Vec::new();
    for module in wanted.iter().filter(|module| !builtin.contains(**module)) {
        let (file, needs) = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(file, _)| name(file) == *module)
            .with_context(|| format!("this kernel has no module {module}"))?;
        // modules.dep names what is needed transitively, the deepest last.
        for file in needs.split_whitespace().rev().chain([file]) {
            if !order.iter().any(|known| known == file) {
                order.push(file.to_owned());
            }
        }
    }
    Ok(order)
}

/// The name of the module in a file such as `kernel/net/ipv4/tcp_diag.ko.xz`.
fn name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split('.').next().unwrap_or(name);
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/sched/sch_netem.ko:
kernel/net/ipv4/tcp_diag.ko.xz: kernel/net/ipv4/inet_diag.ko.xz
kernel/net/ipv4/inet_diag.ko.xz:
kernel/net/ipv4/netfilter/iptable_filter.ko: kernel/net/ipv4/netfilter/ip_tables.ko kernel/net/netfilter/x_tables.ko
kernel/net/netfilter/xt_tcpudp.ko: kernel/net/netfilter/x_tables.ko
";

    #[test]
    fn modules_come_once_and_after_what_they_depend_on() {
        let wanted = [
            "tcp_diag",
            "inet_diag",
            "iptable_filter",
            "xt_tcpudp",
            "veth",
        ];
        let order = load_order(&wanted, DEP, "kernel/drivers/net/veth.ko\n").unwrap();
        let names: Vec<_> = order.iter().map(|file| name(file)).collect();
        assert_eq!(
            names,
            [
                "inet_diag",
                "tcp_diag",
                "x_tables",
                "ip_tables",
                "iptable_filter",
                "xt_tcpudp"
            ]
        );
    }

    #[test]
    fn a_module_that_does_not_exist_is_named() {
        let error = load_order(&["sch_nothing"], DEP, "").unwrap_err();
        assert!(error.to_string().contains("sch_nothing"), "{error}");
    }

    #[test]
    fn names_of_modules_have_underscores_and_no_folders() {
        assert_eq!(name("kernel/x/nf-log.ko.xz"), "nf_log");
    }
}
