//! roadstead-operator: moves the cluster to what its Roadstead objects say.
//!
//! One loop ([`run`]): take a [`snapshot`] of every object and every node's report, [`plan`] from it (pure), write what
//! the plan says to the API ([`writer`]), and hand every node its whole state ([`dataplanes`]). Nothing is
//! remembered between two turns that is not in the API or on the nodes, so the operator may die at any step.
//!
//! Assumed: one operator acts at a time ([`lead`]). Should two overlap for a moment, writes for an outdated version
//! of an object are refused by the API, and what a node was told is corrected by the real leader's next plan.

pub mod backoff;
pub mod cache;
pub mod causes;
pub mod cluster;
pub mod dataplanes;
pub mod delays;
pub mod events;
pub mod http;
pub mod lead;
mod link;
pub mod metrics;
pub mod pki;
pub mod plan;
pub mod policy;
pub mod run;
pub mod secrets;
pub mod snapshot;
pub mod writer;
