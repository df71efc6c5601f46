//! Selects the pairs of scenario and plan to run, and checks that the selection is as expected.

use std::time::Instant;

use anyhow::Result;
use linger_ebpf::Plan;

use crate::common::check::Check;
use crate::common::expected::{Environment, Expected};
use crate::common::summary::{NotRun, Pair, Summary, Verdict};
use crate::daemon;
use crate::needs::{Need, Unmet};
use crate::options::{Options, Scope};
use crate::run::{PROPERTIES, Run};
use crate::scenario::{self, Depends, Scenario, Script};
use crate::service::Slice;
use crate::sight::{self, Sight};

/// A scenario and its number among all.
type Numbered = (usize, Scenario);

/// What a plan proves that is refused for the reason that is written down.
const REFUSAL: &str = "refused as stated";

/// Runs every selected pair.
pub(crate) fn run(options: &Options) -> Result<Summary> {
    let expected = Expected::read()?;
    let named = options.environment.as_deref();
    let environment = named.map(|name| expected.environment(name)).transpose()?;
    let mut summary = Summary::new(environment.clone());
    let all = scenario::all();
    if environment.is_some() {
        let scenarios = all.iter().map(|scenario| scenario.name);
        let needs = Need::ALL.map(Need::name);
        report_differences(
            options,
            &mut summary,
            expected.differences(scenarios, &needs),
        );
    }
    let selected = options.select(all)?;
    let check = Check::run(&options.lingerd, options.plan)?;
    println!(
        "kernel {}, {} scenarios, scope {}, seed {}",
        check.kernel,
        selected.len(),
        options.scope.name(),
        options.seed
    );
    // Kept until everything is read, as a removed cgroup has no name. Without cgroup v2 none is made.
    let _slice = Slice::of_run(std::process::id()).ok();
    let offered = offered(&check, environment.as_ref());
    for &plan in Plan::ALL {
        if options.plan.is_some_and(|wanted| wanted != plan) {
            continue;
        }
        let pairs = pairs(&selected, plan, &offered, options);
        let known = environment.as_ref();
        match check.refused(plan) {
            Some(reason) => {
                let verdict = Verdict::of_refused(plan, &reason, known);
                if known.is_some() && !verdict.has_failed() {
                    summary.add(Pair::new(REFUSAL, plan, Verdict::Passed));
                }
                add_all(&mut summary, &pairs, plan, &verdict);
            }
            None if known.is_some_and(|known| !known.offers(plan.name())) => {
                let failed =
                    "tests/expected.toml says that this plan is refused, and it is offered";
                add_all(&mut summary, &pairs, plan, &Verdict::Failed(failed.into()));
            }
            None => {
                let sight = Sight::new(plan, &check.kernel);
                let pairs = able(pairs, plan, known, &mut summary);
                run_pairs(options, sight, &pairs, &mut summary);
            }
        }
    }
    Ok(summary)
}

/// Adds the differences from `tests/expected.toml`, as failures of the first plan.
fn report_differences(options: &Options, summary: &mut Summary, differences: Vec<String>) {
    let plan = options.plan.unwrap_or(Plan::ALL[0]);
    for difference in differences {
        let verdict = Verdict::Failed(difference);
        summary.add_as_it_is(Pair::new("what is written down", plan, verdict));
    }
}

/// Returns the plans that should be offered here: those of the environment, otherwise those that are usable.
fn offered(check: &Check, environment: Option<&Environment>) -> Vec<Plan> {
    let offers = |plan: &Plan| match environment {
        Some(environment) => environment.offers(plan.name()),
        None => check.refused(*plan).is_none(),
    };
    Plan::ALL.iter().copied().filter(offers).collect()
}

/// Returns the selected scenarios that run under a plan.
fn pairs(selected: &[Numbered], plan: Plan, offered: &[Plan], options: &Options) -> Vec<Numbered> {
    let label = options.environment.as_deref().unwrap_or_default();
    // Start at another plan on each machine, so that together they cover all plans.
    let start: usize = label.bytes().map(usize::from).sum();
    let falls_to = |number: usize| match offered {
        [] => None,
        _ => offered.get((start + number) % offered.len()).copied(),
    };
    let is_run = |(number, scenario): &&Numbered| match (options.scope, scenario.depends) {
        (Scope::Full, _)
        | (_, Depends::KernelAndPlan)
        | (Scope::Standard | Scope::Plan, Depends::Plan) => true,
        (Scope::Standard, Depends::Neither) => falls_to(*number) == Some(plan),
        (Scope::Plan, Depends::Neither) | (Scope::Kernel, _) => false,
    };
    selected.iter().filter(is_run).copied().collect()
}

