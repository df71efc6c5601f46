//! Unprivileged users cannot make the daemon or the kernel keep more than was set aside, nor make it lose counts.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, Command};

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::{Outcome, Plan};
use linger_testkit::exposition::Scrape;
use nix::unistd::{Gid, Uid};

use crate::born::Cgroup;
use crate::closes::{is_other, lost, sum, wait_until};
use crate::daemon::Daemon;
use crate::needs::Need;
use crate::netns;
use crate::scenario::{Scenario, Settings};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::bulk_daemon("hostile_names", names).once(),
    Scenario::bulk_daemon("hostile_exes", exes)
        .once()
        .needs(&[Need::X86]),
    Scenario::bulk_daemon("hostile_cgroups", cgroups).once(),
];

/// Groups that the daemon can hold.
const PLACES: u64 = 128;
/// ID of an untrusted user and group.
const NOBODY: u32 = 65534;
/// Closes under new names for each place: the first fill the tables, the others must change nothing.
const TIMES: u64 = 4;
/// Limit of the growth of memory once the tables are full, bytes: less than 20,000 groups would take, more than one
/// scrape leaves to the next.
const GROWTH: u64 = 8 << 20;
/// Scrapes after which the daemon has allocated what any scrape needs.
const SCRAPES: usize = 5;
/// Line of `/proc/PID/status` for a process without huge pages: with them, its memory would depend on when the kernel
/// finds the time to make some.
const NO_HUGE_PAGES: &str = "THP_enabled:\t0";
/// Limit of sockets that the rest of the host closes meanwhile without ever connecting them, which are counted under
/// `other` as well.
const OF_OTHERS: u64 = 16;
/// Limit of close series that belong to no single group.
const SHARED: u64 = 2 * Outcome::COUNT as u64;

/// A daemon with few groups, and closers under ever new names.
struct Siege {
    daemon: Daemon,
    /// Closes so far.
    closed: u64,
    /// Part of the names of their units.
    unit: String,
    /// Memory of the daemon and of its maps when the tables were full, bytes.
    full: Option<[u64; 2]>,
}

impl Siege {
    fn new(lingerd: &Path, plan: Plan, unit: &str, options: &[&str]) -> Result<Self> {
        let places = PLACES.to_string();
        let bound = ["--max-groups", &places];
        Ok(Self {
            daemon: Daemon::start(lingerd, plan, &[&bound[..], options].concat())?,
            closed: 0,
            unit: unit.to_owned(),
            full: None,
        })
    }

    /// Expects that all closes were counted, and that nothing grew beyond its bound.
    fn inspect(&mut self) -> Result<()> {
        let closed = self.closed;
        wait_until(&self.daemon, |scrape| {
            let all = self.closes(scrape);
            let right = closed..=closed + OF_OTHERS;
            ensure!(right.contains(&all), "{all} closes counted of {closed}");
            Ok(())
        })?;
        let scrape = self.daemon.scrape()?;
        ensure!(lost(&scrape, "close") == 0, "closes are lost");
        let groups = |metric| sum(&scrape, metric, |sample| sample.label("map") == "groups");
        let (entries, capacity) = (groups("linger_map_entries"), groups("linger_map_capacity"));
        ensure!(entries <= capacity, "{entries} groups, {capacity} fit");
        let series = scrape.of("linger_closes_total").count() as u64;
        let most = PLACES * Outcome::COUNT as u64 + SHARED;
        ensure!(series <= most, "{series} series of closes");
        self.expect_same_memory(&scrape)
    }

    /// Returns the closes of all closers together, under their own groups and under `other`.
    fn closes(&self, scrape: &Scrape) -> u64 {
        sum(scrape, "linger_closes_total", |sample| {
            let is_own = sample.label("unit").contains(&self.unit) || is_other(sample);
            is_own && sample.label("outcome") == "not_connected"
        })
    }

    fn expect_same_memory(&mut self, scrape: &Scrape) -> Result<()> {
        let resident = sum(scrape, "process_resident_memory_bytes", |_| true);
        let now = [resident, self.daemon.map_memory()?];
        let Some(full) = self.full else {
            let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id()))?;
            ensure!(status.contains(NO_HUGE_PAGES), "huge pages: {status}");
            self.full = Some([self.most_resident(resident)?, now[1]]);
            return Ok(());
        };
        for (now, full) in now.into_iter().zip(full) {
            ensure!(
                now <= full + GROWTH,
                "memory grew from {full} to {now} bytes"
            );
        }
        Ok(())
    }

    /// Returns the most memory of the daemon over some scrapes, bytes.
    fn most_resident(&self, first: u64) -> Result<u64> {
        (0..SCRAPES).try_fold(first, |most, _| {
            let scrape = self.daemon.scrape()?;
            Ok(most.max(sum(&scrape, "process_resident_memory_bytes", |_| true)))
        })
    }

    /// Prints a summary and stops the daemon.
    fn end(self, what: &str) -> Result<()> {
        let scrape = self.daemon.scrape()?;
        let homeless = lost(&scrape, "group");
        ensure!(
            homeless >= self.closed - PLACES,
            "only {homeless} of {} found no place",
            self.closed
        );
        println!(
            "{what}: {} came to {PLACES} places, {homeless} found none; memory of daemon and maps in \
             bytes, when full: {:?}, at the end: {} and {}",
            self.closed,
            self.full,
            sum(&scrape, "process_resident_memory_bytes", |_| true),
            self.daemon.map_memory()?,
        );
        self.daemon.stop()
    }
}

