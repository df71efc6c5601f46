//! A lingerd with TLS and passwords.

use std::fs;
use std::process::{Command, Output};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};

use crate::LINGERD;
use crate::lingerd::Lingerd;

fn top(lingerd: &Lingerd, options: &[&str], password: Option<&str>) -> Output {
    let url = format!("https://{}", lingerd.address());
    top_at(&["--url", &url], options, password)
}

fn top_at(place: &[&str], options: &[&str], password: Option<&str>) -> Output {
    let mut command = Command::new(LINGERD);
    command
        .args(["top", "--once", "-d", "0.1"])
        .args(place)
        .args(options)
        .env_remove("LINGER_PASSWORD");
    if let Some(password) = password {
        command.env("LINGER_PASSWORD", password);
    }
    command.output().unwrap()
}

#[test]
fn readings_come_over_tls_to_who_has_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ours = file(
        "ca.crt",
        &authority.self_signed(&authority_key).unwrap().pem(),
    );
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let issuer = Issuer::new(authority, authority_key);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    file("server.crt", &certificate.pem());
    file("server.key", &key.serialize_pem());
    let stranger_key = KeyPair::generate().unwrap();
    let stranger = CertificateParams::default().self_signed(&stranger_key);
    let strangers = file("stranger.crt", &stranger.unwrap().pem());
    let hash = bcrypt::hash("secret", 4).unwrap();
    let web = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n\
         basic_auth_users:\n  me: {hash}\n"
    );
    let web = file("web.yml", &web);
    let password_file = file("password", "secret\n");
    let lingerd = Lingerd::start(&["--web.config.file", &web]);

    let trusting = ["--ca-file", &ours, "--user", "me"];
    let success = |output: &Output| {
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        assert!(output.stdout.starts_with(b"unit"), "{told}");
    };
    success(&top(&lingerd, &trusting, Some("secret")));
    let by_file = [&trusting[..], &["--password-file", &password_file]].concat();
    success(&top(&lingerd, &by_file, None));

    // The one of this host is found, with TLS or without.
    let listen = format!("listen = \"{}\"\n", lingerd.address());
    let config = file("lingerd.toml", &listen);
    success(&top_at(&["--config", &config], &trusting, Some("secret")));
    let plain = format!("http://{}", lingerd.address());
    let output = top_at(&["--url", &plain], &[], None);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("use https://"), "{told}");

    let refused = |options: &[&str], password, words: &str| {
        let output = top(&lingerd, options, password);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(words) && told.lines().count() == 1, "{told}");
        assert!(!told.contains("guess"), "{told}");
    };
    refused(&trusting, Some("guess"), "rejects this user or password");
    refused(
        &trusting[..2],
        None,
        "requires a user and a password: use --user",
    );
    refused(&trusting, None, "--user needs a password");
    refused(&["--ca-file", &strangers], None, "TLS: ");
}
