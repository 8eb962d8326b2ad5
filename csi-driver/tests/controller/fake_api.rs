//! As much of a Kubernetes API server as the controller needs, in memory, and an operator of a few lines.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{Method, Response};
use axum::routing::any;
use futures::stream;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Kubernetes namespaces.
pub(crate) const NAMESPACES: &str = "namespaces";
/// Claims.
pub(crate) const CLAIMS: &str = "persistentvolumeclaims";

/// The objects, and what happened to them.
#[derive(Default)]
struct Store {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    history: Vec<(u64, String, Value)>,
}

/// What the operator does about an object.
pub(crate) enum Does {
    /// Nothing.
    Nothing,
    /// Writes this status, for the object's generation.
    Status(Value),
    /// Lifts the finalizer.
    LetGo,
}

type Operator = dyn Fn(&str, &Value) -> Does + Send + Sync;

/// The server.
#[derive(Clone)]
pub(crate) struct FakeApi {
    store: Arc<Mutex<Store>>,
    changed: watch::Sender<u64>,
    operator: Arc<Mutex<Arc<Operator>>>,
}

impl FakeApi {
    /// A server and a client of it.
    pub(crate) async fn start() -> (Self, Client) {
        let api = Self {
            store: Arc::default(),
            changed: watch::Sender::new(0),
            operator: Arc::new(Mutex::new(Arc::new(|_: &str, _: &Value| Does::Nothing))),
        };
        let router = Router::new()
            .route("/apis/roadstead.io/v1alpha1/{plural}", any(collection))
            .route("/apis/roadstead.io/v1alpha1/{plural}/{name}", any(single))
            .route("/api/v1/namespaces/{name}", any(around))
            .route(
                "/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}",
                any(claim),
            )
            .with_state(api.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let config = Config::new(format!("http://{address}").parse().unwrap());
        (api, Client::try_from(config).unwrap())
    }

    /// From now on every change is shown to this operator, and everything there is now.
    pub(crate) fn operator(&self, operator: impl Fn(&str, &Value) -> Does + Send + Sync + 'static) {
        *self.operator.lock().unwrap() = Arc::new(operator);
        for (plural, name) in self.names() {
            self.reconcile(&plural, &name);
        }
    }

    /// Names of everything, with its plural.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        self.store.lock().unwrap().objects.keys().cloned().collect()
    }

    /// An object.
    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let store = self.store.lock().unwrap();
        store.objects.get(&(plural.into(), name.into())).cloned()
    }

    /// Writes an object as somebody else.
    pub(crate) fn put(&self, plural: &str, name: &str, mut object: Value) {
        object["metadata"]["name"] = name.into();
        object["metadata"]["uid"] = format!("uid-{}", self.store.lock().unwrap().version).into();
        object["metadata"]["generation"] = 1.into();
        self.store(plural, name, object);
        self.reconcile(plural, name);
    }

    fn store(&self, plural: &str, name: &str, mut object: Value) -> Value {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        let version = store.version;
        object["apiVersion"] = "roadstead.io/v1alpha1".into();
        object["kind"] = kind(plural).into();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let key = (plural.to_owned(), name.to_owned());
        let old = store.objects.insert(key, object.clone());
        let change = if old.is_none() { "ADDED" } else { "MODIFIED" };
        let event = json!({"type": change, "object": object});
        store.history.push((version, plural.into(), event));
        self.changed.send_replace(version);
        object
    }

    fn remove(&self, plural: &str, name: &str) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        let version = store.version;
        if let Some(mut object) = store.objects.remove(&(plural.to_owned(), name.to_owned())) {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            let event = json!({"type": "DELETED", "object": object});
            store.history.push((version, plural.into(), event));
        }
        self.changed.send_replace(version);
    }

    fn reconcile(&self, plural: &str, name: &str) {
        let Some(mut object) = self.get(plural, name) else {
            return;
        };
        let operator = self.operator.lock().unwrap().clone();
        match operator(plural, &object) {
            Does::Nothing => {}
            Does::LetGo => self.remove(plural, name),
            Does::Status(status) => {
                if object["status"] != status {
                    object["status"] = status;
                    self.store(plural, name, object);
                }
            }
        }
    }
}

fn kind(plural: &str) -> &'static str {
    match plural {
        "targets" => "Target",
        "nvmenamespaces" => "NVMeNamespace",
        "nvmeattachments" => "NVMeAttachment",
        "nvmehosts" => "NVMeHost",
        NAMESPACES => "Namespace",
        CLAIMS => "PersistentVolumeClaim",
        other => panic!("no kind {other}"),
    }
}

/// A Ready condition for the object as it is.
pub(crate) fn ready(object: &Value, status: &str, reason: &str) -> Value {
    json!([{
        "type": "Ready", "status": status, "reason": reason, "message": format!("because of {reason}"),
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": object["metadata"]["generation"],
    }])
}

fn answer(code: u16, body: &Value) -> Response<Body> {
    let builder = Response::builder().status(code);
    builder.body(Body::from(body.to_string())).unwrap()
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": reason, "metadata": {}});
    answer(code, &status)
}

