//! The subject alternative names of a certificate, as written in the file.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Returns DNS names, e-mail addresses, URIs and IP addresses; `None` if it is not a valid certificate.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let found = certificate.tbs_certificate.get::<SubjectAltName>().ok()?;
    let names = found.map_or_else(Vec::new, |(_, SubjectAltName(names))| names);
    Some(names.iter().filter_map(text).collect())
}

fn text(name: &GeneralName) -> Option<String> {
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

/// Normalizes a name of the file for comparison.
pub(super) fn plain(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.to_owned(),
    }
}
