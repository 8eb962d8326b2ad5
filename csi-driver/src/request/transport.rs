//! What a volume asks of its transport: StorageClass parameters, and annotations of the claim.

use std::collections::BTreeMap;
use std::str::FromStr;

use roadstead_crds::transport::{Fallback, Need, TransportChoice, UnknownWord, Workload};

use super::RequestError;

/// Annotations of ours begin with this.
const PREFIX: &str = "roadstead.io/";
/// Parameter that names a TransportPolicy; the same word as an annotation of a Kubernetes namespace.
pub(super) const POLICY: &str = "transportPolicy";
/// Annotation of a Kubernetes namespace: the TransportPolicy of its volumes.
const POLICY_ANNOTATION: &str = "roadstead.io/transport-policy";
/// Words that are parameters, and with [`PREFIX`] annotations of a claim.
pub(super) const WORDS: [&str; 4] = ["fallback", "needs", "transport", "workload"];

/// What is asked for; `None` where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransportNeeds {
    /// The transport.
    pub transport: Option<TransportChoice>,
    /// What is taken where nothing fits.
    pub fallback: Option<Fallback>,
    /// The workload class.
    pub workload: Option<Workload>,
    /// Rows of the policy's table.
    pub needs: Option<Vec<Need>>,
    /// The policy.
    pub policy: Option<String>,
}

impl TransportNeeds {
    /// Takes the parameter or annotation `name`, which `place` calls for people; `false` if it is none of ours.
    pub(super) fn set(
        &mut self,
        name: &str,
        place: &str,
        value: &str,
    ) -> Result<bool, RequestError> {
        let bad = |error| RequestError::UnknownWord {
            place: place.to_owned(),
            error,
        };
        match name {
            "transport" => self.transport = Some(word(value).map_err(bad)?),
            "fallback" => self.fallback = Some(word(value).map_err(bad)?),
            "workload" => self.workload = Some(word(value).map_err(bad)?),
            "needs" => self.needs = Some(needs(value).map_err(bad)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What a claim's annotations say.
    ///
    /// # Errors
    /// [`RequestError::UnknownWord`] or [`RequestError::UnknownAnnotation`].
    pub fn of_claim(annotations: &BTreeMap<String, String>) -> Result<Self, RequestError> {
        let mut said = Self::default();
        for (name, value) in annotations {
            let Some(word) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if !said.set(word, &format!("annotation {name}"), value)? {
                return Err(RequestError::UnknownAnnotation {
                    name: name.clone(),
                    known: WORDS.map(|word| format!("{PREFIX}{word}")).join(", "),
                });
            }
        }
        Ok(said)
    }

    /// What a Kubernetes namespace's annotations say.
    pub fn of_namespace(annotations: &BTreeMap<String, String>) -> Self {
        Self {
            policy: annotations.get(POLICY_ANNOTATION).cloned(),
            ..Self::default()
        }
    }

    /// This, and where it says nothing the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            transport: self.transport.or(other.transport),
            fallback: self.fallback.or(other.fallback),
            workload: self.workload.or(other.workload),
            needs: self.needs.or(other.needs),
            policy: self.policy.or(other.policy),
        }
    }
}

fn word<W: FromStr<Err = UnknownWord>>(value: &str) -> Result<W, UnknownWord> {
    value.trim().parse()
}

/// Rows, with commas between; each one once.
fn needs(value: &str) -> Result<Vec<Need>, UnknownWord> {
    let words = value.split(',').map(str::trim).filter(|w| !w.is_empty());
    let mut needs = words.map(str::parse).collect::<Result<Vec<Need>, _>>()?;
    needs.sort_unstable();
    needs.dedup();
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(pairs: &[(&str, &str)]) -> Result<TransportNeeds, RequestError> {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        TransportNeeds::of_claim(&pairs.collect())
    }

    #[test]
    fn annotations_of_a_claim() {
        let said = claim(&[
            (
                "volume.kubernetes.io/storage-provisioner",
                "csi.roadstead.io",
            ),
            ("roadstead.io/transport", "roce"),
            ("roadstead.io/fallback", "tcp"),
            ("roadstead.io/workload", "low-latency"),
            (
                "roadstead.io/needs",
                "direct-connect, minimise-cpu-load,direct-connect",
            ),
        ]);
        let expected = TransportNeeds {
            transport: Some(TransportChoice::Roce),
            fallback: Some(Fallback::Tcp),
            workload: Some(Workload::LowLatency),
            needs: Some(vec![Need::DirectConnect, Need::MinimiseCpuLoad]),
            policy: None,
        };
        assert_eq!(said, Ok(expected));
        assert_eq!(
            claim(&[("roadstead.io/needs", "")]).unwrap().needs,
            Some(Vec::new())
        );
    }

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        for (name, value, says) in [
            (
                "transport",
                "rdma",
                "annotation roadstead.io/transport: 'rdma' is no transport; known are: auto, tcp, roce",
            ),
            (
                "workload",
                "fast",
                "known are: general, capacity, high-performance, low-latency",
            ),
            (
                "fallback",
                "iscsi",
                "'iscsi' is no fallback; known are: tcp, none",
            ),
            (
                "needs",
                "direct-connect, speed",
                "'speed' is no need; known are: standard-driver-and-nic, ",
            ),
            (
                "trasnport",
                "tcp",
                "unknown annotation 'roadstead.io/trasnport'; known are: roadstead.io/fallback, ",
            ),
        ] {
            let error = claim(&[(&format!("roadstead.io/{name}"), value)]).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn the_claim_comes_before_the_class() {
        let class = TransportNeeds {
            transport: Some(TransportChoice::Tcp),
            workload: Some(Workload::Capacity),
            policy: Some("strict".into()),
            ..TransportNeeds::default()
        };
        let merged = claim(&[("roadstead.io/transport", "auto")])
            .unwrap()
            .or(class);
        assert_eq!(merged.transport, Some(TransportChoice::Auto));
        assert_eq!(merged.workload, Some(Workload::Capacity));
        assert_eq!(merged.policy.as_deref(), Some("strict"));
    }
}
