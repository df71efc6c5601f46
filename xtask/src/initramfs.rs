//! The file system of the test machine: `BusyBox`, the programs to run with their libraries, and
//! the kernel modules they need.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::kernels::Kernel;
use crate::shell::{self, command, output, run_unseen};

/// Modules that tests may need, beyond what is built into the kernel.
const MODULES: &[&str] = &[
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

const INIT: &str = include_str!("init.sh");

/// Makes the file system for one kernel in `folder`, and packs it; where the archive is.
///
/// `programs` are put into /bin; `work` is a line of shell that says what the machine is to do.
pub(crate) fn pack(
    folder: &Path,
    kernel: &Kernel,
    programs: &[PathBuf],
    work: &str,
) -> Result<PathBuf> {
    let tree = folder.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::create_dir_all(tree.join("bin"))?;

    let busybox = shell::find("busybox").context("BusyBox is not installed")?;
    fs::copy(&busybox, tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), Permissions::from_mode(0o755))?;
    fs::write(tree.join("work"), work)?;

    for program in programs {
        add_program(&tree, program)?;
    }
    let modules = add_modules(&tree, &busybox, kernel)?;
    fs::write(tree.join("modules"), modules.join("\n"))?;
    archive(&tree, &folder.join("initramfs"))
}

/// Adds a program, named as before, and the shared libraries it needs, where they are here.
fn add_program(tree: &Path, program: &Path) -> Result<()> {
    let name = program.file_name().context("a program has a name")?;
    fs::copy(program, tree.join("bin").join(name))
        .with_context(|| format!("take {}", program.display()))?;
    for library in libraries(&output(command("ldd").arg(program))?) {
        let place = tree.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("a library is in a folder")?)?;
        fs::copy(library, &place).with_context(|| format!("take {library}"))?;
    }
    Ok(())
}

/// The files that ldd names.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_whitespace().filter(|word| word.starts_with('/'))
}

/// Adds the modules; their places in the tree, in the order in which to load them.
fn add_modules(tree: &Path, busybox: &Path, kernel: &Kernel) -> Result<Vec<String>> {
    let Some(folder) = &kernel.modules else {
        println!("{} has no folder of modules: none are loaded", kernel.label);
        return Ok(Vec::new());
    };
    let read = |name: &str| {
        let file = folder.join(name);
        fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
    };
    let order = load_order(MODULES, &read("modules.dep")?, &read("modules.builtin")?)?;
    fs::create_dir(tree.join("lib-modules"))?;
    order
        .iter()
        .map(|module| {
            let place = format!("lib-modules/{}.ko", module_name(module));
            let (from, to) = (folder.join(module), tree.join(&place));
            if Path::new(module).extension().is_some_and(|end| end == "xz") {
                run_into(&to, command(busybox).args(["xz", "-dc"]).arg(&from))?;
            } else {
                fs::copy(&from, &to).with_context(|| format!("take {}", from.display()))?;
            }
            Ok(format!("/{place}"))
        })
        .collect()
}

/// The files of these modules and of all they depend on, each after what it depends on.
///
/// `dep` and `builtin` are the contents of `modules.dep` and `modules.builtin`.
fn load_order(wanted: &[&str], dep: &str, builtin: &str) -> Result<Vec<String>> {
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted.iter().filter(|name| !builtin.contains(**name)) {
        let (file, needs) = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(file, _)| module_name(file) == *name)
            .with_context(|| format!("this kernel has no module {name}"))?;
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
fn module_name(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.split('.').next().unwrap_or(name);
    name.replace('-', "_")
}

/// Packs a tree of files as the kernel wants it.
fn archive(tree: &Path, file: &Path) -> Result<PathBuf> {
    let pack = "find . | cpio --create --format=newc --owner=0:0 --quiet";
    run_into(file, command("sh").args(["-c", pack]).current_dir(tree))?;
    Ok(file.to_owned())
}

/// Runs a command whose output goes into a file.
fn run_into(file: &Path, command: &mut std::process::Command) -> Result<()> {
    let output = File::create(file).with_context(|| format!("create {}", file.display()))?;
    run_unseen(command.stdout(output))
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
        let names: Vec<_> = order.iter().map(|file| module_name(file)).collect();
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
        assert_eq!(module_name("kernel/x/nf-log.ko.xz"), "nf_log");
    }

    #[test]
    fn libraries_are_the_absolute_paths() {
        let ldd = "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7e)\n\t/lib64/ld.so (0x7d)\n";
        assert_eq!(
            libraries(ldd).collect::<Vec<_>>(),
            ["/lib/libc.so.6", "/lib64/ld.so"]
        );
    }
}
