//! `lingerd`: parses the arguments and runs the command.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use linger_daemon::cli::{Cli, Command, ConfigCommand, Exercise, Settings};
use linger_daemon::config::{self, Invalid};
use linger_daemon::http::Security;
use linger_daemon::logging::Log;
use linger_daemon::probe::Pins;
use linger_daemon::{check, exercise, run, stdout, top, watch};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            // Each line of a configuration error begins with its location and needs no prefix.
            if error.is::<Invalid>() {
                stdout::print_message(&error.to_string());
            } else {
                stdout::print_message(&format!("lingerd: {error:#}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Run(settings) => {
            let sources = cli.sources(settings);
            let config = config::load(&sources)?.config;
            let log = Log::init(&config.log_level)?;
            run::run(config, sources, log)?;
        }
        Command::Check(options) => {
            cli.log()?;
            return check::check(options.plan.plan(), options.json);
        }
        Command::Watch(options) => {
            cli.log()?;
            let pins = config::pins(&cli.sources(&options.pins.settings()))?;
            watch::watch(&options.options, &pins)?;
        }
        Command::Config(ConfigCommand::Check(settings)) => {
            let sources = cli.sources(settings);
            stdout::print(&config::check(&sources)?)?;
            if let Some(file) = config::load(&sources)?.config.web_config_file {
                Security::load(&file)?;
                stdout::print(&format!("{}: ok\n", file.display()))?;
            }
        }
        Command::Config(ConfigCommand::Show { settings, json }) => {
            let effective = config::load(&cli.sources(settings))?;
            if *json {
                stdout::print_json(&effective.settings())?;
            } else {
                stdout::print(&config::table(&effective))?;
            }
        }
        Command::Unload(pins) => {
            cli.log()?;
            unload(&config::pins(&cli.sources(&pins.settings()))?)?;
        }
        Command::Top(options) => {
            let settings = Settings {
                config: options.config.clone(),
                ..Settings::default()
            };
            let config = config::load(&cli.sources(&settings))?.config;
            top::top(options, &config)?;
        }
        Command::Exercise(options) => {
            cli.log()?;
            return exercise(options);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Detaches and removes the pinned programs, and prints whether there were any.
fn unload(pins: &Path) -> Result<()> {
    let folder = pins.display();
    if let Some(pins) = Pins::existing(pins)? {
        pins.unload()?;
        stdout::print(&format!("{folder}: detached and removed\n"))?;
    } else {
        stdout::print(&format!("{folder}: nothing is there\n"))?;
    }
    Ok(())
}

/// Makes closes and prints a report; exits with 1 if none could be made.
fn exercise(options: &Exercise) -> Result<ExitCode> {
    let terminal = std::io::stderr().is_terminal();
    let report = exercise::run(&options.request, |done| {
        if terminal {
            eprint!("\r{:<24}", done.kind);
        }
    });
    if terminal {
        eprint!("\r{:<24}\r", "");
    }
    if options.json {
        stdout::print_json(&report)?;
    } else {
        stdout::print(&exercise::table(&report))?;
    }
    let made = report.iter().any(|done| done.times > 0);
    Ok(ExitCode::from(u8::from(!made)))
}
