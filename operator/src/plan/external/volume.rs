//! Volumes that are namespaces of an appliance: bound once, then followed. Their data is never touched.

use roadstead_api::v1;
use roadstead_crds::condition::{self, DELETING, READY, Status, reason};
use roadstead_crds::quantity::for_people;
use roadstead_crds::{ExternalNamespace, NVMeNamespace, NVMeNamespaceStatus};

use super::Claims;
use super::view::{Subsystem, View};
use crate::plan::index::Index;
use crate::plan::placement::{Bound, VolumeKey, bound, is_protected};
use crate::plan::reach::list_names;
use crate::plan::write::{Change, Kind, Note, Write};
use crate::plan::{protect, release, version};

/// What a condition says.
type Verdict = (Status, &'static str, String);

/// The write that the volume needs, if any; claims what it binds.
pub(in crate::plan) fn decide<'a>(
    index: &Index<'a>,
    claims: &mut Claims<'a>,
    name: &'a str,
    namespace: &'a NVMeNamespace,
) -> Option<Write> {
    let meta = &namespace.metadata;
    let object = version(Kind::Namespace, meta);
    let protected = is_protected(meta.finalizers.as_ref());
    let holders = index.attachments_of.get(name).map(Vec::as_slice);
    let holders = holders.unwrap_or_default();
    let is_going = meta.deletion_timestamp.is_some();
    if is_going && !protected {
        return None;
    }
    if is_going && holders.is_empty() {
        let mut write = release(object, meta);
        write.notes.extend(bound(namespace).map(|_| left()));
        return Some(write);
    }
    if !is_going && !protected {
        return Some(protect(object, meta));
    }
    let old = namespace.status.clone().unwrap_or_default();
    let mut new = old.clone();
    new.conditions.retain(|c| c.type_ == READY);
    let verdict = match bound(namespace) {
        Some(bound) => follow(index, &bound, &mut new),
        None if is_going => None,
        None => Some(bind(index, claims, name, namespace, &mut new)),
    };
    let now = index.snapshot.time();
    let next = |type_: &str, (status, reason, message): Verdict| {
        let generation = meta.generation;
        condition::next(
            &old.conditions,
            type_,
            status,
            reason,
            message,
            generation,
            &now,
        )
    };
    if let Some(verdict) = verdict {
        new.observed_generation = meta.generation;
        new.conditions = vec![next(READY, verdict)];
    }
    if is_going {
        let names = holders
            .iter()
            .map(|(name, a)| format!("{name} (node {})", a.spec.node));
        let names: Vec<String> = names.collect();
        let names = list_names(names.iter().map(String::as_str));
        let message = format!("attached by {names}; it goes when they are gone");
        let deleting = (Status::True, reason::WAITING_FOR_ATTACHMENTS, message);
        new.conditions.push(next(DELETING, deleting));
    }
    let changed = namespace.status.as_ref() != Some(&new) && new != NVMeNamespaceStatus::default();
    let conditions = (old.conditions.clone(), new.conditions.clone());
    changed.then(|| Write::status(object, Change::NamespaceStatus(new), conditions))
}

/// What is said when the object goes.
fn left() -> Note {
    Note {
        warning: false,
        reason: reason::LEFT_IN_PLACE.into(),
        message: "its data stays where it is, on the appliance".into(),
    }
}

/// Binds the volume to what its spec names.
fn bind<'a>(
    index: &Index<'a>,
    claims: &mut Claims<'a>,
    name: &'a str,
    namespace: &'a NVMeNamespace,
    new: &mut NVMeNamespaceStatus,
) -> Verdict {
    let (nqn, found, target) = match seek(index, namespace) {
        Ok(found) => found,
        Err((reason, message)) => return (Status::False, reason, message),
    };
    let key = VolumeKey::of(nqn, &found.uuid, &found.nguid, found.nsid);
    if let Some(other) = claims.get(&key).filter(|other| **other != name) {
        let message = format!("NVMeNamespace {other} is this namespace already: use that one");
        return (Status::False, reason::ALREADY_BOUND, message);
    }
    claims.insert(key, name);
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    new.target = Some(target.into());
    new.nqn = Some(nqn.into());
    new.nsid = Some(found.nsid);
    new.uuid = given(&found.uuid);
    new.nguid = given(&found.nguid);
    measure(found, new);
    online(target)
}

/// The one namespace that the spec names, with its subsystem and Target; else a reason and a sentence.
fn seek<'a>(
    index: &Index<'a>,
    namespace: &'a NVMeNamespace,
) -> Result<(&'a str, &'a v1::ExternalNamespace, &'a str), (&'static str, String)> {
    let wanted = namespace.spec.external.as_ref();
    let (Some(wanted), Some(name)) = (wanted, namespace.spec.target.as_deref()) else {
        return Err((
            reason::INVALID_SPEC,
            "target and external are needed".into(),
        ));
    };
    let Some(target) = index.snapshot.targets.get(name) else {
        let message = format!("there is no Target {name}: create it");
        return Err((reason::TARGET_NOT_FOUND, message));
    };
    if target.spec.external.is_none() {
        let message =
            format!("Target {name} is no appliance: leave external out to get a volume there");
        return Err((reason::INVALID_SPEC, message));
    }
    if target.metadata.deletion_timestamp.is_some() {
        return Err((reason::NO_TARGET, format!("Target {name} is being deleted")));
    }
    let unknown = View::default();
    let view = index.views.get(name).unwrap_or(&unknown);
    let suits = |nqn: &str| wanted.nqn.as_deref().is_none_or(|given| given == nqn);
    let all = view.subsystems.iter().filter(|(nqn, _)| suits(nqn));
    let found: Vec<_> = all
        .clone()
        .flat_map(|(nqn, s)| s.namespaces.unwrap_or_default().iter().map(|n| (*nqn, n)))
        .filter(|(_, n)| is_named(wanted, n))
        .collect();
    match *found.as_slice() {
        [(nqn, found)] if found.message.is_empty() => Ok((nqn, found, name)),
        [(_, found)] => {
            let message = format!("it cannot be used: {}", found.message);
            Err((reason::UNUSABLE, message))
        }
        [(first, _), (second, _), ..] => {
            let message = format!(
                "{} is there several times on Target {name}, in {first} and {second}: name one by its UUID, or say which by \
                 external.nqn",
                words(wanted)
            );
            Err((reason::INVALID_SPEC, message))
        }
        [] => Err(missing(name, wanted, all.map(|(_, s)| s), view.is_seen)),
    }
}

