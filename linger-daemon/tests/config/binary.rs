//! `lingerd config`, as its users see it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::fixture::Dir;

fn lingerd(command: &str, file: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lingerd"))
        .args(["config", command, "--config"])
        .arg(file)
        .args(arguments)
        .env_remove("LINGER_LOG")
        .output()
        .unwrap()
}

/// Returns exit code, standard output and standard error.
fn result(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn check_says_ok_of_a_good_file() {
    let file = Dir::with("max-groups = 5");
    let path = file.file();
    let expected = format!("{}: ok\n", path.display());
    assert_eq!(
        result(&lingerd("check", &path, &["--max-series", "1000"])),
        (Some(0), expected, String::new())
    );
}

#[test]
fn check_looks_into_the_web_configuration_too() {
    let web = Dir::with("basic_auth_users: {}\n");
    let file = Dir::with(format!("web-config-file = {:?}", web.file()));
    let ok = format!(
        "{}: ok\n{}: ok\n",
        file.file().display(),
        web.file().display()
    );
    let output = lingerd("check", &file.file(), &[]);
    assert_eq!(result(&output), (Some(0), ok, String::new()));
    fs::write(web.file(), "basic_auth: {}\n").unwrap();
    let (code, _, errors) = result(&lingerd("check", &file.file(), &[]));
    let wrong = format!(
        "lingerd: {}: invalid web configuration: ",
        web.file().display()
    );
    assert!(errors.starts_with(&wrong), "{errors}");
    assert_eq!(code, Some(1));
}

#[test]
fn every_command_says_all_that_is_wrong_and_fails() {
    let file = Dir::with("max-grops = 5\n\nmax-orphans = 0\n");
    let path = file.file();
    let name = path.display();
    let expected = format!(
        "{name}:1: max-grops: unknown key, did you mean max-groups?\n\
         {name}:3: max-orphans: found 0, expected a whole number from 1 to 4194304\n\
         --plan: found \"best\", expected one of auto, fentry, kprobe, tracepoint\n"
    );
    for command in ["check", "show"] {
        let output = lingerd(command, &path, &["--plan", "best"]);
        let expected = (Some(1), String::new(), expected.clone());
        assert_eq!(result(&output), expected, "{command}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_lingerd"))
        .args(["run", "--plan", "best", "--config"])
        .arg(&path)
        .env_remove("LINGER_LOG")
        .output();
    assert_eq!(result(&output.unwrap()), (Some(1), String::new(), expected));
}

#[test]
fn show_tells_each_value_and_where_it_comes_from() {
    let file = Dir::with("\nretire-after = \"90m\"\n");
    let path = file.file();
    let (code, table, errors) = result(&lingerd("show", &path, &["--deny-port", "22,80-81"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| {
            let cells = line.split("  ").map(str::trim);
            cells.filter(|cell| !cell.is_empty()).collect()
        })
        .collect();
    let line = format!("{}:2", path.display());
    assert_eq!(rows[0], ["key", "value", "origin"]);
    assert!(rows.contains(&vec!["plan", "\"auto\"", "default"]));
    assert!(rows.contains(&vec!["retire-after", "\"1h 30m\"", &line]));
    assert!(rows.contains(&vec!["deny.ports", "[22, \"80-81\"]", "--deny-port"]));
    let column = table.lines().next().unwrap().find("origin").unwrap();
    for line in table.lines().skip(1) {
        assert!(
            line.is_char_boundary(column) && line[..column].ends_with("  "),
            "{line}"
        );
    }
}

#[test]
fn show_tells_machines_the_same() {
    let file = Dir::with("labels = []");
    let (_, json, _) = result(&lingerd("show", &file.file(), &["--json"]));
    let settings: serde_json::Value = serde_json::from_str(&json).unwrap();
    let labels = serde_json::json!({
        "key": "labels",
        "value": [],
        "origin": format!("{}:1", file.file().display()),
    });
    let groups = serde_json::json!({ "key": "max-groups", "value": 4096, "origin": "default" });
    let settings = settings.as_array().unwrap();
    assert!(settings.contains(&labels) && settings.contains(&groups));
}

/// Runs `lingerd unload` with a configuration and these arguments; it finds nothing to remove.
fn unload(text: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let file = Dir::with(text);
    let output = Command::new(env!("CARGO_BIN_EXE_lingerd"))
        .args(["unload", "--config"])
        .arg(file.file())
        .args(arguments)
        .env_remove("LINGER_LOG")
        .output();
    result(&output.unwrap())
}

#[test]
fn unload_reads_only_the_settings_that_it_needs() {
    let nothing = |at: &str| format!("{at}: nothing is there\n");
    let (code, out, errors) = unload("max-grops = 5\npins = \"/sys/fs/bpf/none-1\"\n", &[]);
    assert_eq!((code, out), (Some(0), nothing("/sys/fs/bpf/none-1")));
    assert!(errors.contains("max-grops: unknown key"), "{errors}");
    // The settings that it needs must be valid, unless flags give them.
    let bad = "pins = 5\n";
    let (code, _, errors) = unload(bad, &[]);
    assert_eq!(code, Some(1));
    assert!(errors.contains(":1: pins: "), "{errors}");
    let (code, out, _) = unload(bad, &["--pins", "/sys/fs/bpf/none-2"]);
    assert_eq!((code, out), (Some(0), nothing("/sys/fs/bpf/none-2")));
}

#[test]
fn unload_removes_nothing_but_pins() {
    let project = tempfile::tempdir().unwrap();
    let file = project.path().join("maps/level");
    fs::create_dir(project.path().join("maps")).unwrap();
    fs::write(&file, "").unwrap();
    let (code, _, errors) = unload("", &["--pins", project.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("is not in a BPF file system"), "{errors}");
    assert!(file.exists());
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let file = Dir::with("");
    for command in ["check", "show"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_lingerd"))
            .args(["config", command, "--config"])
            .arg(file.file())
            .env_remove("LINGER_LOG")
            .stdout(writer)
            .output();
        let nothing = (Some(0), String::new(), String::new());
        assert_eq!(result(&output.unwrap()), nothing, "{command}");
    }
}
