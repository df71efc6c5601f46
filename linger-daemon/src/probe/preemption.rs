//! The kernel's preemption model, which decides how often the kernel skips programs.
//!
//! The kernel marks most programs as running on this CPU while they run, and skips a run that finds the mark
//! (`kernel/bpf/trampoline.c` `__bpf_prog_enter_recur`, `kernel/trace/bpf_trace.c` `__bpf_trace_run`). If a thread can
//! be preempted inside the kernel, other threads find its mark.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use flate2::read::GzDecoder;
use nix::sys::utsname::uname;

/// How the kernel preempts threads running in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::FromRepr)]
pub enum Preemption {
    /// Not at all, or only at voluntary preemption points (none, voluntary).
    None,
    /// Threads, except while soft interrupts are disabled (lazy, full).
    Threads,
    /// Threads and soft interrupts, but only one at a time per CPU can have soft interrupts disabled (`PREEMPT_RT`).
    Realtime,
    /// Threads and soft interrupts, without that limit (`PREEMPT_RT`, from 6.18 on).
    SoftInterrupts,
    /// Unknown; it may preempt threads.
    Unknown,
}

impl Preemption {
    /// Detects the preemption of the running kernel.
    #[must_use]
    pub fn running() -> Self {
        let names = uname();
        let (release, version) = names
            .as_ref()
            .map(|names| (names.release(), names.version()))
            .unwrap_or_default();
        Self::read(
            Path::new("/"),
            &release.to_string_lossy(),
            &version.to_string_lossy(),
        )
    }

    /// Determines the preemption from the files below `root`, for a kernel with this release and version.
    fn read(root: &Path, release: &str, version: &str) -> Self {
        // `UTS_VERSION` names the preemption options of the build (init/Makefile).
        let built = |what| version.split(' ').any(|word| word == what);
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let configurations = || {
            let packed = packed(&root.join("proc/config.gz")).unwrap_or_default();
            [packed, text(&format!("boot/config-{release}"))]
        };
        if built("PREEMPT_RT") {
            let locks = |config: &String| is_set(config, "CONFIG_PREEMPT_RT_NEEDS_BH_LOCK");
            let locked = !is_or_later(release, (6, 18)) || configurations().iter().any(locks);
            return if locked {
                Self::Realtime
            } else {
                Self::SoftInterrupts
            };
        }
        if built("PREEMPT") {
            return Self::Threads;
        }
        if !built("PREEMPT_DYNAMIC") {
            return Self::None;
        }
        chosen_now(&text("sys/kernel/debug/sched/preempt"))
            .or_else(|| chosen_at_boot(&text("proc/cmdline")))
            .or_else(|| {
                configurations()
                    .iter()
                    .find_map(|config| chosen_at_build(config))
            })
            .unwrap_or(Self::Unknown)
    }

    /// Maps the name of a mode of the kernel (kernel/sched/core.c `preempt_modes`).
    fn of_mode(mode: &str) -> Option<Self> {
        match mode {
            "none" | "voluntary" => Some(Self::None),
            "full" | "lazy" => Some(Self::Threads),
            _ => None,
        }
    }

    /// A human-readable description.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::None => "none, or only at the kernel's own scheduling points",
            Self::Threads => "threads inside the kernel",
            Self::Realtime | Self::SoftInterrupts => "nearly everything (PREEMPT_RT)",
            Self::Unknown => "unknown, assumed to be of threads inside the kernel",
        }
    }
}

/// Whether the running kernel preempts tracepoint programs as it preempts others. Before 7.0 they run with
/// preemption disabled (`include/linux/tracepoint.h` `__DO_TRACE`); neither BTF nor any file shows it.
pub(super) fn preempts_tracepoints() -> bool {
    is_running((7, 0))
}

/// Whether the running kernel is this version or a later one.
pub(super) fn is_running(version: (u32, u32)) -> bool {
    uname().is_ok_and(|names| is_or_later(&names.release().to_string_lossy(), version))
}

fn is_or_later(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|other: char| !other.is_ascii_digit());
    let mut next = || numbers.next()?.parse().ok();
    next()
        .zip(next())
        .is_some_and(|release: (u32, u32)| release >= version)
}

/// Parses the modes in debugfs: the one in force is in parentheses.
fn chosen_now(modes: &str) -> Option<Preemption> {
    let (_, rest) = modes.split_once('(')?;
    Preemption::of_mode(rest.split_once(')')?.0)
}

