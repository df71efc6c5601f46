//! The names in any path of a cgroup.

use linger_daemon::attribution::Names;

/// Finds the names in a path.
///
/// # Panics
///
/// If a name is not a part of the path, or if there is no unit.
pub fn check(path: &str) {
    let names = Names::of(path);
    // What is a container's or a pod's comes out of the path, in which systemd writes some bytes as \x2d.
    let plain = path.replace("\\x2d", "-");
    for name in [&names.slice, &names.container] {
        let is_in = path.contains(name.as_str()) || plain.contains(name.as_str());
        // The slice of a unit in none.
        assert!(is_in || name == "-.slice", "{path:?} became {names:?}");
    }
    assert!(!names.unit.is_empty());
}
