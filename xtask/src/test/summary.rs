//! The summary of all steps, for people.

use std::collections::BTreeMap;
use std::time::Duration;

use super::step::{Done, Findings};
use crate::tally::{Scenarios, Tally};

/// Prints the result of each step, and the totals; returns whether all steps that were done passed.
pub(super) fn print(done: &[Done], not_begun: &[&str], time: Duration) -> bool {
    let names = done.iter().map(|step| step.name.as_str());
    let width = names.chain(not_begun.iter().copied()).map(str::len).max();
    let width = width.unwrap_or(0);
    println!("\n=== summary, after {:.0} s", time.as_secs_f64());
    let mut total = Tally::default();
    for step in done {
        total += step.tally();
        println!(
            "{:width$}  {:6}  {:7.1} s  {}",
            step.name,
            step.verdict(),
            step.time.as_secs_f64(),
            step.tally()
        );
    }
    for name in not_begun {
        println!("{name:width$}  not begun, because of the failure above");
    }
    for step in done {
        match &step.findings {
            Ok(Findings::Scenarios(scenarios)) => describe(&step.name, scenarios),
            Ok(Findings::Counted(_)) => {}
            Err(why) => println!("\n{} broke:\n  {}", step.name, why.replace('\n', "\n  ")),
        }
    }
    let passed = done.iter().all(Done::passed);
    // A step that ran no test failed without counting a failure.
    let total = total.with_exit(passed);
    println!("\n{total}");
    passed
}

/// Prints how many pairs of scenario and plan were run, and which failed or were not run.
pub fn describe(name: &str, scenarios: &Scenarios) {
    println!(
        "\n{name}: {} pairs of scenario and plan passed, {} failed; {} known to fail did, {} did not run as stated, {} were flaky",
        scenarios.passed,
        scenarios.failed,
        scenarios.known_failures,
        scenarios.not_run,
        scenarios.flaky,
    );
    if scenarios.forgiven > 0 {
        println!("  forgiven: {} that this host hides", scenarios.forgiven);
    }
    if scenarios.booted_in_vain > 0 {
        println!(
            "  flaky: the machine did not come up, {} times",
            scenarios.booted_in_vain
        );
    }
    for pair in scenarios.with_result("failed") {
        println!(
            "  failed: {} × {}: {}",
            pair.scenario, pair.plan, pair.detail
        );
    }
    for pair in scenarios.pairs.iter().filter(|pair| pair.flaky) {
        println!("  flaky: {} × {}", pair.scenario, pair.plan);
    }
    for result in ["known failure", "not run"] {
        for ((plan, reason), names) in by_reason(scenarios, result) {
            let names = match names.as_slice() {
                few @ ([_] | [_, _] | [_, _, _]) => few.join(", "),
                many => format!("{} scenarios", many.len()),
            };
            println!("  {result}: {names} × {plan}: {reason}");
        }
    }
}

/// Groups the scenarios with this result by plan and reason: usually all of a plan share one reason.
fn by_reason<'a>(
    scenarios: &'a Scenarios,
    result: &str,
) -> BTreeMap<(&'a str, &'a str), Vec<&'a str>> {
    let mut all = BTreeMap::new();
    for pair in scenarios.with_result(result) {
        let same: &mut Vec<_> = all.entry((&*pair.plan, &*pair.detail)).or_default();
        same.push(&*pair.scenario);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::step::tests::done;
    use super::*;

    #[test]
    fn one_failure_fails_the_whole() {
        let passed = || done(Some(Findings::Counted(Tally::PASSED)));
        assert!(print(&[passed(), passed()], &[], Duration::ZERO));
        assert!(!print(&[passed(), done(None)], &["y"], Duration::ZERO));
    }
}