/// Why nothing was found.
fn missing<'v, 'a: 'v>(
    target: &str,
    wanted: &ExternalNamespace,
    subsystems: impl Iterator<Item = &'v Subsystem<'a>> + Clone,
    is_seen: bool,
) -> (&'static str, String) {
    if !is_seen || !subsystems.clone().any(|s| s.namespaces.is_some()) {
        let message =
            format!("Target {target} is not reached: see kubectl describe target {target}");
        return (reason::UNREACHABLE, message);
    }
    let mut message = format!(
        "Target {target} shows these nodes no namespace with {}; what it shows is in the Target's status",
        words(wanted)
    );
    if subsystems.clone().any(|s| s.is_cut_off) {
        message.push_str(", and it has more than are looked at");
    }
    (reason::NOT_ON_APPLIANCE, message)
}

fn words(wanted: &ExternalNamespace) -> String {
    match (&wanted.uuid, &wanted.nguid, wanted.nsid) {
        (Some(uuid), ..) => format!("UUID {uuid}"),
        (None, Some(nguid), _) => format!("NGUID {nguid}"),
        (None, None, nsid) => format!("identifier {}", nsid.unwrap_or_default()),
    }
}

fn is_named(wanted: &ExternalNamespace, found: &v1::ExternalNamespace) -> bool {
    let plain = |text: &str| text.replace('-', "").to_lowercase();
    match (&wanted.uuid, &wanted.nguid, wanted.nsid) {
        (Some(uuid), ..) => !found.uuid.is_empty() && plain(&found.uuid) == plain(uuid),
        (None, Some(nguid), _) => !found.nguid.is_empty() && plain(&found.nguid) == plain(nguid),
        (None, None, nsid) => nsid == Some(found.nsid),
    }
}

/// Follows what the volume is bound to; `None`: nobody can tell yet.
fn follow(index: &Index<'_>, bound: &Bound<'_>, new: &mut NVMeNamespaceStatus) -> Option<Verdict> {
    let unknown = View::default();
    let view = index.views.get(bound.target).unwrap_or(&unknown);
    if !index.snapshot.targets.contains_key(bound.target) {
        let message = format!(
            "there is no Target {} any more: create it again",
            bound.target
        );
        return Some((Status::False, reason::TARGET_NOT_FOUND, message));
    }
    if !view.is_seen {
        return None;
    }
    let subsystem = view.subsystems.get(bound.nqn);
    let Some(subsystem) = subsystem.filter(|s| s.namespaces.is_some()) else {
        let why = subsystem.and_then(Subsystem::trouble);
        let why = why.unwrap_or_else(|| format!("see kubectl describe target {}", bound.target));
        let message = format!("{} is not reached: {why}", bound.nqn);
        return Some((Status::Unknown, reason::UNREACHABLE, message));
    };
    let gone = |message: String| Some((Status::False, reason::NOT_ON_APPLIANCE, message));
    let Some(found) = subsystem.find(bound) else {
        let recorded = match (bound.uuid, bound.nguid) {
            (Some(uuid), _) => format!("UUID {uuid}"),
            (None, Some(nguid)) => format!("NGUID {nguid}"),
            (None, None) => format!("identifier {}", bound.nsid),
        };
        return gone(format!(
            "{} does not show the namespace with {recorded} any more",
            bound.nqn
        ));
    };
    let is_unnamed = bound.uuid.is_none() && bound.nguid.is_none();
    if is_unnamed && !(found.uuid.is_empty() && found.nguid.is_empty()) {
        return gone(format!(
            "namespace {} of {} has a name now ({}{}), and had none when this volume was bound: it is another one",
            bound.nsid, bound.nqn, found.uuid, found.nguid
        ));
    }
    if !found.message.is_empty() {
        let message = format!("it cannot be used: {}", found.message);
        return Some((Status::False, reason::UNUSABLE, message));
    }
    measure(found, new);
    Some(online(bound.target))
}

fn measure(found: &v1::ExternalNamespace, new: &mut NVMeNamespaceStatus) {
    new.size_bytes = found.size_bytes;
    new.capacity_bytes = found.size_bytes;
    new.allocated_bytes = 0;
    new.block_size = found.block_size;
    new.size = for_people(found.size_bytes);
}

fn online(target: &str) -> Verdict {
    let message = format!("appliance {target} shows it");
    (Status::True, reason::ONLINE, message)
}
