//! Basic authentication.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use linger_daemon::http::{Limits, Security};

use crate::secure::{Authority, Client, Directory, eventually};
use crate::server::{Answer, Server};

fn users(users: &[(&str, &str)]) -> String {
    let lines = users.iter().map(|(user, password)| {
        let hash = bcrypt::hash(password, 4).unwrap();
        format!("  {user}: {hash}\n")
    });
    format!("basic_auth_users:\n{}", lines.collect::<String>())
}

fn header(user: &str, password: &str) -> String {
    let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
    format!("Authorization: Basic {encoded}\r\n")
}

fn ask(server: &Server, path: &str, user: &str, password: &str) -> Answer {
    server.ask(&format!("GET {path}"), &header(user, password))
}

#[test]
fn every_endpoint_asks_for_the_password() {
    let config = users(&[("prometheus", "secret: 1"), ("other", "else")]);
    let server = Directory::with(&config).server();
    for path in [
        "/",
        "/live.json",
        "/metrics",
        "/healthz",
        "/readyz",
        "/nothing",
    ] {
        let expected = if path == "/nothing" { 404 } else { 200 };
        // The second time, the password is cached.
        for _ in 0..2 {
            let answer = ask(&server, path, "prometheus", "secret: 1");
            assert_eq!(answer.status, expected, "{path}");
        }
        let answer = server.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic"));
        assert!(!answer.text().contains("linger"), "{}", answer.text());
        for (user, password) in [
            ("prometheus", "secret: 2"),
            ("prometheus", "else"),
            ("prometheus", ""),
            ("nobody", "secret: 1"),
            ("", "secret: 1"),
        ] {
            let answer = ask(&server, path, user, password);
            assert_eq!(answer.status, 401, "{path} {user} {password}");
        }
    }
}

#[test]
fn headers_that_are_no_credentials_are_answered() {
    let server = Directory::with(&users(&[("a", "b")])).server();
    let colonless = BASE64_STANDARD.encode("a");
    for value in [
        "",
        "Basic",
        "Basic ",
        "Basic !",
        "Bearer YTpi",
        "Basic YTpi=",
        &format!("Basic {colonless}"),
        &format!("Basic {}", BASE64_STANDARD.encode([0xff, b':', 0xff])),
    ] {
        let head = format!("Authorization: {value}\r\n");
        assert_eq!(server.ask("GET /", &head).status, 401, "{value}");
    }
    assert_eq!(
        server.ask("GET /", "Authorization: basic YTpi\r\n").status,
        200
    );
}

/// Others may wait before it, or its hash may be costly.
#[test]
fn a_password_that_is_not_checked_in_time_is_answered() {
    // Its check takes many times as long as an answer may.
    let hash = bcrypt::hash("b", 10).unwrap();
    let directory = Directory::with(&format!("basic_auth_users:\n  a: {hash}\n"));
    let limits = Limits {
        answer_time: Duration::from_millis(1),
        ..Limits::DEFAULT
    };
    let security = Security::load(&directory.file()).unwrap();
    let server = Server::secured_with(security, limits);
    let answer = ask(&server, "/healthz", "a", "b");
    assert_eq!(answer.status, 429);
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[test]
fn users_change_with_the_file_and_not_with_a_broken_one() {
    let directory = Directory::with(&users(&[("old", "1")]));
    let server = directory.server();
    assert_eq!(ask(&server, "/", "old", "1").status, 200);

    directory.write("web.yml", &users(&[("old", "2"), ("new", "3")]));
    eventually(
        || ask(&server, "/", "new", "3").status == 200,
        "the new user",
    );
    assert_eq!(ask(&server, "/", "old", "1").status, 401, "it is forgotten");
    assert_eq!(ask(&server, "/", "old", "2").status, 200);

    directory.write("web.yml", "basic_auth_users: {}\nbasic_auth: {}\n");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(ask(&server, "/", "new", "3").status, 200);
    assert_eq!(server.get("/").status, 401, "not open because of a mistake");
    directory.write("web.yml", "");
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(server.get("/").status, 401, "nor because of an empty file");
    std::fs::remove_file(directory.file()).unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(server.get("/").status, 401, "nor because of a missing file");
}

#[test]
fn passwords_and_tls_go_together() {
    let authority = Authority::new("ours");
    let directory = Directory::tls(&authority.server(), &users(&[("a", "b")]));
    let server = directory.server();
    let client = Client::trusting(&authority);
    let status = |head: &str| client.ask(&server, "/metrics", head).unwrap().status;
    assert_eq!(status(""), 401);
    assert_eq!(status(&header("a", "b")), 200);
    assert_eq!(status(&header("a", "c")), 401);
}

/// TLS alone admits everyone: a file that lost its passwords must not pass for one without any.
#[test]
fn tls_that_remains_without_passwords_or_certificates_admits_no_one_else() {
    let authority = Authority::new("ours");
    let certificates =
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.crt\n";
    let passwords = users(&[("a", "b")]);
    for rules in [passwords.as_str(), certificates] {
        let directory = Directory::tls(&authority.server(), rules);
        directory.write("clients.crt", &authority.pem);
        let server = directory.server();
        let client = || Client::trusting(&authority);
        assert!(!client().is_let_in(&server));
        let config = std::fs::read_to_string(directory.file()).unwrap();
        let cut_short = config.strip_suffix(rules).unwrap();
        directory.write("web.yml", cut_short);
        std::thread::sleep(Duration::from_millis(1200));
        assert!(!client().is_let_in(&server), "{rules}");
        // Another rule in its place is taken over.
        let other = users(&[("c", "d")]);
        directory.write("web.yml", &format!("{cut_short}{other}"));
        let is_admitted = || {
            let answer = client().ask(&server, "/", &header("c", "d"));
            answer.is_ok_and(|answer| answer.status == 200)
        };
        eventually(is_admitted, "the new user");
    }
}
