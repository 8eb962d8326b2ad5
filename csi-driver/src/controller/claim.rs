//! What a claim and its Kubernetes namespace say of the transport, read once, when the volume is made.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use kube::Api;

use super::Controller;
use super::error::ControllerError;
use crate::request::{Parameters, TransportNeeds};

impl Controller {
    /// What the volume asks for: the claim before the StorageClass, and the policy of the claim's namespace before that of
    /// the class, for who chooses a class does not choose the namespace.
    pub(super) async fn transport_needs(
        &self,
        parameters: &Parameters,
    ) -> Result<TransportNeeds, ControllerError> {
        let class = parameters.transport.clone();
        let claim = parameters.claim.as_deref().and_then(|c| c.split_once('/'));
        let Some((namespace, name)) = claim else {
            return Ok(class);
        };
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = claims.get_opt(name).await;
        let claim = claim.map_err(ControllerError::api("get the PersistentVolumeClaim"))?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let around = namespaces.get_opt(namespace).await;
        let around = around.map_err(ControllerError::api("get the claim's namespace"))?;
        let of_claim = TransportNeeds::of_claim(&annotations(claim.map(|c| c.metadata)))?;
        let of_namespace = TransportNeeds::of_namespace(&annotations(around.map(|n| n.metadata)));
        Ok(of_claim.or(of_namespace).or(class))
    }
}

fn annotations(meta: Option<kube::api::ObjectMeta>) -> BTreeMap<String, String> {
    meta.and_then(|meta| meta.annotations).unwrap_or_default()
}
