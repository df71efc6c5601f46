//! Client certificates.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::Mistake;

/// Policy for client certificates (`client_auth_type`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// A client without a certificate is rejected.
    pub(super) is_mandatory: bool,
    /// A certificate must be signed by a trusted authority.
    pub(super) verifies: bool,
}

impl Policy {
    /// Returns the policy of this name; `None` if no certificate is requested.
    pub(super) fn named(name: &str) -> Result<Option<Self>, Mistake> {
        let (is_mandatory, verifies) = match name {
            "" | "NoClientCert" => return Ok(None),
            "RequestClientCert" => (false, false),
            // The second is an old name of the first.
            "RequireAnyClientCert" | "RequireClientCert" => (true, false),
            "VerifyClientCertIfGiven" => (false, true),
            "RequireAndVerifyClientCert" => (true, true),
            other => {
                return Err(Mistake::Value {
                    key: "tls_server_config: client_auth_type".to_owned(),
                    found: other.to_owned(),
                    expected: "one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                               VerifyClientCertIfGiven, RequireAndVerifyClientCert",
                });
            }
        };
        Ok(Some(Self {
            is_mandatory,
            verifies,
        }))
    }
}

/// Verifies client certificates.
#[derive(Debug)]
pub(super) struct Clients {
    is_mandatory: bool,
    /// Verifier of signatures by trusted authorities.
    trusted: Option<Arc<dyn ClientCertVerifier>>,
    /// Alternative names, of which a certificate must have one.
    allowed: Option<Vec<String>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Clients {
    /// Creates a verifier that trusts certificates signed by `roots`; without these, any certificate whose key the
    /// client holds.
    pub(super) fn new(
        is_mandatory: bool,
        roots: Option<RootCertStore>,
        allowed: Option<Vec<String>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, Mistake> {
        let trusted = roots.map(|roots| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| Mistake::ClientCa(error.to_string()))
        });
        Ok(Self {
            is_mandatory,
            trusted: trusted.transpose()?,
            allowed: allowed.map(|names| names.into_iter().map(normalize).collect()),
            algorithms: provider.signature_verification_algorithms,
        })
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        let trusted = self.trusted.as_ref();
        trusted.map_or(&[], |trusted| trusted.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(trusted) = &self.trusted {
            trusted.verify_client_cert(certificate, intermediates, now)?;
        }
        if let Some(allowed) = &self.allowed {
            let has = alternative_names(certificate)
                .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            if !has.iter().any(|name| allowed.contains(name)) {
                let why = CertificateError::ApplicationVerificationFailure;
                return Err(Error::InvalidCertificate(why));
            }
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Normalizes a name of the file as [`alternative_names`] writes it.
fn normalize(name: String) -> String {
    name.parse::<IpAddr>()
        .map_or(name, |address| address.to_string())
}

/// Returns DNS names, e-mail addresses, URIs and IP addresses; `None` if it is not a valid certificate.
fn alternative_names(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let found = certificate.tbs_certificate.get::<SubjectAltName>().ok()?;
    let names = found.map_or_else(Vec::new, |(_, SubjectAltName(names))| names);
    Some(names.iter().filter_map(alternative_name).collect())
}

fn alternative_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name)
        | GeneralName::Rfc822Name(name)
        | GeneralName::UniformResourceIdentifier(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            let sixteen = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
            Some(four.or_else(|_| sixteen()).ok()?.to_string())
        }
        _ => None,
    }
}
