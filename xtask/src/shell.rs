//! Running other programs, and showing that it does.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};

/// The folder of the workspace.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Where `setup` puts the programs that it makes or unpacks; the build looks here too.
pub fn tools() -> PathBuf {
    root().join("target/tools/bin")
}

/// A command that runs in the workspace's folder and reads nothing from the terminal.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this program.
///
/// Without what it tells this program of its package: build scripts would see that, and be run again for every
/// build by hand in between.
pub fn cargo() -> Command {
    cargo_by(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program that runs cargo, with the environment of [`cargo`].
pub(crate) fn cargo_by(program: impl AsRef<OsStr>) -> Command {
    const OF_PACKAGES: [&str; 4] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
    ];
    let mut cargo = command(program);
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if OF_PACKAGES.iter().any(|start| told.starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// How a program ends of which this came: whether all was well, or an error, which is shown.
pub fn exit_code(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Shows the command and runs it to its end.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    run_unseen(command)
}

/// Runs the command to its end.
pub fn run_unseen(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command
        .status()
        .with_context(|| format!("start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// What the command prints; it is not shown.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of `{line}`"))
}

/// Shows the command, runs it, and hands on each line it prints, as it comes.
///
/// Whether it succeeded, which is for the caller to judge along with the lines.
pub fn each_line(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    let line = line(command);
    println!("$ {line}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start `{line}`"))?;
    let stdout = child.stdout.take().context("the output is a pipe")?;
    for bytes in BufReader::new(stdout).split(b'\n') {
        see(String::from_utf8_lossy(&bytes?).trim_end_matches('\r'));
    }
    Ok(child.wait()?.success())
}

/// Where a program is on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // Where administration programs are, also without root's path.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A tool that was put into the folder of tools, or else is on the path.
pub fn tool(name: &str) -> Option<PathBuf> {
    Some(tools().join(name))
        .filter(|file| file.is_file())
        .or_else(|| find(name))
}

/// Whether a program starts and knows its own version.
pub fn works(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
