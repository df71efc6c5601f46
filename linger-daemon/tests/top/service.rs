//! Programs in their own units, which make closes.

use std::fs;
use std::path::PathBuf;
use std::process::{self, Command};

use linger_daemon::attribution;
use serde_json::Value;

use crate::LINGERD;

/// A cgroup with the name of a service, removed when dropped.
pub(crate) struct Service {
    pub(crate) unit: String,
    folder: PathBuf,
}

impl Service {
    /// Creates one whose name is unique to this process.
    pub(crate) fn new(name: &str) -> Self {
        let unit = format!("t{}-{name}.service", process::id());
        let folder = attribution::cgroup_root().unwrap().join(&unit);
        fs::create_dir(&folder).unwrap();
        Self { unit, folder }
    }

    /// Makes `count` closes of this kind there, which abort. Returns the payload that they discard, bytes.
    pub(crate) fn close(&self, kind: &str, count: u32) -> u64 {
        let script = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(&self.folder)
            .args([LINGERD, "exercise", "--json", "--kind", kind, "--count"])
            .arg(count.to_string())
            .env_remove("LINGER_LOG")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let aborted = &made[0]["tally"]["closes"]["linger_aborted"];
        ["unsent", "unacked"]
            .map(|queue| aborted[queue].as_u64().unwrap())
            .iter()
            .sum()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
