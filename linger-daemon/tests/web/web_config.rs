//! Mistakes in a web configuration, and the line that reports each.

use proptest::prelude::*;

use crate::secure::{Authority, Directory};

/// Files with one mistake each, and a part of its message.
const MISTAKES: &[(&str, &str)] = &[
    (
        "tls_server_config:\n  cert_fil: a\n",
        "unknown field `cert_fil`",
    ),
    (
        "tls_config:\n  cert_file: a\n",
        "unknown field `tls_config`",
    ),
    (
        "http_server_config:\n  http3: true\n",
        "unknown field `http3`",
    ),
    ("basic_auth_users: [a]\n", "invalid web configuration: "),
    (
        "http_server_config:\n  http2: perhaps\n",
        "invalid web configuration: ",
    ),
    (
        "basic_auth_users:\n  a: x\nbasic_auth_users:\n  b: x\n",
        "invalid web configuration: ",
    ),
    (": [", "invalid web configuration: "),
    (
        "rate_limit:\n  interval: 1s\n",
        "rate_limit: limiting the rate of requests is not supported",
    ),
    (
        "tls_server_config:\n  cert_file: a\n",
        "web.yml: tls_server_config: missing one of key or key_file",
    ),
    (
        "tls_server_config:\n  key_file: a\n",
        "web.yml: tls_server_config: missing one of cert or cert_file",
    ),
    (
        "tls_server_config:\n  cert_file: a\n  key_file: b\n",
        "a: cannot be read: No such file or directory",
    ),
    (
        "basic_auth_users:\n  alice: password\n",
        "web.yml: basic_auth_users: \"alice\": no hash of bcrypt, make one with `htpasswd -nBC 10 '' \
         | tr -d ':\\n'`",
    ),
    (
        "basic_auth_users:\n  \
         alice: $2y$31$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG\n",
        "a cost of 31 takes too long, expected at most 16",
    ),
    (
        "http_server_config:\n  headers:\n    Server: x\n",
        "web.yml: http_server_config: headers: Server is not supported, lingerd sets the headers",
    ),
];

/// Mistakes within `tls_server_config`.
const TLS: &[(&str, &str)] = &[
    (
        "min_version: TLS11",
        "tls_server_config: min_version: TLS11 is not supported, it is broken: TLS12 is the oldest \
         that there is",
    ),
    (
        "max_version: TLS10",
        "tls_server_config: max_version: TLS10 is not supported",
    ),
    (
        "min_version: TLS14",
        "min_version: found \"TLS14\", expected TLS12 or TLS13",
    ),
    (
        "min_version: TLS13\n  max_version: TLS12",
        "min_version is above max_version",
    ),
    (
        "cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
        "cipher_suites: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 is not supported, the algorithms are",
    ),
    (
        "curve_preferences: [X25519, CurveP256]",
        "curve_preferences: X25519, CurveP256 is not supported, the algorithms are",
    ),
    (
        "client_auth_type: Verify",
        "client_auth_type: found \"Verify\", expected one of NoClientCert, ",
    ),
    ("client_ca_file: server.crt", "without a client_auth_type"),
    (
        "client_auth_type: RequireAndVerifyClientCert",
        "client_auth_type needs client_ca_file",
    ),
    (
        "client_allowed_sans: [a]",
        "client_allowed_sans needs client_auth_type",
    ),
    (
        "client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: server.crt\n  \
         client_allowed_sans: [a]",
        "client_allowed_sans needs client_auth_type",
    ),
    (
        "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: web.yml",
        "web.yml: found no certificate in PEM",
    ),
];

#[test]
fn every_mistake_is_told_in_one_line() {
    for (config, expected) in MISTAKES {
        expect_mistake(&Directory::with(config), config, expected);
    }
    let identity = Authority::new("ours").server();
    for (more, expected) in TLS {
        expect_mistake(
            &Directory::tls(&identity, &format!("  {more}\n")),
            more,
            expected,
        );
    }
}

fn expect_mistake(directory: &Directory, config: &str, expected: &str) {
    let mistake = directory.mistake();
    assert!(
        mistake.contains(expected) && mistake.lines().count() == 1,
        "{config}\n{mistake}"
    );
}

#[test]
fn certificates_and_keys_must_be_what_they_are_called() {
    let authority = Authority::new("ours");
    let directory = Directory::tls(&authority.server(), "");
    directory.write("server.key", &authority.server().key_pem);
    expect_mistake(
        &directory,
        "",
        "server.crt: certificate and key cannot be used",
    );
    directory.write("server.key", &authority.pem);
    expect_mistake(&directory, "", "server.key: found no private key in PEM");
    directory.write("server.crt", "");
    expect_mistake(&directory, "", "server.crt: found no certificate in PEM");
}

#[test]
fn secrets_are_not_quoted() {
    let secret = "topmost-secret";
    for config in [
        format!("tls_server_config:\n  key: {secret}\n  cert: a\n  unknown: b\n"),
        format!("tls_server_config:\n  key: \"{secret}\n"),
        format!("tls_server_config:\n  key: {secret}\n  cert: {secret}\n"),
        format!("basic_auth_users:\n  a: {secret}\n"),
        format!("basic_auth_users:\n  a: [{secret}]\n"),
    ] {
        let mistake = Directory::with(&config).mistake();
        assert!(!mistake.contains(secret), "{mistake}");
    }
}

#[test]
fn an_empty_configuration_asks_for_nothing() {
    for config in [
        "",
        "# nothing yet\n",
        "{}",
        "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
        "tls_server_config: {}\n",
        "http_server_config:\n  headers:\n",
        "http_server_config:\n  headers:\n    X-XSS-Protection: ''\n",
    ] {
        let server = Directory::with(config).server();
        assert_eq!(server.get("/metrics").status, 200, "{config}");
    }
}

#[test]
fn aliases_and_nesting_are_bounded() {
    let levels = (1..30).map(|level| {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        format!("a{level}: &a{level} [{below}]\n")
    });
    let bomb: String = levels.collect();
    expect_mistake(
        &Directory::with(&format!("a0: &a0 [x, x, x]\n{bomb}")),
        "",
        "invalid web configuration: ",
    );
    let deep = "[".repeat(100_000);
    expect_mistake(&Directory::with(&deep), "", "invalid web configuration: ");
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC*|([ \\n:\\-{}\\[\\],&*!|>'\"%@`a-z0-9]|tls_server_config|basic_auth_users|key|\\$2y\\$)*") {
        let directory = Directory::with(&text);
        let _ = linger_daemon::http::Security::load(&directory.file());
    }
}
