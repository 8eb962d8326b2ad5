//! Reads what matters of a certificate.

use k8s_openapi::jiff::Timestamp;
use x509_parser::pem::parse_x509_pem;

use super::Certificate;

/// Why a certificate cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is no PEM text.
    #[error("it is no PEM text: {0}")]
    Pem(String),
    /// It is no X.509 certificate.
    #[error("it is no X.509 certificate: {0}")]
    X509(String),
    /// Its dates cannot be expressed.
    #[error("its dates are out of range")]
    Dates,
}

/// What matters of the first certificate in a PEM text.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(pem: &[u8]) -> Result<Certificate, InspectError> {
    let (_, pem) = parse_x509_pem(pem).map_err(|e| InspectError::Pem(e.to_string()))?;
    let certificate = pem
        .parse_x509()
        .map_err(|e| InspectError::X509(e.to_string()))?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|_| InspectError::Dates);
    let validity = certificate.validity();
    Ok(Certificate {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        not_before: time(validity.not_before.timestamp())?,
        not_after: time(validity.not_after.timestamp())?,
    })
}
