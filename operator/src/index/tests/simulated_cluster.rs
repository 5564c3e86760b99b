//! A cluster of objects, and an operator that may be restarted.

use super::*;

/// An object of the cluster.
#[derive(Clone)]
pub(super) enum Object {
    Namespace(Value),
    Account(Value),
    Policy(Value),
    ClusterPolicy(Value),
    Boundary(Value),
    Pod(Value),
}

/// How a watch tells of an object.
#[derive(Clone, Copy)]
pub(super) enum Told {
    InList,
    Put,
    Gone,
}

pub(super) fn event<K: serde::de::DeserializeOwned>(value: &Value, told: Told) -> Event<K> {
    let object = serde_json::from_value(value.clone()).unwrap();
    match told {
        Told::InList => Event::InitApply(object),
        Told::Put => Event::Apply(object),
        Told::Gone => Event::Delete(object),
    }
}

impl Object {
    pub(super) fn told(&self, told: Told) -> IndexEvent {
        match self {
            Self::Namespace(value) => IndexEvent::Namespace(event(value, told)),
            Self::Account(value) => IndexEvent::ServiceAccount(event(value, told)),
            Self::Policy(value) => IndexEvent::Policy(event(value, told)),
            Self::ClusterPolicy(value) => IndexEvent::ClusterPolicy(event(value, told)),
            Self::Boundary(value) => IndexEvent::Boundary(event(value, told)),
            Self::Pod(value) => IndexEvent::Pod(event(value, told)),
        }
    }

    /// What tells it apart from others.
    pub(super) fn key(&self) -> (std::mem::Discriminant<Self>, String) {
        let (Self::Namespace(value)
        | Self::Account(value)
        | Self::Policy(value)
        | Self::ClusterPolicy(value)
        | Self::Boundary(value)
        | Self::Pod(value)) = self;
        (std::mem::discriminant(self), value["metadata"]["name"].to_string())
    }
}

pub(super) fn metadata(name: &str, created: &str) -> Value {
    json!({"name": name, "uid": format!("{name} {created}"), "generation": 1, "creationTimestamp": at(created).to_string()})
}

pub(super) fn in_shop(name: &str, created: &str) -> Value {
    let mut metadata = metadata(name, created);
    metadata["namespace"] = "shop".into();
    metadata
}

pub(super) fn namespace(labels: &Value) -> Object {
    let mut metadata = metadata("shop", "01:00");
    metadata["labels"] = labels.clone();
    Object::Namespace(json!({"metadata": metadata}))
}

pub(super) fn account(created: &str, annotations: &Value) -> Object {
    let mut metadata = in_shop("orders", created);
    metadata["annotations"] = annotations.clone();
    Object::Account(json!({"metadata": metadata}))
}

pub(super) fn policy(name: &str, generation: i64, spec: &Value) -> Object {
    let mut metadata = in_shop(name, "02:00");
    metadata["generation"] = generation.into();
    Object::Policy(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy", "metadata": metadata, "spec": spec,
    }))
}

pub(super) fn cluster_policy(name: &str, spec: &Value) -> Object {
    Object::ClusterPolicy(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy", "metadata": metadata(name, "02:00"), "spec": spec,
    }))
}

pub(super) fn boundary(selector: &Value) -> Object {
    Object::Boundary(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": metadata("core", "02:00"),
        "spec": {"namespaceSelector": selector, "roles": ["arn:aws:iam::111122223333:role/none"]},
    }))
}

pub(super) fn running(name: &str, created: &str, annotations: &Value) -> Object {
    let mut object = super::pod("shop", name, at(created), annotations);
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders", "uid": "rs", "controller": true}]);
    Object::Pod(object)
}

/// A cluster, and an operator that may be restarted.
pub(super) struct SimulatedCluster {
    pub(super) test: Test,
    pub(super) present: Vec<Object>,
}

impl SimulatedCluster {
    /// With an operator since one o'clock, a policy that gives its pods a role, and these objects.
    pub(super) fn with(objects: &[Object]) -> Self {
        let mut present = vec![namespace(&json!({})), policy("orders", 1, &default_role(ROLE))];
        present.retain(|object| objects.iter().all(|other| other.key() != object.key()));
        present.extend_from_slice(objects);
        let test = Test::listing(
            &present
                .iter()
                .map(|object| object.told(Told::InList))
                .collect::<Vec<_>>(),
            at("03:00"),
        );
        Self { test, present }
    }

    pub(super) fn at(&mut self, time: &str) -> &mut Self {
        self.test.now = at(time);
        self
    }

    pub(super) fn put(&mut self, object: &Object) -> &mut Self {
        self.take(object);
        self.present.push(object.clone());
        self.test.apply(object.told(Told::Put));
        self.test.reassess();
        self
    }

    pub(super) fn delete(&mut self, object: &Object) -> &mut Self {
        self.take(object);
        self.test.apply(object.told(Told::Gone));
        self.test.reassess();
        self
    }

    pub(super) fn take(&mut self, object: &Object) {
        self.present.retain(|other| other.key() != object.key());
    }

    /// While no operator runs.
    pub(super) fn unseen(&mut self, gone: Option<&Object>, put: Option<&Object>) -> &mut Self {
        for object in gone.into_iter().chain(put) {
            self.take(object);
        }
        self.present.extend(put.cloned());
        self
    }

    pub(super) fn restart(&mut self, time: &str) -> &mut Self {
        let lists: Vec<_> = self.present.iter().map(|object| object.told(Told::InList)).collect();
        self.test = Test::listing(&lists, at(time));
        self
    }

    /// Missed and outdated pods, and how many the operator may evict.
    pub(super) fn found(&mut self) -> (i64, i64, usize) {
        let [_, _, missed, outdated] = self.test.counts(&PolicyName::namespaced("shop", "orders"));
        let evictable = self.test.index.findings().filter(|(_, finding)| finding.evictable);
        (missed, outdated, evictable.count())
    }

    pub(super) fn reason(&mut self) -> String {
        self.test.ready_reason(&PolicyName::namespaced("shop", "orders"))
    }
}
