//! Leader election by a Lease: one operator acts at a time.
//!
//! Whoever holds the Lease renews it; another one takes it when its record has not changed for the duration that the
//! holder wrote, by the observer's own clock, so clocks need not agree. A holder that cannot renew stops acting
//! before another one may start. Every change is made for one version of the Lease, so two cannot both win.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::causes::whole;
use crate::http::Health;

/// How long a Lease holds after its last renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);

/// How long a holder goes on acting after its last renewal: it stops well before another one may start.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// Time between renewals, and between looks at another one's Lease.
pub const RENEW_INTERVAL: Duration = Duration::from_secs(2);

/// How long one call to the API may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: make it.
    Create,
    /// It is free, over or ours: write our name into it.
    Take,
    /// Another one holds it.
    Wait,
}

/// A Lease as seen: its record, and for how long it has not changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen<'a> {
    /// The record.
    pub spec: &'a LeaseSpec,
    /// Time since the record was first seen like this.
    pub unchanged_for: Duration,
}

/// What `me` should do about the Lease.
pub fn step(seen: Option<&Seen<'_>>, me: &str) -> Step {
    let Some(seen) = seen else {
        return Step::Create;
    };
    let holder = seen.spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = seen.spec.lease_duration_seconds.unwrap_or_default();
    let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    if holder.is_empty() || holder == me || seen.unchanged_for > duration {
        Step::Take
    } else {
        Step::Wait
    }
}

/// The record that `me` writes over `old`.
pub fn record(old: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let holds = old.is_some_and(|o| o.holder_identity.as_deref() == Some(me));
    let acquired = old.filter(|_| holds).and_then(|o| o.acquire_time.clone());
    let transitions = old.and_then(|o| o.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(me.into()),
        lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
        acquire_time: acquired.or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions + i32::from(old.is_some() && !holds)),
        ..LeaseSpec::default()
    }
}

/// One operator's claim to the Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    health: Health,
    /// The Lease as last read or written, and since when it looks like that.
    last: Option<(Lease, Instant)>,
}

impl Elector {
    /// A claim of `me` to the Lease `name`.
    pub fn new(api: Api<Lease>, name: &str, me: &str, health: Health) -> Self {
        Elector {
            api,
            name: name.into(),
            me: me.into(),
            health,
            last: None,
        }
    }

    /// Waits until this operator holds the Lease.
    pub async fn acquire(&mut self) {
        let mut said = String::new();
        loop {
            let attempt = timeout(CALL_TIMEOUT, self.attempt()).await;
            self.health.set_ready(matches!(attempt, Ok(Ok(_))));
            let news = match attempt {
                Ok(Ok(true)) => {
                    info!(lease = self.name, identity = self.me, "this operator leads");
                    return;
                }
                Ok(Ok(false)) => match self.holder() {
                    Some(holder) => format!("{holder} leads"),
                    None => "another operator was faster".into(),
                },
                Ok(Err(error)) => format!("it cannot be read or written: {}", whole(&error)),
                Err(_) => "the API server does not answer".into(),
            };
            // Once, not every two seconds.
            if said != news {
                info!(lease = self.name, "waits for the Lease: {news}");
                said = news;
            }
            sleep(RENEW_INTERVAL).await;
        }
    }

    /// Renews the Lease; returns when it is lost or could not be renewed in time.
    pub async fn hold(&mut self) {
        let mut renewed_at = Instant::now();
        loop {
            sleep(RENEW_INTERVAL).await;
            let started = Instant::now();
            match timeout(CALL_TIMEOUT, self.attempt()).await {
                Ok(Ok(true)) => {
                    renewed_at = started;
                    self.health.set_ready(true);
                    continue;
                }
                Ok(Ok(false)) if self.holder().as_ref() != Some(&self.me) => {
                    warn!(
                        lease = self.name,
                        holder = self.holder(),
                        "the Lease is another operator's"
                    );
                    return;
                }
                Ok(Ok(false)) => debug!("the Lease was changed meanwhile"),
                Ok(Err(error)) => debug!(%error, "the Lease was not renewed"),
                Err(_) => debug!("the Lease was not renewed in time"),
            }
            self.health.set_ready(false);
            if renewed_at.elapsed() + CALL_TIMEOUT > RENEW_DEADLINE {
                warn!(
                    lease = self.name,
                    "the Lease could not be renewed; this operator stops acting"
                );
                return;
            }
        }
    }

