//! The page in a real browser, with a ledger of known counts. A scenario tests it with a real daemon.

#[path = "../common/browser.rs"]
mod browser;
#[path = "../web/fixture.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoints")]
mod fixture;
mod looks;
#[path = "../web/server.rs"]
#[expect(dead_code, reason = "shared with the tests of the endpoints")]
mod server;
mod shown;

use std::env;
use std::process::ExitCode;

use anyhow::Result;

use crate::browser::{Browser, MISSING};

/// A test: its name and its function.
type Test = (&'static str, fn(&mut Browser) -> Result<()>);

/// Runs the tests whose names contain the first argument, and sums up as cargo's own harness does. Without a browser,
/// none runs.
fn main() -> Result<ExitCode> {
    let mut names = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let filter = names.next().unwrap_or_default();
    let tests: Vec<Test> = [shown::TESTS, looks::TESTS].concat();
    let tests: Vec<Test> = tests
        .into_iter()
        .filter(|(name, _)| name.contains(&filter))
        .collect();
    if env::args().any(|argument| argument == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (mut passed, mut failed, mut ignored) = (0, 0, 0);
    let mut browser = Browser::start()?;
    for (name, test) in tests {
        let verdict = match browser.as_mut().map(test) {
            None => {
                ignored += 1;
                format!("ignored, {MISSING}")
            }
            Some(Ok(())) => {
                passed += 1;
                "ok".to_owned()
            }
            Some(Err(error)) => {
                failed += 1;
                format!("FAILED: {error:#}")
            }
        };
        println!("test {name} ... {verdict}");
    }
    let word = if failed > 0 { "FAILED" } else { "ok" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out"
    );
    Ok(if failed > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