/// Adds the same verdict for pairs of a plan of which none runs.
fn add_all(summary: &mut Summary, pairs: &[Numbered], plan: Plan, verdict: &Verdict) {
    for (_, scenario) in pairs {
        summary.add_as_it_is(Pair::new(scenario.name, plan, verdict.clone()));
    }
}

/// Returns the pairs that can run here. The unmet needs must be exactly those that the environment lists.
fn able(
    pairs: Vec<Numbered>,
    plan: Plan,
    environment: Option<&Environment>,
    summary: &mut Summary,
) -> Vec<Numbered> {
    let lacks =
        |need: &Need| environment.is_some_and(|known| known.lacks.contains_key(need.name()));
    let mut able = Vec::new();
    for (number, scenario) in pairs {
        let missed = scenario.needs.iter().find(|need| lacks(need));
        let verdict = match (scenario.unmet(), missed) {
            (Some(unmet), _) => unable(&unmet, environment),
            (None, Some(need)) => Verdict::Failed(format!(
                "tests/expected.toml says that {} is not here, and it is",
                need.name()
            )),
            (None, None) => {
                able.push((number, scenario));
                continue;
            }
        };
        summary.add_as_it_is(Pair::new(scenario.name, plan, verdict));
    }
    able
}

/// Returns the verdict on a pair with an unmet need.
fn unable(unmet: &Unmet, environment: Option<&Environment>) -> Verdict {
    let stated = environment.map(|known| known.lacks.get(unmet.need.name()));
    match stated {
        Some(None) => Verdict::Failed(format!(
            "{unmet}, of which tests/expected.toml says nothing"
        )),
        Some(Some(why)) => Verdict::NotRun(NotRun::for_need(&format!("{unmet}: {why}"))),
        None => Verdict::NotRun(NotRun::for_need(unmet)),
    }
}

/// Runs scenarios under a plan: most share a daemon, some have their own.
fn run_pairs(options: &Options, sight: Sight, pairs: &[Numbered], summary: &mut Summary) {
    let (shared, own): (Vec<_>, Vec<_>) = pairs
        .iter()
        .copied()
        .partition(|(_, scenario)| scenario.shares_daemon());
    if !shared.is_empty() {
        let run = Run::start(options, sight, &[], summary).and_then(|run| run.all(&shared));
        if let Err(error) = run {
            // Then none of them proves anything.
            let verdict = Verdict::from(Err(error));
            for name in PROPERTIES {
                summary.add_as_it_is(Pair::new(name, sight.plan, verdict.clone()));
            }
        }
    }
    for (number, scenario) in own {
        let pair = with_another_try(|attempt| run_own(options, sight, number, &scenario, attempt));
        summary.add(pair);
    }
}

/// Runs a scenario with its own daemon.
fn run_own(
    options: &Options,
    sight: Sight,
    number: usize,
    scenario: &Scenario,
    attempt: u32,
) -> Pair {
    // That of the daemons before.
    daemon::take_evidence();
    let pair = perform_own(options, sight, number, scenario, attempt);
    pair.showing(daemon::take_evidence())
}

fn perform_own(
    options: &Options,
    sight: Sight,
    number: usize,
    scenario: &Scenario,
    attempt: u32,
) -> Pair {
    let start = Instant::now();
    let (lingerd, plan) = (options.lingerd.as_path(), sight.plan);
    let result = match scenario.script {
        Script::Daemon(script) => script(lingerd, plan),
        Script::BulkDaemon(script) => script(lingerd, plan, options.settings()),
        Script::Under(daemon_options, _) => {
            // Its pairs do not belong to a shared daemon.
            let mut own = Summary::default();
            match Run::start(options, sight, daemon_options, &mut own) {
                Ok(run) => return run.only(number, scenario, attempt),
                Err(error) => Err(error),
            }
        }
        _ => Err(anyhow::anyhow!("it shares a daemon")),
    };
    Pair::new(scenario.name, plan, Verdict::from(result))
        .forgiving(sight::take_forgiven())
        .taking(start.elapsed())
}

/// Runs a scenario, and again if a wait timed out. A wrong count is never retried.
pub(crate) fn with_another_try(run: impl Fn(u32) -> Pair) -> Pair {
    let pair = run(0);
    if !pair.waited_in_vain() {
        return pair;
    }
    println!("{pair}; once more");
    run(1).at_another_try()
}
