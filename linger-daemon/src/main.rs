//! `lingerd`: arguments to command.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use linger_daemon::cli::{Cli, Command, Exercise};
use linger_daemon::{check, exercise, logging, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lingerd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    logging::init(cli.log_level)?;
    match &cli.command {
        Command::Run(options) => run::run(options).map(|()| ExitCode::SUCCESS),
        Command::Check(options) => check::check(options),
        Command::Exercise(options) => exercise(options),
    }
}

/// Makes closes and says what they were; fails if nothing that was asked for by name was made.
fn exercise(options: &Exercise) -> Result<ExitCode> {
    let terminal = std::io::stderr().is_terminal();
    let report = exercise::run(&options.request(), |done| {
        if terminal {
            eprint!("\r{:<24}", done.kind.name());
        }
    });
    if terminal {
        eprint!("\r{:<24}\r", "");
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", exercise::table(&report));
    }
    let made = report.iter().any(|done| done.times > 0);
    Ok(if made {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
