//! The settings as flags: text, which the configuration reads like the values of its file.
#![expect(
    clippy::doc_markdown,
    reason = "these comments are help for a terminal"
)]

use std::env;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use toml::{Table, Value};

use super::Cli;
use crate::config::{self, Sources};
use crate::logging::{self, Log};

/// All settings, under the names of their keys; each wins over the same key of the file.
#[derive(Clone, Debug, Default, clap::Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// The configuration file, which must exist [default: /etc/linger/lingerd.toml, if it exists]
    ///
    /// Every flag below is also a key of the file, and overrides it. SIGHUP reads the file again.
    #[arg(long, value_name = "PATH", help_heading = "Configuration")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Where to serve the metrics: 127.0.0.1:10546, 0.0.0.0:10546, unix:/run/lingerd/lingerd.sock
    /// [default: 127.0.0.1:10546]
    ///
    /// Separate several addresses by commas, or repeat the flag. A Unix socket is open to the user and the
    /// group of lingerd (mode 0660); one left by a dead lingerd is replaced. Sockets that systemd opened
    /// (through a lingerd.socket unit) replace all of these.
    #[arg(long, value_name = "ADDRESSES", help_heading = "Serving")]
    pub listen: Vec<String>,
    /// The file that says who may read the metrics: TLS, certificates, passwords
    ///
    /// In the format of Prometheus and its exporters: tls_server_config, http_server_config and
    /// basic_auth_users. Without it everyone who can connect may read the metrics, without TLS. It is
    /// read again when it, or a file that it names, changes.
    #[arg(
        long = "web.config.file",
        value_name = "PATH",
        help_heading = "Serving"
    )]
    pub web_config_file: Option<String>,
    /// Who may see the page's figures, which include processes and addresses: true, false or loopback
    /// [default: loopback]
    ///
    /// loopback: clients on this host, and clients that authenticate with --web.config.file. `lingerd top`
    /// reads the same figures.
    #[arg(long, value_name = "WHO", help_heading = "Serving")]
    pub live: Option<String>,

    /// The hooks to use: auto, fentry, kprobe or tracepoint [default: auto]
    ///
    /// auto picks the first of the three that attaches. `lingerd check` reports which ones do, and what
    /// each cannot see.
    #[arg(long, value_name = "PLAN", help_heading = "Counting")]
    pub plan: Option<String>,
    /// Keep counting while no lingerd runs, and let the next one take over the counts [default: false]
    ///
    /// Programs and counts are pinned in a BPF file system, so a restart, a crash or an upgrade loses no
    /// close. They stay until the host reboots, or until `lingerd unload`.
    #[arg(
        long,
        value_name = "TRUE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        help_heading = "Counting"
    )]
    pub persist: Option<String>,
    /// The directory to pin them in, in a BPF file system [default: /sys/fs/bpf/lingerd]
    #[arg(long, value_name = "PATH", help_heading = "Counting")]
    pub pins: Option<String>,
    /// The labels of the metrics: unit, slice, container, pod, comm, exe, port, family [default: unit,comm]
    ///
    /// Every combination that occurs is counted as a group of its own. An empty list (--labels=) makes the
    /// whole host one group.
    #[arg(long, value_name = "LABELS", help_heading = "Counting")]
    pub labels: Vec<String>,
    /// Local ports of accepted connections that the label port distinguishes, as in 443,8000-8099
    ///
    /// The label is empty for all others. Required if port is among the labels, and rejected otherwise.
    #[arg(long, value_name = "PORTS", help_heading = "Counting")]
    pub ports: Vec<String>,
    /// Maximum number of groups to count, 1 to 65536 [default: 4096]
    ///
    /// Closes of any further group are counted under other.
    #[arg(long, value_name = "NUMBER", help_heading = "Counting")]
    pub max_groups: Option<String>,
    /// Maximum number of series in the metrics, at least 1000 [default: 100000]
    #[arg(long, value_name = "NUMBER", help_heading = "Counting")]
    pub max_series: Option<String>,
    /// How long after its last change to retire a group whose cgroup is gone, at least 1s [default: 15m]
    #[arg(long, value_name = "TIME", help_heading = "Counting")]
    pub retire_after: Option<String>,

    /// Maximum number of orphans (closed sockets with data left) to follow [default: 65536]
    ///
    /// Each takes 192 bytes of kernel memory while it lives. Those that do not fit are counted in
    /// linger_lost_total{what="orphan"} and linger_lost_orphan_bytes_total.
    #[arg(long, value_name = "NUMBER", help_heading = "Orphans")]
    pub max_orphans: Option<String>,
    /// How long to follow an orphan before its fate counts as unknown, at least 1s [default: 30m]
    ///
    /// At the kernel's defaults (tcp_orphan_retries) none lives longer than about 20 minutes.
    #[arg(long, value_name = "TIME", help_heading = "Orphans")]
    pub orphan_ttl: Option<String>,

    /// Units that get groups of their own, as in nginx.service,app-*.service,/docker/*
    ///
    /// A close gets a group of its own only if every non-empty allow list contains it, and no deny list
    /// does. Everything else is counted under other, so sums over the host stay exact. In a pattern for
    /// the label unit * matches any text, and ? one character. These flags may be repeated; each
    /// replaces the list of the file.
    #[arg(long, value_name = "PATTERNS", help_heading = "Groups of their own")]
    #[serde(rename = "allow.units")]
    pub allow_unit: Vec<String>,
    /// Names of processes that get groups of their own
    #[arg(long, value_name = "NAMES", help_heading = "Groups of their own")]
    #[serde(rename = "allow.comms")]
    pub allow_comm: Vec<String>,
    /// Local ports of accepted connections that get groups of their own, as in 443,8000-8099
    #[arg(long, value_name = "PORTS", help_heading = "Groups of their own")]
    #[serde(rename = "allow.ports")]
    pub allow_port: Vec<String>,
    /// Units that get no groups of their own
    #[arg(long, value_name = "PATTERNS", help_heading = "Groups of their own")]
    #[serde(rename = "deny.units")]
    pub deny_unit: Vec<String>,
    /// Names of processes that get no groups of their own
    #[arg(long, value_name = "NAMES", help_heading = "Groups of their own")]
    #[serde(rename = "deny.comms")]
    pub deny_comm: Vec<String>,
    /// Local ports that get no groups of their own
    #[arg(long, value_name = "PORTS", help_heading = "Groups of their own")]
    #[serde(rename = "deny.ports")]
    pub deny_port: Vec<String>,
}

impl Cli {
    /// Returns the sources of a command's settings.
    #[must_use]
    #[expect(
        clippy::missing_panics_doc,
        reason = "text and lists of text always serialize"
    )]
    pub fn sources(&self, settings: &Settings) -> Sources {
        let mut flags = Table::try_from(settings).expect("text and lists of text");
        flags.retain(|_, value| value.as_array().is_none_or(|words| !words.is_empty()));
        let level = self.log_level.as_deref();
        flags.extend(level.map(|level| ("log-level".to_owned(), Value::from(level))));
        Sources {
            file: settings.config.clone(),
            flags,
            environment: env::var_os(logging::ENVIRONMENT),
        }
    }

    /// Sets up the log by the flag and the environment, for commands that do not take its filter from the file.
    pub fn log(&self) -> Result<Log> {
        let filter = config::log_level(&self.sources(&Settings::default()))?;
        Ok(Log::init(&filter)?)
    }
}
