//! Makes authorities and leaf certificates.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use roadstead_api::{DATAPLANE_TLS_NAME, OPERATOR_TLS_NAME};
use uuid::Uuid;

use super::{BACKDATE, CA_LIFE, LEAF_LIFE, Leaf};

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refused.
    #[error("the certificate could not be made: {0}")]
    Rcgen(#[from] rcgen::Error),
}

/// A certificate and its private key, as PEM texts.
#[derive(Clone)]
pub struct KeyedCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// A new authority with a name of its own, so that two can be told apart.
///
/// # Errors
/// See [`IssueError`].
pub fn authority(now: Timestamp) -> Result<KeyedCertificate, IssueError> {
    let key = KeyPair::generate()?;
    let name = format!("roadstead-ca-{}", Uuid::new_v4().simple());
    let mut params = params(&name, now, CA_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(KeyedCertificate {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// A new leaf certificate, signed by `authority`.
///
/// # Errors
/// See [`IssueError`]; also when the authority's key or certificate cannot be read.
pub fn leaf(
    which: Leaf,
    authority: &KeyedCertificate,
    now: Timestamp,
) -> Result<KeyedCertificate, IssueError> {
    let issuer = Issuer::from_ca_cert_pem(
        &authority.certificate_pem,
        KeyPair::from_pem(&authority.key_pem)?,
    )?;
    let key = KeyPair::generate()?;
    let (name, usage) = match which {
        Leaf::Dataplane => (DATAPLANE_TLS_NAME, ExtendedKeyUsagePurpose::ServerAuth),
        Leaf::Operator => (OPERATOR_TLS_NAME, ExtendedKeyUsagePurpose::ClientAuth),
    };
    let mut params = params(name, now, LEAF_LIFE)?;
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into()?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(KeyedCertificate {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn params(
    name: &str,
    now: Timestamp,
    life: SignedDuration,
) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let seconds = u64::try_from((now - BACKDATE).as_second()).unwrap_or_default();
    let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    params.not_before = not_before.into();
    params.not_after = (not_before + life.unsigned_abs()).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::inspect;

    #[test]
    fn what_is_made_can_be_read() {
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let authority = authority(now).expect("an authority");
        let ca = inspect(authority.certificate_pem.as_bytes()).expect("readable");
        assert_eq!(ca.subject, ca.issuer);
        assert_eq!(ca.not_before, now - BACKDATE);
        assert_eq!(ca.not_after, now - BACKDATE + CA_LIFE);
        for (which, name) in [
            (Leaf::Dataplane, DATAPLANE_TLS_NAME),
            (Leaf::Operator, OPERATOR_TLS_NAME),
        ] {
            let leaf = leaf(which, &authority, now).expect("a leaf");
            let seen = inspect(leaf.certificate_pem.as_bytes()).expect("readable");
            assert_eq!(seen.subject, format!("CN={name}"));
            assert_eq!(seen.issuer, ca.subject);
            assert_eq!(seen.not_after, now - BACKDATE + LEAF_LIFE);
        }
    }

    #[test]
    fn two_authorities_have_two_names() {
        let now = Timestamp::now();
        let names = [0, 1].map(|_| {
            let made = authority(now).expect("an authority");
            inspect(made.certificate_pem.as_bytes())
                .expect("readable")
                .subject
        });
        assert_ne!(names[0], names[1]);
    }
}
