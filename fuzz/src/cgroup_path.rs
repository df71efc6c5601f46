//! Fuzzes the extraction of names from a cgroup's path.

use linger_daemon::attribution::Names;

/// Finds the names in a path.
///
/// # Panics
///
/// If a name is not part of the path, or the unit is empty.
pub fn check(path: &str) {
    let names = Names::of(path);
    // Names of containers and pods come from the path, in which systemd escapes a dash as \x2d.
    let plain = path.replace("\\x2d", "-");
    for name in [&names.slice, &names.container] {
        let is_in = path.contains(name.as_str()) || plain.contains(name.as_str());
        // "-.slice" is the slice of a unit that is in none.
        assert!(is_in || name == "-.slice", "{path:?} became {names:?}");
    }
    assert!(!names.unit.is_empty());
}
