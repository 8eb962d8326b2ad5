//! Which way a volume takes to a node: a pure function of the policy, what the volume needs, what both ends can do, what
//! was measured and what failed lately.
//!
//! [`decide`] looks at every candidate: the path without the network, each RDMA portal, each TCP portal. A candidate is
//! rejected by the first rule that forbids it, and says so in a sentence; the others are put in order. Promises, tested as
//! properties:
//! - The same input gives the same decision.
//! - An end that can do more never gets a worse one: a rule looks at one candidate, so a new candidate takes nothing
//!   away from the others.
//! - Nothing that the volume or the policy excludes is chosen; TCP is taken in spite of a need only where the fallback is
//!   `tcp`, and the reason says that.

mod capability;
mod decide;
mod needs;
mod order;
mod reason;
mod roce;
mod why;

pub use capability::{Gid, Host, Link, Method, Portal, RdmaPort, RoceVersion, TargetNode};
pub use decide::{Candidate, Choice, Decision, Input, Path, decide};
pub use needs::Needs;
pub use order::{Measured, PathKey};
