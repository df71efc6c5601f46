//! TLS: which certificates are admitted, which protocol is spoken, and files that change.

use std::fs;
use std::io::{Read as _, Write as _};

use rcgen::SanType;

use crate::secure::{Authority, Client, Directory, dns, eventually};
use crate::server::Server;

#[test]
fn metrics_come_over_tls() {
    let authority = Authority::new("ours");
    let server = Directory::tls(&authority.server(), "").server();
    let answer = Client::trusting(&authority)
        .ask(&server, "/metrics", "")
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\nlinger_closes_total{"));
    let other = Authority::new("other");
    assert!(!Client::trusting(&other).is_let_in(&server));
    // Without TLS there is no answer, least of all with metrics.
    let mut plain = server.connect();
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"), "{bytes:?}");
}

/// A connection from before certificates were required does not count as trusted afterwards.
#[test]
fn an_old_connection_is_not_trusted_by_new_rules() {
    let authority = Authority::new("ours");
    let directory = Directory::tls(&authority.server(), "");
    let server = directory.server();
    let client = || Client::trusting(&authority);
    let mut old = client().connect(&server);
    let mut is_forbidden = || {
        old.write_all(b"GET /live.json HTTP/1.1\r\nHost: attacker.example\r\n\r\n")
            .unwrap();
        let mut answer = [0; 1024];
        let length = old.read(&mut answer).unwrap();
        answer[..length].starts_with(b"HTTP/1.1 403")
    };
    assert!(is_forbidden());

    directory.write("clients.crt", &authority.pem);
    let config = fs::read_to_string(directory.file()).unwrap();
    let more = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.crt\n";
    directory.write("web.yml", &(config + more));
    eventually(|| !client().is_let_in(&server), "certificates are required");
    assert!(is_forbidden());
}

#[test]
fn a_connection_by_tls_is_kept_for_the_next_request() {
    let authority = Authority::new("ours");
    let server = Directory::tls(&authority.server(), "").server();
    let mut stream = Client::trusting(&authority).connect(&server);
    for _ in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            .unwrap();
        let mut answer = [0; 512];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

/// Returns whether clients without a certificate, with a stranger's, and with one of ours are admitted.
fn let_in(policy: &str) -> [bool; 3] {
    let (ours, strangers) = (Authority::new("ours"), Authority::new("strangers"));
    let verifies = policy.contains("Verify");
    let authority = if verifies {
        "  client_ca_file: clients.crt\n"
    } else {
        ""
    };
    let more = format!("  client_auth_type: {policy}\n{authority}");
    let directory = Directory::tls(&ours.server(), &more);
    directory.write("clients.crt", &ours.pem);
    let server = directory.server();
    let names = || vec![dns("prometheus.example")];
    let (friend, stranger) = (ours.issue(names()), strangers.issue(names()));
    let client = || Client::trusting(&ours);
    [
        client().is_let_in(&server),
        client().with(&stranger).is_let_in(&server),
        client().with(&friend).is_let_in(&server),
    ]
}

#[test]
fn each_client_auth_type_admits_its_clients() {
    for (policy, expected) in [
        ("NoClientCert", [true, true, true]),
        ("RequestClientCert", [true, true, true]),
        ("RequireAnyClientCert", [false, true, true]),
        ("VerifyClientCertIfGiven", [true, false, true]),
        ("RequireAndVerifyClientCert", [false, false, true]),
    ] {
        assert_eq!(let_in(policy), expected, "{policy}");
    }
}

#[test]
fn only_allowed_names_are_let_in() {
    let authority = Authority::new("ours");
    let more = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.crt\n  \
                client_allowed_sans:\n  - prometheus.example\n  - scraper@example\n  - 192.0.2.7\n  \
                - 2001:DB8::7\n  - spiffe://example/prometheus\n";
    let directory = Directory::tls(&authority.server(), more);
    directory.write("clients.crt", &authority.pem);
    let server = directory.server();
    let is_let_in = |names: Vec<SanType>| {
        let identity = authority.issue(names);
        Client::trusting(&authority)
            .with(&identity)
            .is_let_in(&server)
    };
    let mail = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let uri = |name: &str| SanType::URI(name.try_into().unwrap());
    let address = |name: &str| SanType::IpAddress(name.parse().unwrap());
    for names in [
        vec![dns("prometheus.example")],
        vec![dns("other.example"), dns("prometheus.example")],
        vec![mail("scraper@example")],
        vec![address("192.0.2.7")],
        vec![address("2001:db8::7")],
        vec![uri("spiffe://example/prometheus")],
    ] {
        assert!(is_let_in(names.clone()), "{names:?}");
    }
    for names in [
        vec![],
        vec![dns("other.example")],
        vec![dns("a.prometheus.example")],
        vec![dns("*.example")],
        vec![address("192.0.2.8")],
        vec![uri("spiffe://example/prometheus/other")],
    ] {
        assert!(!is_let_in(names.clone()), "{names:?}");
    }
}

#[test]
fn old_versions_are_refused_as_configured() {
    let authority = Authority::new("ours");
    let client = |versions| Client {
        versions,
        ..Client::trusting(&authority)
    };
    let (old, new) = (&[&rustls::version::TLS12], &[&rustls::version::TLS13]);
    for (more, old_is_let_in, new_is_let_in) in [
        ("", true, true),
        ("  min_version: TLS13\n", false, true),
        ("  max_version: TLS12\n", true, false),
        (
            "  cipher_suites: []\n  curve_preferences: []\n  prefer_server_cipher_suites: false\n",
            true,
            true,
        ),
    ] {
        let server = Directory::tls(&authority.server(), more).server();
        assert_eq!(client(old).is_let_in(&server), old_is_let_in, "{more}");
        assert_eq!(client(new).is_let_in(&server), new_is_let_in, "{more}");
    }
}

/// Returns the protocol that the server chooses of the two.
fn chosen(server: &Server, authority: &Authority) -> Option<String> {
    let client = Client {
        protocols: &["h2", "http/1.1"],
        ..Client::trusting(authority)
    };
    let mut stream = client.connect(server);
    stream.flush().unwrap();
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).unwrap();
    }
    let protocol = stream.conn.alpn_protocol();
    protocol.map(|name| String::from_utf8(name.to_vec()).unwrap())
}

