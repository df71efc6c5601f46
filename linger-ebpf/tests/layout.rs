//! Checks that the layout of the maps is the one recorded for its number.

use std::collections::HashSet;
use std::fmt::{Debug, Write as _};

use linger_ebpf::{
    BLOCKED_BOUNDS_NS, CLOSER_PLACES, Cause, Close, Closer, Counters, Event, ExitingProcess, Fate,
    Filter, GROUP_SLOTS, Group, GroupSlot, HINTS, LAYOUT, LIVED_BOUNDS_NS, Lost, MAX_CLOSES, Note,
    ORPHAN_SLOTS, Orphan, OrphanSlot, Orphans, Outcome, ParkedClose, Past, Path, PinMetadata, Plan,
    PortBits, QueueBytes, SHARED_GROUPS, Settings, Slot, TimeHistogram, UNDECIDED_PLACES,
    UndecidedOrphan, Waits, Watch, key_field,
};

fn size<T>(out: &mut String, name: &str) {
    writeln!(out, "{name}: {} bytes", size_of::<T>()).expect("text");
}

/// Like [`size`], with the fields in their order, except those of structs in an array.
fn fields<T: Debug>(out: &mut String, name: &str, value: &T) {
    size::<T>(out, name);
    let text = format!("{value:?}");
    for (at, _) in text.match_indices(':') {
        let before = &text[..at];
        if before.matches('[').count() > before.matches(']').count() {
            continue;
        }
        let field = before.rsplit([' ', '{']).next().unwrap_or_default();
        writeln!(out, "  {field}").expect("text");
    }
}

fn labels(out: &mut String, name: &str, labels: impl Iterator<Item = &'static str>) {
    writeln!(out, "{name}: {}", labels.collect::<Vec<_>>().join(" ")).expect("text");
}

fn layout() -> String {
    const ORPHAN_SLOT: OrphanSlot = OrphanSlot {
        crowded: 0,
        orphan: Orphan::ZERO,
    };
    let mut out = format!("layout {LAYOUT}\n");
    fields(&mut out, "Group", &Group::ZERO);
    fields(&mut out, "GroupSlot", &GroupSlot::default());
    fields(&mut out, "Counters", &Counters::ZERO);
    fields(&mut out, "Note", &Note::ZERO);
    fields(&mut out, "Close", &Close::ZERO);
    fields(&mut out, "Closer", &Closer::default());
    fields(&mut out, "Orphan", &Orphan::ZERO);
    fields(&mut out, "Waits", &Waits::default());
    size::<UndecidedOrphan>(&mut out, "UndecidedOrphan");
    fields(&mut out, "ExitingProcess", &ExitingProcess::default());
    fields(&mut out, "Exe", &Group::ZERO.exe());
    fields(&mut out, "Settings", &Settings::default());
    fields(&mut out, "PortBits", &PortBits::default());
    fields(&mut out, "Watch", &Watch::default());
    fields(&mut out, "Filter", &Filter::ALL);
    fields(&mut out, "Event", &Event::ZERO);
    fields(&mut out, "PinMetadata", &PinMetadata::default());
    fields(&mut out, "QueueBytes", &QueueBytes::NONE);
    fields(&mut out, "TimeHistogram", &TimeHistogram::ZERO);
    size::<Slot>(&mut out, "Slot");
    fields(&mut out, "OrphanSlot", &ORPHAN_SLOT);
    size::<ParkedClose>(&mut out, "ParkedClose");
    size::<Path>(&mut out, "Path");
    size::<Orphans>(&mut out, "Orphans");
    size::<Past>(&mut out, "Past");
    labels(
        &mut out,
        "outcomes",
        Outcome::ALL.iter().map(|it| it.name()),
    );
    labels(&mut out, "causes", Cause::ALL.iter().map(|it| it.name()));
    labels(&mut out, "fates", Fate::ALL.iter().map(|it| it.name()));
    labels(&mut out, "losses", Lost::ALL.iter().map(|it| it.name()));
    labels(&mut out, "plans", Plan::ALL.iter().map(|it| it.name()));
    writeln!(
        out,
        "shared: {SHARED_GROUPS} groups\nblocked: {BLOCKED_BOUNDS_NS:?}\nlived: {LIVED_BOUNDS_NS:?}\n\
         places: {MAX_CLOSES} closes, {HINTS} hints, {UNDECIDED_PLACES} undecided, {ORPHAN_SLOTS} orphans, \
         {GROUP_SLOTS} groups, \
         {CLOSER_PLACES} closers\n\
         key_fields: all {:#b}",
        key_field::ALL
    )
    .expect("text");
    out
}

/// A daemon continues with the maps of another that has the same number: a layout that differs, or means something
/// else, must have another number. No test sees a change that only affects the meaning of a field.
#[test]
fn the_layout_is_that_of_its_number() {
    let layout = layout();
    assert!(
        layout == include_str!("layout.txt"),
        "raise LAYOUT in src/abi/handover.rs, and make tests/layout.txt:\n{layout}"
    );
}

#[test]
fn ports_of_a_network_namespace_share_no_place() {
    for namespace in [0_u64, 0x1234_5680, 0xffff_ffc0] {
        let places: HashSet<u32> = (1..=u16::MAX)
            .map(|port| Closer::index(namespace << 16 | u64::from(port)))
            .collect();
        assert_eq!(places.len(), usize::from(u16::MAX), "{namespace:x}");
    }
}
