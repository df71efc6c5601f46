//! A plan is refused if one of its hooks is never reached, such as a function that is inlined.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use linger_daemon::probe::{Hook, LoadOptions, Loader, Point};
use linger_ebpf::Plan;

use crate::scenario::Scenario;

pub(crate) const SCENARIOS: &[Scenario] =
    &[Scenario::daemon("plan_unless_all_is_reached", refused).by_plan_only()];

/// Returns a hook of the plan at a point of the kernel that is not reached while the scenario runs.
const fn moved(plan: Plan) -> Hook {
    let (program, point) = match plan {
        Plan::Fentry => ("fexit_check_oom", Point::Fexit("kernel_power_off")),
        Plan::Kprobe => ("kprobe_inner_close", Point::Kprobe("kernel_power_off")),
        Plan::Tracepoint => ("destroy_sock", Point::BtfTracepoint("cpuhp_enter")),
    };
    Hook { program, point }
}

fn refused(_: &Path, plan: Plan) -> Result<()> {
    let loader = Loader::new(LoadOptions::default())?;
    let mut hooks = loader.hooks(plan);
    hooks.truncate(4);
    loader.check_reached(plan, &hooks)?;
    let moved = moved(plan);
    hooks.push(moved);
    let Err(error) = loader.check_reached(plan, &hooks) else {
        bail!("{} counts as reached", moved.point);
    };
    ensure!(error.point == moved.point.to_string(), "{error}");
    let reason = error.why.detail().split(';').next().context("a reason")?;
    ensure!(reason == "connections end without it", "{error}");
    Ok(())
}
