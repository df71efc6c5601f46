//! Processes with arbitrary names, and how the label shows them.

use std::ffi::CStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use linger_daemon::exercise::tcp::{self, Loopback};
use linger_ebpf::Plan;

use crate::born::Cgroup;
use crate::closes::{self, Closes};
use crate::daemon::Daemon;
use crate::netns;
use crate::scenario::Scenario;
use crate::service;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::daemon("process_names", names).once()];

/// Names, and how the label shows them: at most 15 bytes, with invalid UTF-8 as U+FFFD.
const NAMES: &[(&CStr, &str)] = &[
    (c"", ""),
    (c" ", " "),
    (c"\"", "\""),
    (c"a\"} 1\nb{c=\"", "a\"} 1\nb{c=\""),
    (c"back\\slash\\", "back\\slash\\"),
    (c"\\n", "\\n"),
    (c"new\nline", "new\nline"),
    (c"carriage\rreturn", "carriage\rreturn"),
    (c"\x01\x1b[31m\x7f", "\x01\x1b[31m\x7f"),
    (c"\xff\xfe\x80", "\u{fffd}\u{fffd}\u{fffd}"),
    (c"\xc3(", "\u{fffd}("),
    (c"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
    // The kernel cuts this in the middle of the emoji.
    (c"thirteenbytes\xf0\x9f\xa6\x80", "thirteenbytes\u{fffd}"),
    (c"\xf0\x9f\xa6\x80", "\u{1f980}"),
    (c"# HELP x y", "# HELP x y"),
    (c"other", "other"),
    (c"retired", "retired"),
];

fn names(lingerd: &Path, plan: Plan) -> Result<()> {
    netns::in_own(|| {
        let daemon = Daemon::start(lingerd, plan, &[])?;
        let cgroup = Cgroup::new("names.service")?;
        let loopback = Loopback::new()?;
        let mut expected = Closes::new();
        for (number, (name, shown)) in (1..).zip(NAMES) {
            let close = || (0..number).try_for_each(|_| tcp::close(loopback.socket()?).map(drop));
            // SAFETY: it only makes system calls.
            unsafe { cgroup.bear(name.to_bytes(), close) }?;
            *expected.entry(vec![(*shown).to_owned()]).or_default() += number;
        }
        closes::expect(&daemon, &expected, |scrape| {
            closes::closes(scrape, &["comm"], |sample| {
                sample.label("unit") == cgroup.unit()
            })
        })?;
        expect_promtool_to_accept(&daemon.exposition()?)?;
        cgroup.remove()?;
        daemon.stop()
    })
}

/// Expects promtool to accept the metrics without a remark, where it is installed.
fn expect_promtool_to_accept(text: &str) -> Result<()> {
    let Ok(promtool) = service::find("promtool") else {
        println!("process_names: there is no promtool to ask");
        return Ok(());
    };
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    ensure!(
        output.status.success() && said.is_empty(),
        "promtool says: {said}"
    );
    Ok(())
}
