//! The output without a terminal.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

use crate::LINGERD;
use crate::lingerd::{Lingerd, settings_of_none};
use crate::service::Service;

fn top(options: &[&str]) -> Output {
    let mut command = Command::new(LINGERD);
    command.arg("top").args(options).env("LC_ALL", "C.UTF-8");
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn one_table_is_printed_as_text_and_as_json() {
    let lingerd = Lingerd::start(&[]);
    let [few, many] = [Service::new("once-a"), Service::new("once-b")];
    let discarded = few.close("linger_aborted_data", 2);
    assert!(discarded > 0);
    many.close("linger_aborted_data", 4);
    let url = format!("http://{}", lingerd.address());
    let once = ["--once", "-d", "0.2", "--url", &url];
    let table = top(&once);
    assert!(table.status.success(), "{}", errors(&table));
    let table = String::from_utf8(table.stdout).unwrap();
    let place = |unit: &str| table.lines().position(|line| line.starts_with(unit));
    assert!(place(&many.unit) < place(&few.unit), "{table}");
    assert!(place(&many.unit).is_some(), "{table}");

    let json = top(&[&once[..], &["--json", "--sort", "unit"]].concat());
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let units = json["units"].as_array().unwrap();
    let totals = |service: &Service| {
        let mut named = units
            .iter()
            .filter(|unit| unit["name"] == service.unit.as_str());
        &named.next().unwrap()["totals"]
    };
    assert_eq!(totals(&few)["aborts"], 2.0, "{json:#}");
    assert_eq!(totals(&many)["aborts"], 4.0, "{json:#}");
    assert_eq!(
        totals(&few)["discarded"].to_string(),
        format!("{discarded}.0")
    );
    let of_host = json["totals"]["aborts"].as_f64().unwrap();
    assert!(of_host >= 6.0, "{json:#}");
    assert!(json["rates"]["closes"].as_f64().unwrap() >= 0.0, "{json:#}");
}

#[test]
fn without_a_terminal_there_is_one_line_that_says_so() {
    let output = top(&[]);
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    assert!(
        errors.contains("--once") && errors.lines().count() == 1,
        "{errors}"
    );
}

#[test]
fn without_a_lingerd_and_without_root_one_line_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let errors = top_without_privileges(&settings_of_none(folder.path()));
    for words in [
        "no lingerd answers at unix:",
        "lingerd run",
        "--url",
        "root",
    ] {
        assert!(errors.contains(words), "{errors}");
    }
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// Returns the error output of top with these settings and without capabilities, which has to fail.
fn top_without_privileges(settings: &Path) -> String {
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-all", "--inh-caps", "-all", LINGERD])
        .args(["top", "--once", "--config"])
        .arg(settings)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    errors(&output)
}

#[test]
fn a_socket_that_this_user_may_not_open_is_no_missing_lingerd() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, Permissions::from_mode(0o0)).unwrap();
    let errors = top_without_privileges(&settings_of_none(folder.path()));
    let expected = format!(
        "lingerd: unix:{}: no permission to connect",
        socket.display()
    );
    assert!(errors.starts_with(&expected), "{errors}");
    assert!(errors.contains("as a member of its group"), "{errors}");
}

#[test]
fn an_address_without_an_answer_is_named() {
    let output = top(&["--once", "--url", "unix:/nowhere/socket"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    assert!(
        errors.starts_with("lingerd: unix:/nowhere/socket: cannot connect"),
        "{errors}"
    );
}

#[test]
fn the_reason_of_a_refusal_does_not_control_the_terminal() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        let answer = b"HTTP/1.1 500 Oops\r\nContent-Length: 12\r\n\r\n\x1b]0;owned\x07\n\n";
        stream.write_all(answer).unwrap();
    });
    let output = top(&["--once", "--url", &url]);
    answering.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    let told = errors.trim_end();
    assert!(told.ends_with("\\u{1b}]0;owned\\u{7}"), "{told}");
    assert!(!told.contains(char::is_control), "{told:?}");
}
