//! The names in any path of a cgroup.
#![no_main]

use libfuzzer_sys::fuzz_target;
use linger_daemon::attribution::Names;

fuzz_target!(|path: &str| {
    let names = Names::of(path);
    // What is a container's or a pod's comes out of the path, in which systemd writes some bytes as \x2d.
    let plain = path.replace("\\x2d", "-");
    for name in [&names.slice, &names.container] {
        let is_in = path.contains(name.as_str()) || plain.contains(name.as_str());
        // The slice of a unit in none.
        assert!(is_in || name == "-.slice", "{path:?} became {names:?}");
    }
    assert!(!names.unit.is_empty());
});
