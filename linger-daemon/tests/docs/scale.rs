//! What the page of scale says of the memory of the kernel.

use linger_ebpf::{MAX_GROUPS, ROWS_PER_GROUP, Row, RowKey};

use crate::{Table, mib, page};

/// Rows of a group of which nothing but the usual is seen.
const USUAL: u32 = 4;

#[test]
fn the_page_of_scale_has_what_rows_take() {
    let page = page("scale.md");
    for groups in [100, 512, 1_000, MAX_GROUPS] {
        let rows = groups * USUAL;
        let value = size_of::<Row>();
        let of = |cpus: usize| {
            let rows = rows as usize;
            let table = Table::hash(
                "rows",
                MAX_GROUPS * ROWS_PER_GROUP,
                size_of::<RowKey>(),
                size_of::<usize>(),
                value,
            );
            mib(rows * (table.each + cpus * table.on_every_cpu))
        };
        let copied = mib(rows as usize * 128 * value);
        let line = format!(
            "| {groups} | {rows} | {} | {} | {} | {} | {copied} |",
            of(2),
            of(16),
            of(64),
            of(128)
        );
        assert!(page.contains(&line), "not in docs/scale.md: {line}");
    }
}