/// Parses the last `preempt=` parameter of a kernel command line.
fn chosen_at_boot(command_line: &str) -> Option<Preemption> {
    let mut words = command_line.split_ascii_whitespace().rev();
    Preemption::of_mode(words.find_map(|word| word.strip_prefix("preempt="))?)
}

/// Parses the default mode in a kernel build configuration.
fn chosen_at_build(config: &str) -> Option<Preemption> {
    let is_set = |option| is_set(config, option);
    if is_set("CONFIG_PREEMPT") || is_set("CONFIG_PREEMPT_LAZY") {
        return Some(Preemption::Threads);
    }
    let kept = is_set("CONFIG_PREEMPT_NONE") || is_set("CONFIG_PREEMPT_VOLUNTARY");
    kept.then_some(Preemption::None)
}

fn is_set(config: &str, option: &str) -> bool {
    let mut lines = config.lines();
    lines.any(|line| line.strip_suffix("=y") == Some(option))
}

/// Reads the text of a gzip file, at most 4 MiB: kernel configurations are smaller.
fn packed(path: &Path) -> io::Result<String> {
    const MOST: u64 = 4 << 20;
    let mut text = String::new();
    let file = File::open(path)?.take(MOST);
    GzDecoder::new(file).take(MOST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};
    use tempfile::TempDir;

    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1";

    /// A root with these files, each with its text.
    fn root(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(version: &str, files: &[(&str, &str)]) -> Preemption {
        Preemption::read(root(files).path(), "6.12-x", version)
    }

    #[test]
    fn the_version_names_a_model_fixed_at_build_time() {
        assert_eq!(found("#1 SMP Debian", &[]), Preemption::None);
        assert_eq!(found("#1 SMP PREEMPT Debian", &[]), Preemption::Threads);
        let realtime = "#1 SMP PREEMPT_RT Debian 6.12.117-1";
        assert_eq!(found(realtime, &[]), Preemption::Realtime);
    }

    #[test]
    fn the_mode_in_force_overrides_the_command_line_which_overrides_the_build() {
        let now = ("sys/kernel/debug/sched/preempt", "none (voluntary) full \n");
        let asked = ("proc/cmdline", "quiet preempt=full\n");
        let built = (
            "boot/config-6.12-x",
            "CONFIG_PREEMPT_VOLUNTARY=y\n# CONFIG_PREEMPT is not set\n",
        );
        assert_eq!(found(DYNAMIC, &[now, asked, built]), Preemption::None);
        assert_eq!(found(DYNAMIC, &[asked, built]), Preemption::Threads);
        assert_eq!(found(DYNAMIC, &[built]), Preemption::None);
        let lazy = ("boot/config-6.12-x", "CONFIG_PREEMPT_LAZY=y\n");
        assert_eq!(found(DYNAMIC, &[lazy]), Preemption::Threads);
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        let since = |release| is_or_later(release, (6, 18));
        assert!(since("6.18.15+deb13-cloud-amd64") && since("7.3.4") && since("10.0"));
        assert!(!since("6.12.117+deb12-rt-amd64") && !since("x"));
    }

    #[test]
    fn soft_interrupts_are_preempted_since_6_18_unless_the_build_locks_them() {
        let config = ("boot/config-6.18-x", "CONFIG_PREEMPT_RT_NEEDS_BH_LOCK=y\n");
        let found = |files: &[_]| {
            Preemption::read(root(files).path(), "6.18-x", "#1 SMP PREEMPT_RT Debian")
        };
        assert_eq!(found(&[]), Preemption::SoftInterrupts);
        assert_eq!(found(&[config]), Preemption::Realtime);
    }

    #[test]
    fn an_unrecognized_mode_is_unknown() {
        let other = ("proc/cmdline", "preempt=often");
        assert_eq!(found(DYNAMIC, &[other]), Preemption::Unknown);
    }

    #[test]
    fn a_packed_configuration_is_read() {
        let root = root(&[("proc/cmdline", "quiet")]);
        let file = File::create(root.path().join("proc/config.gz")).unwrap();
        let mut packed = GzEncoder::new(file, Compression::default());
        packed.write_all(b"CONFIG_PREEMPT_NONE=y\n").unwrap();
        packed.finish().unwrap();
        let found = Preemption::read(root.path(), "6.18-x", DYNAMIC);
        assert_eq!(found, Preemption::None);
    }
}
