//! The kernel memory in docs/scale.md.

use linger_ebpf::MAX_GROUPS;

use crate::{counters, mib, page};

#[test]
fn the_page_of_scale_has_what_groups_take() {
    let page = page("scale.md");
    let [_, table] = counters();
    for groups in [100, 512, 1_000, MAX_GROUPS as usize] {
        let of = |cpus: usize| mib(groups * (table.each + cpus * table.on_every_cpu));
        let copied = mib(groups * 128 * table.on_every_cpu);
        let line = format!(
            "| {groups} | {} | {} | {} | {} | {copied} |",
            of(2),
            of(16),
            of(64),
            of(128)
        );
        assert!(page.contains(&line), "not in docs/scale.md: {line}");
    }
}