#[test]
fn clients_that_offer_http_2_get_http_1_1() {
    let authority = Authority::new("ours");
    for config in [
        "",
        "http_server_config:\n  http2: true\n",
        "http_server_config:\n  http2: false\n",
    ] {
        let server = Directory::tls(&authority.server(), config).server();
        assert_eq!(chosen(&server, &authority).as_deref(), Some("http/1.1"));
    }
}

#[test]
fn a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let directory = Directory::tls(&old.server(), "");
    let server = directory.server();
    assert!(Client::trusting(&old).is_let_in(&server));

    directory.put(&new.server());
    eventually(
        || Client::trusting(&new).is_let_in(&server),
        "the new certificate is used",
    );
    assert!(!Client::trusting(&old).is_let_in(&server));

    // A key of another certificate.
    directory.write("server.key", &old.server().key_pem);
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert!(Client::trusting(&new).is_let_in(&server));
    directory.put(&old.server());
    eventually(
        || Client::trusting(&old).is_let_in(&server),
        "what is right again is used",
    );
}

#[test]
fn certificates_may_stand_in_the_file_itself() {
    let authority = Authority::new("ours");
    let identity = authority.server();
    let indent = |pem: &str| pem.replace('\n', "\n    ");
    let config = format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n  client_auth_type: \
         RequireAndVerifyClientCert\n  client_ca: |\n    {}\n",
        indent(&identity.certificate_pem),
        indent(&identity.key_pem),
        indent(&authority.pem)
    );
    let server = Directory::with(&config).server();
    let friend = authority.issue(vec![]);
    let client = || Client::trusting(&authority);
    assert!(client().with(&friend).is_let_in(&server));
    assert!(!client().is_let_in(&server));
}
