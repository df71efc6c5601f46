//! A daemon says that it is not ready for as long as it attaches.

use std::path::Path;

use anyhow::{Result, ensure};
use linger_ebpf::Plan;

use crate::daemon::Daemon;
use crate::scenario::{Scenario, Script};

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::new("not_ready_until_attached", Script::Daemon(not_ready)).once()];

fn not_ready(lingerd: &Path, plan: Plan) -> Result<()> {
    let daemon = Daemon::start(lingerd, plan, &[])?;
    ensure!(
        daemon.was_not_ready(),
        "no answer came before it was attached"
    );
    daemon.stop()
}
