//! Writes what comes with the command: manual pages, and completions for shells.
//!
//! `pages FOLDER` makes `FOLDER/man` and `FOLDER/completions`. It is not part of the daemon, which
//! so has nothing of it in its binary.

mod settings;

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};
use linger_daemon::cli::Cli;

fn main() -> io::Result<ExitCode> {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("usage: pages FOLDER");
        return Ok(ExitCode::FAILURE);
    };
    let folder = Path::new(&folder);
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), &man)?;
    let settings = settings::page(include_str!("../../packaging/lingerd.toml"));
    fs::write(man.join("lingerd.toml.5"), settings)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "lingerd", &completions)?;
    }
    Ok(ExitCode::SUCCESS)
}