/// The query's parameters, decoded.
fn parameters(query: Option<String>) -> BTreeMap<String, String> {
    let query = query.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), decode(v))).collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
            u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
        } else {
            byte
        });
    }
    String::from_utf8(out).unwrap()
}

fn matches(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let field = query
        .get("fieldSelector")
        .and_then(|s| s.strip_prefix("metadata.name="));
    let by_name = field.is_none_or(|name| object["metadata"]["name"] == name);
    let by_label = query.get("labelSelector").is_none_or(|selector| {
        let labels = &object["metadata"]["labels"];
        match selector.split_once('=') {
            Some((key, value)) => labels[key] == value,
            None => !labels[selector].is_null(),
        }
    });
    by_name && by_label
}

async fn around(State(api): State<FakeApi>, Path(name): Path<String>) -> Response<Body> {
    core(&api, NAMESPACES, &name)
}

/// All claims of the tests are in one namespace.
async fn claim(
    State(api): State<FakeApi>,
    Path((_, name)): Path<(String, String)>,
) -> Response<Body> {
    core(&api, CLAIMS, &name)
}

/// An object of the API's core group.
fn core(api: &FakeApi, plural: &str, name: &str) -> Response<Body> {
    match api.get(plural, name) {
        None => failure(404, "NotFound"),
        Some(mut object) => {
            object["apiVersion"] = "v1".into();
            answer(200, &object)
        }
    }
}

async fn collection(
    State(api): State<FakeApi>,
    Path(plural): Path<String>,
    method: Method,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response<Body> {
    let query = parameters(query);
    if method == Method::POST {
        return create(&api, &plural, &body);
    }
    if query.contains_key("watch") {
        return follow(api, plural, query);
    }
    list(&api, &plural, &query)
}

fn create(api: &FakeApi, plural: &str, body: &Bytes) -> Response<Body> {
    let object: Value = serde_json::from_slice(body).unwrap();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    if api.get(plural, &name).is_some() {
        return failure(409, "AlreadyExists");
    }
    api.put(plural, &name, object);
    answer(201, &api.get(plural, &name).unwrap())
}

fn list(api: &FakeApi, plural: &str, query: &BTreeMap<String, String>) -> Response<Body> {
    let after = match query
        .get("continue")
        .map(|token| token.strip_prefix("after:"))
    {
        Some(None) => return failure(400, "BadRequest"),
        Some(Some(after)) => after,
        None => "",
    };
    let store = api.store.lock().unwrap();
    let all = store
        .objects
        .iter()
        .filter(|((p, name), _)| p == plural && name.as_str() > after);
    let mut items: Vec<&Value> = all.map(|(_, o)| o).filter(|o| matches(o, query)).collect();
    let limit = query
        .get("limit")
        .map_or(usize::MAX, |l| l.parse().unwrap());
    let mut metadata = json!({"resourceVersion": store.version.to_string()});
    if items.len() > limit {
        items.truncate(limit);
        let last = items[limit - 1]["metadata"]["name"].as_str().unwrap();
        metadata["continue"] = format!("after:{last}").into();
    }
    answer(
        200,
        &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}),
    )
}

fn follow(api: FakeApi, plural: String, query: BTreeMap<String, String>) -> Response<Body> {
    let from: u64 = query["resourceVersion"].parse().unwrap();
    let changed = api.changed.subscribe();
    let lines = stream::unfold((from, changed), move |(from, mut changed)| {
        let (api, plural, query) = (api.clone(), plural.clone(), query.clone());
        async move {
            loop {
                let next = {
                    let store = api.store.lock().unwrap();
                    let mut later = store.history.iter().filter(|(version, ..)| *version > from);
                    later
                        .find(|(_, p, event)| *p == plural && matches(&event["object"], &query))
                        .cloned()
                };
                if let Some((version, _, event)) = next {
                    return Some((
                        Ok::<_, Infallible>(format!("{event}\n")),
                        (version, changed),
                    ));
                }
                changed.changed().await.ok()?;
            }
        }
    });
    Response::new(Body::from_stream(lines))
}

async fn single(
    State(api): State<FakeApi>,
    Path((plural, name)): Path<(String, String)>,
    method: Method,
    body: Bytes,
) -> Response<Body> {
    let Some(mut object) = api.get(&plural, &name) else {
        return failure(404, "NotFound");
    };
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method == Method::PATCH {
        object["spec"]["size"] = sent["spec"]["size"].clone();
        let generation = object["metadata"]["generation"].as_u64().unwrap();
        object["metadata"]["generation"] = (generation + 1).into();
        api.store(&plural, &name, object);
        api.reconcile(&plural, &name);
    } else if method == Method::DELETE {
        let uid = &sent["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return failure(409, "Conflict");
        }
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        api.store(&plural, &name, object.clone());
        api.reconcile(&plural, &name);
        return answer(200, &object);
    }
    answer(200, &api.get(&plural, &name).unwrap())
}
