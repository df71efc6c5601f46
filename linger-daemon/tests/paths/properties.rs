//! Properties of the names in any path.

use linger_daemon::attribution::Names;
use proptest::prelude::*;
use proptest::sample::select;

use crate::rows;

/// Generates components with a meaning, whole or in part, and any others.
fn component() -> impl Strategy<Value = String> {
    let hex = "[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{63,65}";
    let uid = "[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}";
    let words = "lxc lxc.payload lxc.monitor payload supervisor libpod_parent docker kubepods \
                 system.slice container .. . _ .service _.slice :";
    let prefixes = "docker- crio- crio-conmon- libpod- libpod-payload- libpod-conmon- \
                    cri-containerd- system.slice:docker: machine-libpod_pod_ lxc.payload. machine- \
                    systemd-nspawn@ kubepods-pod kubepods-burstable-pod pod _";
    let one_of = |words: &'static str| select(words.split(' ').collect::<Vec<_>>());
    let stem = prop_oneof![hex, uid, "[a-zé\\\\-]{0,5}", hex.prop_map(|id| id + "-17")];
    let suffix = select(vec!["", ".scope", ".service", ".slice"]);
    prop_oneof![
        one_of(words).prop_map(str::to_owned),
        (prop_oneof![Just(""), one_of(prefixes)], stem, suffix)
            .prop_map(|(prefix, stem, suffix)| prefix.to_owned() + &stem + suffix),
        "[^/]{0,8}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(component(), 0..6).prop_map(|path| format!("/{}", path.join("/"))),
        ".*",
    ]
}

/// Generates a path of the table that ends with a container's own cgroup.
fn container_path() -> impl Strategy<Value = String> {
    let paths = rows().into_iter().filter_map(|row| {
        let (parent, _) = row.path.rsplit_once('/')?;
        let is_own = !row.container.is_empty() && Names::of(parent).container != row.container;
        is_own.then_some(row.path)
    });
    select(paths.collect::<Vec<_>>())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .chars()
            .all(|digit| matches!(digit, '0'..='9' | 'a'..='f'))
}

/// Returns whether LXC or systemd-nspawn gave a container of this path this name.
fn is_name_in(name: &str, path: &str) -> bool {
    let components: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    let lxc = components.windows(2).any(|pair| {
        matches!(pair[0], "lxc" | "lxc.payload") && pair[1] == name
            || pair[1] == "payload" && pair[0].replace(r"\x2d", "-").contains(name)
    });
    lxc || components.contains(&format!("lxc.payload.{name}").as_str())
}

fn is_pod(pod: &str) -> bool {
    let groups: Vec<_> = pod.split('-').map(str::len).collect();
    let is_uuid = groups == [8, 4, 4, 4, 12] && is_hex(&pod.replace('-', ""), 32);
    pod.is_empty() || is_uuid || is_hex(pod, 32) || is_hex(pod, 12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_path_yields_well_formed_names(path in path()) {
        let names = Names::of(&path);
        prop_assert!(!names.unit.is_empty());
        prop_assert!(names.slice.is_empty() || names.slice.strip_suffix(".slice").is_some());
        let container = names.container.as_str();
        prop_assert!(
            container.is_empty() || is_hex(container, 12) || is_name_in(container, &path),
            "{container}"
        );
        prop_assert!(is_pod(&names.pod), "{}", names.pod);
    }

    #[test]
    fn a_folder_below_a_container_belongs_to_it(path in container_path(), folder in "[a-z]{1,12}") {
        let (above, below) = (Names::of(&path), Names::of(&format!("{path}/{folder}")));
        prop_assert_eq!(&below.container, &above.container);
        prop_assert_eq!(&below.pod, &above.pod);
        // A path without a unit stands for itself.
        if !above.unit.starts_with('/') {
            prop_assert_eq!(&below.unit, &above.unit);
            prop_assert_eq!(&below.slice, &above.slice);
        }
    }
}
