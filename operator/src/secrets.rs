//! Keeps the Secrets with the certificates as [`crate::pki::renewal`] wants them, and hands out the operator's identity.
//!
//! One step at a time, each a write for one version of one Secret: an operator that dies in between leaves Secrets
//! from which the next one goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, PostParams};
use roadstead_api::TlsIdentity;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::backoff::Backoff;
use crate::causes::whole;
use crate::metrics::Metrics;
use crate::pki::issue::{self, IssueError, KeyedCertificate};
use crate::pki::{Authorities, Certificate, Leaf, LeafState, Renewal, inspect, renewal};

/// Secret with the authorities and their keys: the operator's alone.
pub const CA_SECRET: &str = "roadstead-ca";
/// Secret with the dataplanes' certificate.
pub const DATAPLANE_SECRET: &str = "roadstead-dataplane-tls";
/// Secret with the operator's certificate.
pub const OPERATOR_SECRET: &str = "roadstead-operator-tls";

const CA_CERT: &str = "ca.crt";
const TLS_CERT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const CA_KEY: &str = "ca.key";
const NEXT_CERT: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const PREVIOUS_CERT: &str = "previous.crt";

/// How often the Secrets are looked at, beside the start.
const CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// How long one round of steps may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);

/// No sequence of steps is longer; more would be a loop.
const STEPS_MAX: usize = 16;

/// Delay after the first failure, and the longest one.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Why the certificates are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API refused, or could not be reached.
    #[error("the Secrets cannot be read or written: {0}")]
    Api(#[from] kube::Error),
    /// A certificate could not be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The steps did not come to an end.
    #[error("the certificates did not settle after {STEPS_MAX} steps")]
    Unsettled,
    /// No answer came.
    #[error("the API server gave no answer within {CHECK_TIMEOUT:?}")]
    Timeout,
}

/// The Secrets' data at one moment.
struct Found {
    ca: Option<Secret>,
    leaves: BTreeMap<Leaf, Option<Secret>>,
}

