//! Finds the names given by systemd and container runtimes in the path of a cgroup.

/// Hex digits of a full container id in Docker, containerd, CRI-O and Podman.
const ID_DIGITS: usize = 64;
/// Hex digits of an id in a label, as in `docker ps` and `crictl ps`.
const SHOWN_DIGITS: usize = 12;
/// Hex digits of a pod's UID without dashes: kubelet's hash of a static pod. Also of an ECS task.
const UID_DIGITS: usize = 32;
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Prefixes of the id in names of containers. Those of their monitors (`crio-conmon`, `libpod-conmon`) are left out,
/// because monitors are processes of the host.
const RUNTIMES: &[&str] = &[
    "docker",
    "cri-containerd",
    "nerdctl",
    "crio",
    "libpod",
    // Podman with split cgroups, as a quadlet runs it: beside the monitor below one service.
    "libpod-payload",
    // Used if the caller of the runtime requests no name.
    "runc",
    "crun",
];

/// The names in the path of a cgroup. A name that does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The innermost systemd service or scope, or the plain path where there is none; never empty.
    pub unit: String,
    /// The innermost slice above the unit, `-.slice` for a unit in none; without a unit, the
    /// innermost on the path.
    pub slice: String,
    /// The innermost container: the first 12 hex digits of its id, or the name of one that has no
    /// id (LXC, systemd-nspawn).
    pub container: String,
    /// The innermost pod: the UID of a Kubernetes pod (a UUID; 32 hex digits for a static pod), the
    /// first 12 hex digits of the id of a Podman pod.
    pub pod: String,
}

impl Names {
    /// Reads a path from the root of the cgroup v2 hierarchy, `/` for the root itself.
    #[must_use]
    pub fn of(path: &str) -> Self {
        let path: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let unit = path.iter().rposition(|name| is_unit(name));
        Self {
            unit: unit.map_or_else(
                || format!("/{}", path.join("/")),
                |place| unescape(path[place]).to_owned(),
            ),
            slice: slice(&path, unit).to_owned(),
            container: innermost(&path, container),
            pod: innermost(&path, pod),
        }
    }
}

/// The first result of `name` for the whole path and its ancestors, from the innermost; empty if there is none.
fn innermost(path: &[&str], name: impl Fn(&[&str]) -> Option<String>) -> String {
    let lengths = (1..=path.len()).rev();
    let mut names = lengths.filter_map(|length| name(&path[..length]));
    names.next().unwrap_or_default()
}

/// The name of a unit, without the `_` that systemd prepends if the name could collide with a kernel file. Other
/// escapes (`\x2d`) are part of the name.
fn unescape(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

fn is_unit(name: &str) -> bool {
    is_kind(name, ".service") || is_kind(name, ".scope")
}

/// Whether this is the name of a unit with this suffix, and more than the suffix.
fn is_kind(name: &str, suffix: &str) -> bool {
    let stem = unescape(name).strip_suffix(suffix);
    stem.is_some_and(|stem| !stem.is_empty())
}

fn slice<'a>(path: &[&'a str], unit: Option<usize>) -> &'a str {
    let above = &path[..unit.unwrap_or(path.len())];
    let slice = above.iter().rfind(|name| is_kind(name, ".slice"));
    match (slice, unit) {
        (Some(slice), _) => unescape(slice),
        (None, Some(_)) => "-.slice",
        (None, None) => "",
    }
}

/// The container whose own cgroup this is.
fn container(path: &[&str]) -> Option<String> {
    match *path {
        [.., unit, "payload"] => machine(unit),
        [.., "lxc" | "lxc.payload", name] => Some(name.to_owned()),
        // A Podman pod has a name of the same form.
        [.., name] if podman_pod(path).is_none() => lxc(name).or_else(|| Some(shown(id(name)?))),
        _ => None,
    }
}

fn lxc(name: &str) -> Option<String> {
    let name = name.strip_prefix("lxc.payload.")?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The machine of systemd-nspawn that this unit runs.
///
/// Only processes in its cgroup `payload` belong to it; nspawn itself is in `supervisor`. This also distinguishes it
/// from the virtual machines of libvirt, whose scopes have names of the same form, and whose emulator is a process of
/// the host.
fn machine(unit: &str) -> Option<String> {
    let scope = || unit.strip_prefix("machine-")?.strip_suffix(".scope");
    let service = || {
        unit.strip_prefix("systemd-nspawn@")?
            .strip_suffix(".service")
    };
    let name = scope().or_else(service)?;
    // Machines are named like hosts: of the characters in such names, systemd escapes only the dash.
    (!name.is_empty()).then(|| name.replace(r"\x2d", "-"))
}

/// The full id in the name of a container's cgroup.
fn id(name: &str) -> Option<&str> {
    // A name meant for systemd, taken literally by a runtime that does not use it.
    if let Some((_, name)) = name.split_once(".slice:") {
        let (runtime, id) = name.split_once(':')?;
        return (RUNTIMES.contains(&runtime) && is_hex(id, ID_DIGITS)).then_some(id);
    }
    let name = name.strip_suffix(".scope").unwrap_or(name);
    match name.rsplit_once('-') {
        None => is_hex(name, ID_DIGITS).then_some(name),
        Some((runtime, id)) if RUNTIMES.contains(&runtime) => is_hex(id, ID_DIGITS).then_some(id),
        // ECS on Fargate: the task, and a number for each of its containers.
        Some((task, number)) => {
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            (is_number && is_hex(task, UID_DIGITS)).then_some(task)
        }
    }
}

/// The pod whose own cgroup this is.
fn pod(path: &[&str]) -> Option<String> {
    let name = path.last()?;
    podman_pod(path)
        .or_else(|| uid(name.strip_prefix("pod")?, '-'))
        .or_else(|| {
            let (parent, pod) = pod_slice(name)?.rsplit_once("-pod")?;
            // A kubelet may have a root cgroup of its own, whose name then comes first.
            let class = ["-burstable", "-besteffort"].iter();
            let parent = class.fold(parent, |parent, class| {
                parent.strip_suffix(class).unwrap_or(parent)
            });
            let is_kubelet = parent == "kubepods" || parent.ends_with("-kubepods");
            is_kubelet.then(|| uid(pod, '_'))?
        })
}

/// A pod of Podman: a slice of systemd, or a folder named after the id alone.
fn podman_pod(path: &[&str]) -> Option<String> {
    let id = match *path {
        [.., "libpod_parent", id] => id,
        [.., name] => pod_slice(name)?.rsplit_once("-libpod_pod_")?.1,
        [] => return None,
    };
    is_hex(id, ID_DIGITS).then(|| shown(id))
}

/// The name of a slice without its suffix, even if the rest of a container's name follows it.
fn pod_slice(name: &str) -> Option<&str> {
    let slice = name.split_once(':').map_or(name, |(slice, _)| slice);
    slice.strip_suffix(".slice")
}

/// The UID of a pod as Kubernetes writes it, from text with `dash` in place of dashes.
fn uid(text: &str, dash: char) -> Option<String> {
    let is_uuid = text.split(dash).map(str::len).eq(UUID_GROUPS);
    let has_form = is_uuid || text.len() == UID_DIGITS;
    (has_form && is_hex(&text.replace(dash, ""), UID_DIGITS)).then(|| text.replace(dash, "-"))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn shown(id: &str) -> String {
    id.chars().take(SHOWN_DIGITS).collect()
}
