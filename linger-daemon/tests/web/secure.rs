//! Certificates, clients with TLS, and directories with a web configuration.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linger_daemon::http::Security;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::server::{Answer, Server};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
}

/// A certificate with its key.
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs a certificate with these alternative names.
    pub(crate) fn issue(&self, names: Vec<SanType>) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.der().clone(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Issues a certificate for a server named localhost.
    pub(crate) fn server(&self) -> Identity {
        self.issue(vec![dns("localhost")])
    }
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// The TLS settings of a client.
pub(crate) struct Client<'a> {
    /// The authority that it trusts.
    pub(crate) trusts: &'a Authority,
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) protocols: &'a [&'a str],
    pub(crate) versions: &'a [&'static SupportedProtocolVersion],
}

impl<'a> Client<'a> {
    pub(crate) fn trusting(trusts: &'a Authority) -> Self {
        Self {
            trusts,
            identity: None,
            protocols: &[],
            versions: rustls::ALL_VERSIONS,
        }
    }

    pub(crate) fn with(self, identity: &'a Identity) -> Self {
        Self {
            identity: Some(identity),
            ..self
        }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusts.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.certificate.clone()], identity.key.clone_key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let protocols = self.protocols.iter();
        config.alpn_protocols = protocols.map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// Connects without a handshake: errors show at the first read or write.
    pub(crate) fn connect(&self, server: &Server) -> StreamOwned<ClientConnection, TcpStream> {
        self.over(server.connect())
    }

    /// As [`Client::connect`], over this connection.
    pub(crate) fn over(&self, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(self.config(), name).unwrap();
        StreamOwned::new(connection, stream)
    }

    /// Sends a request with these further lines in its head. Returns the answer.
    pub(crate) fn ask(&self, server: &Server, path: &str, head: &str) -> io::Result<Answer> {
        let mut stream = self.connect(server);
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n"
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(Answer::parse(bytes))
    }

    /// Returns whether it gets an answer at all.
    pub(crate) fn is_let_in(&self, server: &Server) -> bool {
        match self.ask(server, "/healthz", "") {
            Ok(answer) => answer.status == 200,
            Err(_) => false,
        }
    }
}

/// A directory with a web configuration, and the files that it names.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn with(config: &str) -> Self {
        let directory = Self(TempDir::new().unwrap());
        directory.write("web.yml", config);
        directory
    }

    /// Creates one with a server's certificate, and `more` lines after its section of the configuration.
    pub(crate) fn tls(identity: &Identity, more: &str) -> Self {
        let directory = Self::with(&format!(
            "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{more}"
        ));
        directory.put(identity);
        directory
    }

    /// Replaces the certificate of the server.
    pub(crate) fn put(&self, identity: &Identity) {
        self.write("server.crt", &identity.certificate_pem);
        self.write("server.key", &identity.key_pem);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("web.yml")
    }

    pub(crate) fn server(&self) -> Server {
        Server::secured(Security::load(&self.file()).unwrap())
    }

    /// Returns the error of the configuration, with the names of the files alone.
    pub(crate) fn mistake(&self) -> String {
        match Security::load(&self.file()) {
            Ok(_) => panic!("nothing is wrong"),
            Err(error) => {
                let directory = format!("{}/", self.0.path().display());
                error.to_string().replace(&directory, "")
            }
        }
    }
}

/// Waits until something holds: the server checks its files once a second.
pub(crate) fn eventually(holds: impl Fn() -> bool, what: &str) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
