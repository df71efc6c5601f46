//! The certificate authorities to trust.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// Files in which distributions keep the certificate authorities that the host trusts.
const SYSTEM: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Creates a connector that trusts the authorities of this file, or else of the host.
pub(super) fn connector(file: Option<&Path>) -> Result<TlsConnector> {
    let system = || SYSTEM.iter().map(Path::new).find(|path| path.is_file());
    let Some(file) = file.or_else(system) else {
        bail!(
            "no authorities to trust are found on this host: name those of the lingerd with --ca-file"
        );
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file);
    let certificates = certificates.with_context(|| format!("cannot read {}", file.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("{}: no PEM", file.display()))?;
        // A bundle may contain certificates that are too old to be accepted.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        bail!("{}: no certificate of an authority", file.display());
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