/// Keeps the certificates right for ever, and `identity` at the operator's newest.
pub async fn keep(
    client: Client,
    namespace: String,
    identity: watch::Sender<Option<Arc<TlsIdentity>>>,
    metrics: Metrics,
) {
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX, 1);
    loop {
        let settled = timeout(CHECK_TIMEOUT, settle(&api)).await;
        match settled.unwrap_or(Err(SecretError::Timeout)) {
            Ok(found) => {
                backoff.reset();
                if let Some(at) = first_expiry(&found) {
                    metrics.set_certificate_expiry(at.as_second());
                }
                let new = operator_identity(&found);
                identity.send_if_modified(|old| {
                    let same = match (old.as_ref(), new.as_ref()) {
                        (Some(old), Some(new)) => {
                            old.certificate_pem == new.certificate_pem && old.ca_pem == new.ca_pem
                        }
                        (None, None) => true,
                        (Some(_), None) | (None, Some(_)) => false,
                    };
                    if !same {
                        *old = new.map(Arc::new);
                    }
                    !same
                });
                sleep(CHECK_INTERVAL).await;
            }
            Err(error) => {
                warn!(
                    error = whole(&error),
                    "the certificates of the control API are not settled"
                );
                sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// Does step after step until nothing remains to be done.
async fn settle(api: &Api<Secret>) -> Result<Found, SecretError> {
    for _ in 0..STEPS_MAX {
        let found = read(api).await?;
        let now = Timestamp::now();
        let authorities = authorities(found.ca.as_ref());
        let Some(step) = renewal(now, &authorities, |which| leaf_state(&found, which)) else {
            return Ok(found);
        };
        info!(?step, "certificates of the control API");
        let (name, old, data, type_) = change(step, &found, now)?;
        match write(api, name, old, data, type_).await {
            Ok(()) => {}
            // Another writer was faster: what it left is read next.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(SecretError::Unsettled)
}

async fn read(api: &Api<Secret>) -> Result<Found, SecretError> {
    Ok(Found {
        ca: api.get_opt(CA_SECRET).await?,
        leaves: BTreeMap::from([
            (Leaf::Dataplane, api.get_opt(DATAPLANE_SECRET).await?),
            (Leaf::Operator, api.get_opt(OPERATOR_SECRET).await?),
        ]),
    })
}

async fn write(
    api: &Api<Secret>,
    name: &str,
    old: Option<&Secret>,
    data: BTreeMap<String, ByteString>,
    type_: &str,
) -> Result<(), kube::Error> {
    let params = PostParams::default();
    match old {
        Some(old) => {
            let mut secret = old.clone();
            secret.data = Some(data);
            api.replace(name, &params, &secret).await?;
        }
        None => {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(name.into()),
                    labels: Some(BTreeMap::from([(
                        "app.kubernetes.io/managed-by".into(),
                        "roadstead-operator".into(),
                    )])),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                type_: Some(type_.into()),
                ..Secret::default()
            };
            api.create(&params, &secret).await?;
        }
    }
    Ok(())
}

type Data = BTreeMap<String, ByteString>;

/// The Secret that a step writes: name, what is there now, its new data, and its type.
fn change(
    step: Renewal,
    found: &Found,
    now: Timestamp,
) -> Result<(&'static str, Option<&Secret>, Data, &'static str), SecretError> {
    let mut ca = data(found.ca.as_ref());
    let mut put = |cert: &str, key: &str, new: KeyedCertificate| {
        ca.insert(cert.into(), ByteString(new.certificate_pem.into_bytes()));
        ca.insert(key.into(), ByteString(new.key_pem.into_bytes()));
    };
    match step {
        Renewal::CreateAuthority => {
            put(CA_CERT, CA_KEY, issue::authority(now)?);
            for name in [NEXT_CERT, NEXT_KEY, PREVIOUS_CERT] {
                ca.remove(name);
            }
        }
        Renewal::CreateNextAuthority => put(NEXT_CERT, NEXT_KEY, issue::authority(now)?),
        Renewal::PromoteNextAuthority => {
            for (from, to) in [
                (CA_CERT, PREVIOUS_CERT),
                (NEXT_CERT, CA_CERT),
                (NEXT_KEY, CA_KEY),
            ] {
                if let Some(value) = ca.remove(from) {
                    ca.insert(to.into(), value);
                }
            }
        }
        Renewal::DropPreviousAuthority => {
            ca.remove(PREVIOUS_CERT);
        }
        Renewal::Issue(which) => {
            let authority = KeyedCertificate {
                certificate_pem: text(&ca, CA_CERT),
                key_pem: text(&ca, CA_KEY),
            };
            let leaf = issue::leaf(which, &authority, now)?;
            let new = Data::from([
                (CA_CERT.into(), ByteString(bundle(&ca))),
                (
                    TLS_CERT.into(),
                    ByteString(leaf.certificate_pem.into_bytes()),
                ),
                (TLS_KEY.into(), ByteString(leaf.key_pem.into_bytes())),
            ]);
            return Ok((
                secret_name(which),
                leaf_secret(found, which),
                new,
                "kubernetes.io/tls",
            ));
        }
        Renewal::Bundle(which) => {
            let old = leaf_secret(found, which);
            let mut new = data(old);
            new.insert(CA_CERT.into(), ByteString(bundle(&ca)));
            return Ok((secret_name(which), old, new, "kubernetes.io/tls"));
        }
    }
    Ok((CA_SECRET, found.ca.as_ref(), ca, "Opaque"))
}

fn secret_name(which: Leaf) -> &'static str {
    match which {
        Leaf::Dataplane => DATAPLANE_SECRET,
        Leaf::Operator => OPERATOR_SECRET,
    }
}

fn leaf_secret(found: &Found, which: Leaf) -> Option<&Secret> {
    found.leaves.get(&which).and_then(Option::as_ref)
}

fn data(secret: Option<&Secret>) -> Data {
    secret.and_then(|s| s.data.clone()).unwrap_or_default()
}

fn text(data: &Data, name: &str) -> String {
    data.get(name)
        .map(|v| String::from_utf8_lossy(&v.0).into_owned())
        .unwrap_or_default()
}

/// The certificates of all authorities to trust now.
fn bundle(ca: &Data) -> Vec<u8> {
    [CA_CERT, NEXT_CERT, PREVIOUS_CERT]
        .into_iter()
        .filter_map(|name| ca.get(name))
        .flat_map(|pem| pem.0.iter().copied())
        .collect()
}

fn certificate(data: &Data, name: &str) -> Option<Certificate> {
    inspect(&data.get(name)?.0).ok()
}

/// The authorities in the Secret; one without its key is none.
fn authorities(ca: Option<&Secret>) -> Authorities {
    let ca = data(ca);
    let keyed = |cert, key| certificate(&ca, cert).filter(|_| ca.contains_key(key));
    Authorities {
        current: keyed(CA_CERT, CA_KEY),
        next: keyed(NEXT_CERT, NEXT_KEY),
        previous: certificate(&ca, PREVIOUS_CERT),
    }
}

fn leaf_state(found: &Found, which: Leaf) -> LeafState {
    let leaf = data(leaf_secret(found, which));
    let ca = data(found.ca.as_ref());
    LeafState {
        certificate: certificate(&leaf, TLS_CERT).filter(|_| leaf.contains_key(TLS_KEY)),
        bundle_is_current: leaf.get(CA_CERT).is_some_and(|pem| pem.0 == bundle(&ca)),
    }
}

fn operator_identity(found: &Found) -> Option<TlsIdentity> {
    let mut leaf = data(leaf_secret(found, Leaf::Operator));
    Some(TlsIdentity {
        ca_pem: leaf.remove(CA_CERT)?.0,
        certificate_pem: leaf.remove(TLS_CERT)?.0,
        key_pem: leaf.remove(TLS_KEY)?.0,
    })
}

fn first_expiry(found: &Found) -> Option<Timestamp> {
    let authority = authorities(found.ca.as_ref()).current;
    let leaves = found
        .leaves
        .values()
        .filter_map(|s| certificate(&data(s.as_ref()), TLS_CERT));
    leaves.chain(authority).map(|c| c.not_after).min()
}
