//! Runs other programs, and shows their command lines.

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

/// The folder where `setup` links the tools it builds or unpacks, and where the build looks for them.
pub fn tools() -> PathBuf {
    root().join("target/tools/bin")
}

/// Returns a command that runs in the workspace's folder and reads nothing from the terminal.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Returns the cargo that runs this program.
///
/// Removes the variables that cargo sets for this program's package: build scripts would see them, and run again after
/// every build by hand.
pub fn cargo() -> Command {
    cargo_by(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Returns a program that runs cargo, with the environment of [`cargo`].
pub(crate) fn cargo_by(program: impl AsRef<OsStr>) -> Command {
    const PACKAGE_VARIABLES: [&str; 4] = [
        "CARGO_PKG_",
        "CARGO_MANIFEST_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
    ];
    let mut cargo = command(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if PACKAGE_VARIABLES
            .iter()
            .any(|start| text.starts_with(start))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Returns the command that builds and runs the laboratory.
pub fn lab() -> Command {
    let mut lab = cargo();
    lab.args(["run", "--quiet", "--package", "linger-lab", "--"]);
    lab
}

/// Returns the exit code for a result: success for `Ok(true)`, else failure; prints the error if there is one.
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

/// Returns the command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Prints the command, and runs it to its end.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", line(command));
    run_unseen(command)
}

/// Runs the command to its end without printing it.
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

/// Runs the command without printing it, and returns its output.
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

/// Prints the command, runs it, and passes each line of its output to `see` as it arrives.
///
/// Returns whether it succeeded, for the caller to judge along with the lines.
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

/// Finds a program on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        // The path of an ordinary user may lack the folders of administration programs.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// Finds a tool in the folder of [`tools`], or else on the path.
pub fn tool(name: &str) -> Option<PathBuf> {
    Some(tools().join(name))
        .filter(|file| file.is_file())
        .or_else(|| find(name))
}

/// Returns whether a program runs, by asking for its version.
pub fn works(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
