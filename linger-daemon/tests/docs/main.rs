//! Statements of the documentation that code can contradict.

mod cookbook;
mod links;
mod scale;
mod so_linger;

use std::fs;
use std::path::Path;

use linger_daemon::event::MAX_RECENT;
use linger_daemon::live::MAX_GROUPS as MAX_SHOWN;
use linger_ebpf::{
    CLOSER_PLACES, Close, Closer, Counters, Event, Exe, GROUP_ROWS, GROUP_SLOTS, Group, GroupSlot,
    MAX_CLOSES, MAX_COMMS, MAX_GROUPS, MAX_LEFT_OUT, MAX_ORPHANS, MAX_WATCHED, Note,
    ORPHAN_SLOT_ENTRIES, ORPHAN_SLOTS, Orphan, OrphanSlot, ParkedClose, Slot, UNDECIDED_PLACES,
    UndecidedOrphan,
};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(package().join("../docs").join(name)).unwrap()
}

/// Returns the bytes that the kernel takes for an allocation (`kmalloc`).
fn slab(bytes: usize) -> usize {
    let sizes = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096];
    sizes.into_iter().find(|size| *size >= bytes).unwrap()
}

/// A BPF map, by bytes.
struct Table {
    name: &'static str,
    places: usize,
    most: u32,
    each: usize,
    on_every_cpu: usize,
}

impl Table {
    /// Returns the sizes of a hash map without preallocated entries (kernel/bpf/hashtab.c): `struct htab_elem` followed
    /// by key and value, or a pointer to the values.
    fn hash(name: &'static str, most: u32, key: usize, value: usize) -> Self {
        const BUCKET: usize = 16;
        const ELEMENT: usize = 48;
        Self {
            name,
            places: most.next_power_of_two() as usize * BUCKET,
            most,
            each: slab(ELEMENT + key.next_multiple_of(8) + value),
            on_every_cpu: 0,
        }
    }

    /// Returns the sizes of an array.
    const fn array(name: &'static str, places: usize) -> Self {
        Self {
            name,
            places,
            most: 0,
            each: 0,
            on_every_cpu: 0,
        }
    }

    fn line(&self) -> String {
        let full = |cpus| {
            let each = self.each + cpus * self.on_every_cpu;
            mib(self.places + self.most as usize * each)
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            mib(self.places),
            self.each,
            self.on_every_cpu,
            full(2),
            full(8),
            full(128)
        )
    }
}

/// Returns the maps of the groups' counters.
fn counters() -> [Table; 2] {
    let on_every_cpu = size_of::<Counters>();
    let (key, pointer) = (size_of::<Group>(), size_of::<usize>());
    let crowded = MAX_GROUPS - GROUP_SLOTS;
    [
        Table {
            on_every_cpu,
            most: GROUP_ROWS,
            ..Table::array(
                "groups in slots, and their counters",
                GROUP_ROWS as usize * size_of::<GroupSlot>(),
            )
        },
        Table {
            on_every_cpu,
            ..Table::hash("counters of groups without a slot", crowded, key, pointer)
        },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: usize) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

#[test]
fn the_page_of_limits_has_the_sizes_of_the_tables() {
    let path = size_of::<linger_ebpf::Path>();
    let tables = [
        Table::hash(
            "lingerd's notes on groups",
            MAX_GROUPS,
            size_of::<Group>(),
            size_of::<Note>(),
        ),
        Table::hash("paths of cgroups", MAX_GROUPS, 8, path),
        Table::hash("paths of files (`exe`)", MAX_GROUPS, size_of::<Exe>(), path),
        Table::array(
            "slots of orphans",
            ORPHAN_SLOT_ENTRIES as usize * size_of::<OrphanSlot>(),
        ),
        Table::hash(
            "orphans without a slot",
            MAX_ORPHANS - ORPHAN_SLOTS,
            8,
            size_of::<Orphan>(),
        ),
        Table::array("slots of closes", MAX_CLOSES as usize * size_of::<Slot>()),
        Table::hash("closes without a slot", MAX_CLOSES, 4, size_of::<Close>()),
        Table::hash("waiting closes", MAX_CLOSES, 8, size_of::<ParkedClose>()),
        Table::array(
            "orphans whose fate is still open",
            UNDECIDED_PLACES as usize * size_of::<UndecidedOrphan>(),
        ),
        Table::hash(
            "closes reported to watchers",
            MAX_WATCHED,
            8,
            size_of::<Event>(),
        ),
        Table::hash("groups by number", MAX_GROUPS, 8, size_of::<Group>()),
        Table::array(
            "last closer of each local port",
            CLOSER_PLACES as usize * size_of::<Closer>(),
        ),
        Table::hash("excluded cgroups", MAX_LEFT_OUT, 8, 8),
        Table::hash("process names in `[allow]` and `[deny]`", MAX_COMMS, 16, 8),
    ];
    let page = page("limits.md");
    let missing: Vec<_> = counters()
        .iter()
        .chain(&tables)
        .map(Table::line)
        .filter(|line| !page.contains(line))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/limits.md:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_pages_have_the_bounds_of_what_is_shown() {
    let limits = page("limits.md");
    for row in [
        format!("| groups that the page and `/live.json` show | {MAX_SHOWN} |"),
        format!("| recent costly closes that they show | {MAX_RECENT} |"),
    ] {
        assert!(limits.contains(&row), "not in docs/limits.md: {row}");
    }
    let words = format!("{MAX_SHOWN} groups and {MAX_RECENT} closes at most");
    let model = page("threat-model.md");
    assert!(
        model.contains(&words),
        "not in docs/threat-model.md: {words}"
    );
}

#[test]
fn the_tests_that_the_threat_model_names_are_there() {
    let page = page("threat-model.md");
    let named = page.split('`').filter_map(|word| word.split_once(".rs::"));
    let mut count = 0;
    for (file, name) in named {
        let path = package().join(format!("{file}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let is_there =
            text.contains(&format!("fn {name}(")) || text.contains(&format!("\"{name}\""));
        assert!(is_there, "{file}.rs has no test {name}");
        count += 1;
    }
    assert!(count > 20, "{count} tests are named");
}
