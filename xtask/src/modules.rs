//! Selects the kernel modules that a test machine needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Modules that tests may need, unless they are built into the kernel.
pub(crate) const WANTED: &[&str] = &[
    "veth",
    "sch_netem",
    "inet_diag",
    "tcp_diag",
    "nf_tables",
    "nft_reject_inet",
    "nf_conntrack",
    "nft_ct",
    "tls",
];

/// Returns the files of the modules that tests may need, and of their dependencies, relative to `folder`, the kernel's
/// folder of modules.
pub(crate) fn needed(folder: &Path) -> Result<BTreeSet<String>> {
    let read = |name: &str| {
        let file = folder.join(format!("modules.{name}"));
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let lists = Lists {
        dep: read("dep")?,
        builtin: read("builtin")?,
        softdep: read("softdep")?,
        alias: read("alias")?,
    };
    lists.files_of(WANTED)
}

/// The contents of the lists that depmod writes for a kernel's modules.
#[derive(Default)]
struct Lists {
    dep: String,
    builtin: String,
    softdep: String,
    alias: String,
}

impl Lists {
    /// Returns the files of these modules, unless built in, and of all their dependencies.
    fn files_of(&self, wanted: &[&str]) -> Result<BTreeSet<String>> {
        let builtin: BTreeSet<String> = self.builtin.lines().map(name).collect();
        let mut files = BTreeSet::new();
        for module in wanted.iter().filter(|module| !builtin.contains(**module)) {
            let line = self
                .line_of(module)
                .with_context(|| format!("this kernel has no module {module}"))?;
            self.add(line, &mut files);
        }
        Ok(files)
    }

    /// Returns the file of a module, and the files of the modules it depends on.
    fn line_of(&self, module: &str) -> Option<(&str, &str)> {
        let mut lines = self.dep.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(file, _)| name(file) == module)
    }

    /// Adds the files of a line, and those of the modules to be loaded before each.
    fn add(&self, (file, needs): (&str, &str), files: &mut BTreeSet<String>) {
        for file in needs.split_whitespace().chain([file]) {
            if files.insert(file.to_owned()) {
                for line in self.loaded_before(&name(file)) {
                    self.add(line, files);
                }
            }
        }
    }

    /// Returns the lines of a module's soft dependencies, whose symbols it does not use. They are named by an alias
    /// that several modules may have, as `libcrc32c` does with `crc32c`.
    fn loaded_before(&self, module: &str) -> impl Iterator<Item = (&str, &str)> {
        let of_module = format!("softdep {module} pre: ");
        let asked = self
            .softdep
            .lines()
            .find_map(|line| line.strip_prefix(&of_module));
        let asked = asked.unwrap_or_default().split_whitespace();
        asked
            .take_while(|word| *word != "post:")
            .flat_map(move |word| {
                let alias = format!("alias {word} ");
                let named = self.alias.lines();
                let named = named.filter_map(move |line| line.strip_prefix(&alias));
                named
                    .chain([word])
                    .filter_map(move |module| self.line_of(module))
            })
    }
}

/// Returns the name of the module in a file such as `kernel/net/ipv4/tcp_diag.ko.xz`.
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
kernel/net/netfilter/nf_tables.ko:
kernel/net/netfilter/nft_ct.ko: kernel/net/netfilter/nf_tables.ko
kernel/crypto/crc32c_generic.ko:
";

    #[test]
    fn modules_come_with_all_their_dependencies() {
        let lists = Lists {
            dep: DEP.into(),
            builtin: "kernel/drivers/net/veth.ko\n".into(),
            softdep: "# of a kernel\nsoftdep nf_tables pre: crc32c gone post: late\n".into(),
            alias: "alias crc32c crc32c_generic\nalias crc32cx tcp_diag\n".into(),
        };
        let names = |wanted: &[&str]| -> Vec<String> {
            let files = lists.files_of(wanted).unwrap();
            files.iter().map(|file| name(file)).collect()
        };
        assert_eq!(names(&["tcp_diag", "veth"]), ["inet_diag", "tcp_diag"]);
        assert_eq!(
            names(&["iptable_filter", "xt_tcpudp"]),
            ["ip_tables", "iptable_filter", "x_tables", "xt_tcpudp"]
        );
        assert_eq!(
            names(&["nft_ct"]),
            ["crc32c_generic", "nf_tables", "nft_ct"]
        );
    }

    #[test]
    fn a_module_that_does_not_exist_is_named() {
        let error = Lists::default().files_of(&["sch_nothing"]).unwrap_err();
        assert!(error.to_string().contains("sch_nothing"), "{error}");
    }

    #[test]
    fn names_of_modules_have_underscores_and_no_folders() {
        assert_eq!(name("kernel/x/nf-log.ko.xz"), "nf_log");
    }
}