/// Closes in each half of a siege: more than there are groups.
fn half(settings: Settings) -> u64 {
    (settings.load / 100).max(PLACES * TIMES)
}

/// A process renames itself before each close.
fn names(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    netns::in_own(|| {
        let cgroup = Cgroup::new("names.service")?;
        let mut siege = Siege::new(lingerd, plan, cgroup.unit(), &[])?;
        let loopback = Loopback::new()?;
        for _ in 0..2 {
            let first = siege.closed;
            let names = first..first + half(settings);
            // The process must not allocate after the fork.
            let names: Vec<_> = names
                .map(|number| CString::new(format!("{:x}-{number}", process::id())))
                .collect::<Result<_, _>>()?;
            // SAFETY: it only makes system calls.
            unsafe {
                cgroup.bear("hostile", || {
                    nix::unistd::setgid(Gid::from_raw(NOBODY))?;
                    nix::unistd::setuid(Uid::from_raw(NOBODY))?;
                    names.iter().try_for_each(|name| {
                        nix::sys::prctl::set_name(name)?;
                        tcp::close(loopback.socket()?).map(drop)
                    })
                })
            }?;
            siege.closed += names.len() as u64;
            siege.inspect()?;
        }
        cgroup.remove()?;
        siege.end("names")
    })
}

/// Executables that have never run before, each of which closes a socket.
fn exes(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let mut siege = Siege::new(
        lingerd,
        plan,
        "",
        &["--labels", "exe", "--allow-comm", "closes"],
    )?;
    for _ in 0..2 {
        for _ in 0..half(settings).min(PLACES * TIMES) {
            let path = folder.path().join("closes");
            // Never reuses the inode of the last one, which still exists.
            let new = folder.path().join("new");
            write_program(&new)?;
            fs::rename(&new, &path)?;
            let status = Command::new(&path).uid(NOBODY).gid(NOBODY).status()?;
            ensure!(status.success(), "a closer ended: {status}");
            siege.closed += 1;
        }
        siege.inspect()?;
    }
    siege.end("executables")
}

/// A cgroup for each close, whose path is too long to be recorded.
fn cgroups(lingerd: &Path, plan: Plan, settings: Settings) -> Result<()> {
    const LONGEST: usize = 255;
    netns::in_own(|| {
        let mut siege = Siege::new(lingerd, plan, "long-", &[])?;
        let loopback = Loopback::new()?;
        let mut kept = Vec::new();
        for _ in 0..2 {
            for _ in 0..half(settings).min(PLACES * TIMES) {
                let name = format!("long-{}-", siege.closed);
                let cgroup = Cgroup::new(&format!("{name:x<LONGEST$}"))?;
                // SAFETY: it only makes system calls.
                unsafe { cgroup.bear("hostile", || tcp::close(loopback.socket()?).map(drop)) }?;
                kept.push(cgroup);
                siege.closed += 1;
            }
            siege.inspect()?;
        }
        kept.into_iter().try_for_each(Cgroup::remove)?;
        siege.end("cgroups")
    })
}

/// Writes a program of a few bytes that closes a new TCP socket.
fn write_program(path: &Path) -> io::Result<()> {
    /// `socket(AF_INET, SOCK_STREAM, 0)`, `close(it)`, `exit(0)`
    const CODE: &[u8] = &[
        0xbf, 2, 0, 0, 0, // mov edi, AF_INET
        0xbe, 1, 0, 0, 0, // mov esi, SOCK_STREAM
        0x31, 0xd2, // xor edx, edx
        0xb8, 41, 0, 0, 0, // mov eax, SYS_socket
        0x0f, 0x05, // syscall
        0x89, 0xc7, // mov edi, eax
        0xb8, 3, 0, 0, 0, // mov eax, SYS_close
        0x0f, 0x05, // syscall
        0x31, 0xff, // xor edi, edi
        0xb8, 60, 0, 0, 0, // mov eax, SYS_exit
        0x0f, 0x05, // syscall
    ];
    const BASE: u64 = 0x40_0000;
    /// Length of the ELF header and of the header of its only segment.
    const HEADERS: u64 = 64 + 56;
    let length = HEADERS + CODE.len() as u64;
    let mut file = fs::File::create(path)?;
    // 64 bits, little-endian, executable, x86-64.
    file.write_all(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0")?;
    for offset in [BASE + HEADERS, 64, 0] {
        file.write_all(&offset.to_le_bytes())?;
    }
    file.write_all(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0")?;
    // A segment that is loaded as a whole, readable and executable.
    file.write_all(b"\x01\0\0\0\x05\0\0\0")?;
    for number in [0, BASE, BASE, length, length, 0x1000] {
        file.write_all(&number.to_le_bytes())?;
    }
    file.write_all(CODE)?;
    file.set_permissions(Permissions::from_mode(0o755))
}