    /// Gives the Lease back, so that another operator need not wait for its end.
    pub async fn release(&mut self) {
        let Some((mut lease, _)) = self.last.take() else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_deref() == Some(&self.me))
        else {
            return;
        };
        spec.holder_identity = None;
        let params = PostParams::default();
        let replaced = self.api.replace(&self.name, &params, &lease);
        if let Ok(Err(error)) = timeout(CALL_TIMEOUT, replaced).await {
            debug!(%error, "the Lease was not given back");
        }
    }

    fn holder(&self) -> Option<String> {
        self.last.as_ref()?.0.spec.as_ref()?.holder_identity.clone()
    }

    /// Reads the Lease and takes or renews it; `false` if another one holds it.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let found = self.api.get_opt(&self.name).await?;
        let now = Instant::now();
        let since = match (&found, &self.last) {
            (Some(found), Some((last, since))) if found.spec == last.spec => *since,
            _ => now,
        };
        let spec = found.as_ref().map(|l| l.spec.clone().unwrap_or_default());
        let seen = spec.as_ref().map(|spec| Seen {
            spec,
            unchanged_for: now.duration_since(since),
        });
        let step = step(seen.as_ref(), &self.me);
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        if step == Step::Wait {
            self.last = Some((lease, since));
            return Ok(false);
        }
        lease.spec = Some(record(spec.as_ref(), &self.me, Timestamp::now()));
        let written = match step {
            Step::Create => self.api.create(&PostParams::default(), &lease).await,
            Step::Take | Step::Wait => {
                self.api
                    .replace(&self.name, &PostParams::default(), &lease)
                    .await
            }
        };
        match written {
            Ok(lease) => {
                self.last = Some((lease, Instant::now()));
                Ok(true)
            }
            // Another one was faster; the next look shows who.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: Option<&str>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(Into::into),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn who_may_take_a_lease() {
        let rows = [
            ("ours", Some("me"), 1, Step::Take),
            ("ours, and over", Some("me"), 100, Step::Take),
            ("another's", Some("you"), 0, Step::Wait),
            ("another's, almost over", Some("you"), 15, Step::Wait),
            ("another's, over", Some("you"), 16, Step::Take),
            ("given back", None, 0, Step::Take),
            ("given back as an empty name", Some(""), 0, Step::Take),
        ];
        for (name, holder, seconds, expected) in rows {
            let spec = spec(holder);
            let seen = Seen {
                spec: &spec,
                unchanged_for: Duration::from_secs(seconds),
            };
            assert_eq!(step(Some(&seen), "me"), expected, "{name}");
        }
        assert_eq!(step(None, "me"), Step::Create);
    }

    #[test]
    fn a_record_keeps_its_history() {
        let early = Timestamp::from_second(1_800_000_000).expect("a time");
        let late = Timestamp::from_second(1_800_000_010).expect("a time");
        let first = record(None, "me", early);
        assert_eq!(first.lease_transitions, Some(0));
        let renewed = record(Some(&first), "me", late);
        assert_eq!(renewed.acquire_time, Some(MicroTime(early)));
        assert_eq!(renewed.renew_time, Some(MicroTime(late)));
        assert_eq!(renewed.lease_transitions, Some(0));
        let taken = record(Some(&renewed), "you", late);
        assert_eq!(taken.acquire_time, Some(MicroTime(late)));
        assert_eq!(taken.lease_transitions, Some(1));
    }

    #[test]
    fn a_holder_stops_before_another_one_may_start() {
        assert!(RENEW_DEADLINE < LEASE_DURATION);
        assert!(RENEW_INTERVAL + CALL_TIMEOUT < RENEW_DEADLINE);
    }
}
