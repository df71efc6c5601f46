//! The TLS configuration of the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::client::{Clients, Policy};
use super::file::Tls;
use super::{Mistake, SecurityError, ServerTls};
use crate::config;

impl Tls {
    /// Returns whether any key here asks for TLS.
    pub(super) fn is_enabled(&self) -> bool {
        let texts = [
            &self.cert,
            &self.cert_file,
            &self.key,
            &self.key_file,
            &self.client_ca,
            &self.client_ca_file,
            &self.client_auth_type,
        ];
        texts.into_iter().any(|text| !text.is_empty())
    }

    /// Returns the paths of the files that it names, relative to the directory of the `file`.
    pub(super) fn files(&self, file: &Path) -> Vec<PathBuf> {
        let names = [&self.cert_file, &self.key_file, &self.client_ca_file];
        let names = names.into_iter().filter(|name| !name.is_empty());
        names.map(|name| beside(file, name)).collect()
    }

    /// Builds the TLS of the server. The paths of certificates and keys are relative to the directory of the `file`.
    pub(super) fn server(&self, file: &Path) -> Result<ServerTls, SecurityError> {
        let here = |mistake: Mistake| mistake.in_file(file);
        self.check().map_err(here)?;
        let provider = Arc::new(ring::default_provider());
        let versions = self.versions().map_err(here)?;
        let policy = Policy::named(&self.client_auth_type).map_err(here)?;
        let clients = self.clients(policy, file, &provider)?;
        let certificates = Pem::new(&self.cert_file, &self.cert, file)?;
        let chain = certificates.certificates()?;
        let key = Pem::new(&self.key_file, &self.key, file)?.key()?;

        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| here(Mistake::Pair(error)))?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|error| Mistake::Pair(error).in_file(certificates.path))?;
        server.ignore_client_order = true;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Keep no sessions of clients that are gone: neither memory, nor certificates revoked since.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(ServerTls {
            config: Arc::new(server),
            requires_trusted: policy.is_some_and(|policy| policy.is_mandatory && policy.verifies),
        })
    }

    fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, Mistake> {
        let (min, max) = (self.min_version.as_deref(), self.max_version.as_deref());
        let min = version("tls_server_config: min_version", min.unwrap_or("TLS12"))?;
        let max = version("tls_server_config: max_version", max.unwrap_or("TLS13"))?;
        if min > max {
            return Err(Mistake::Contradiction(
                "tls_server_config: min_version is above max_version",
            ));
        }
        let all = [&rustls::version::TLS12, &rustls::version::TLS13];
        Ok(all[min..=max].to_vec())
    }

    /// Fails if the certificate or the key is missing, or if a list of algorithms is configured: there is no choice,
    /// since all that are supported are sound.
    fn check(&self) -> Result<(), Mistake> {
        if self.cert.is_empty() && self.cert_file.is_empty() {
            return Err(Mistake::Contradiction(
                "tls_server_config: missing one of cert or cert_file",
            ));
        }
        if self.key.is_empty() && self.key_file.is_empty() {
            return Err(Mistake::Contradiction(
                "tls_server_config: missing one of key or key_file",
            ));
        }
        let lists = [
            ("tls_server_config: cipher_suites", &self.cipher_suites),
            (
                "tls_server_config: curve_preferences",
                &self.curve_preferences,
            ),
        ];
        for (key, list) in lists {
            if let Some(names) = list.as_ref().filter(|names| !names.is_empty()) {
                return Err(Mistake::Unsupported {
                    key,
                    found: names.join(", "),
                    instead: "the algorithms are those of TLS 1.3, and of TLS 1.2 with forward secrecy: remove it",
                });
            }
        }
        Ok(())
    }

    /// Returns the verifier of client certificates; `None` if they are not requested.
    fn clients(
        &self,
        policy: Option<Policy>,
        file: &Path,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, SecurityError> {
        let authority = Pem::find(&self.client_ca_file, &self.client_ca, file)?;
        let contradiction = |why| Mistake::Contradiction(why).in_file(file);
        if policy.is_none() && authority.is_some() {
            return Err(contradiction(
                "tls_server_config: client_ca_file without a client_auth_type that asks for \
                 certificates: set RequireAndVerifyClientCert",
            ));
        }
        if self.client_allowed_sans.is_some() && !policy.is_some_and(|policy| policy.is_mandatory) {
            return Err(contradiction(
                "tls_server_config: client_allowed_sans needs client_auth_type \
                 RequireAndVerifyClientCert or RequireAnyClientCert",
            ));
        }
        let Some(policy) = policy else {
            return Ok(None);
        };
        if policy.verifies && authority.is_none() {
            return Err(contradiction(
                "tls_server_config: client_auth_type needs client_ca_file or client_ca: whose \
                 certificates are to be trusted?",
            ));
        }
        let roots = authority.map(|authority| authority.roots()).transpose()?;
        let roots = roots.filter(|_| policy.verifies);
        let sans = self.client_allowed_sans.clone();
        let clients = Clients::new(policy.is_mandatory, roots, sans, provider)
            .map_err(|why| why.in_file(file))?;
        Ok(Some(Arc::new(clients)))
    }
}

/// Returns 0 for the older of the two versions, 1 for the newer.
fn version(key: &'static str, name: &str) -> Result<usize, Mistake> {
    match name {
        "TLS12" => Ok(0),
        "TLS13" => Ok(1),
        "TLS10" | "TLS11" => Err(Mistake::Unsupported {
            key,
            found: name.to_owned(),
            instead: "it is broken: TLS12 is the oldest that there is",
        }),
        _ => Err(Mistake::Value {
            key: key.to_owned(),
            found: name.to_owned(),
            expected: "TLS12 or TLS13",
        }),
    }
}

/// Resolves a path that a file names, relative to the directory of the file.
fn beside(file: &Path, name: &str) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(name)
}

/// Text in PEM, and the file that contains it.
struct Pem {
    path: PathBuf,
    text: String,
}

impl Pem {
    /// Reads the file of this name, or else takes the text that is inline in the web configuration.
    fn new(name: &str, inline: &str, file: &Path) -> Result<Self, SecurityError> {
        if name.is_empty() {
            return Ok(Self {
                path: file.to_owned(),
                text: inline.to_owned(),
            });
        }
        let path = beside(file, name);
        match config::text(&path) {
            Ok(text) => Ok(Self { path, text }),
            Err(why) => Err(Mistake::File(why).in_file(path)),
        }
    }

    /// Does the same if either is set.
    fn find(name: &str, inline: &str, file: &Path) -> Result<Option<Self>, SecurityError> {
        let any = !name.is_empty() || !inline.is_empty();
        any.then(|| Self::new(name, inline, file)).transpose()
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
        let none = |why: String| Mistake::NoCertificate(why).in_file(&self.path);
        let found = CertificateDer::pem_slice_iter(self.text.as_bytes());
        let found: Vec<_> = found
            .collect::<Result<_, _>>()
            .map_err(|error| none(error.to_string()))?;
        if found.is_empty() {
            return Err(none(
                "it begins with -----BEGIN CERTIFICATE-----".to_owned(),
            ));
        }
        Ok(found)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, SecurityError> {
        PrivateKeyDer::from_pem_slice(self.text.as_bytes())
            .map_err(|error| Mistake::NoKey(error.to_string()).in_file(&self.path))
    }

    fn roots(&self) -> Result<RootCertStore, SecurityError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            let added = roots.add(certificate);
            added.map_err(|error| Mistake::ClientCa(error.to_string()).in_file(&self.path))?;
        }
        Ok(roots)
    }
}
