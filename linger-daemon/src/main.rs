//! `lingerd`: arguments to command.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use linger_daemon::cli::{Cli, Command};
use linger_daemon::{check, logging, run};

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
    }
}
