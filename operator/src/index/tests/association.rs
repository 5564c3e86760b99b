//! Pods whose role an association of EKS Pod Identity decides.

use std::sync::Arc;

use tokenscope_core::Audience;
use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};

use super::*;

const VOLUME: &str = "eks-pod-identity-token";

/// An operator whose configuration lists `shop/orders`.
fn listed() -> Test {
    let config = r#"{"identities": [{"namespace": "shop", "serviceAccount": "orders"}]}"#;
    let mut settings = Settings {
        pod_identity: Some(Arc::new(
            PodIdentity::parse(config, PodIdentityAgent::default()).unwrap(),
        )),
        ..Settings::eks_compatible()
    };
    settings.lock.audiences.push(Audience::eks_pod_identity());
    Test::with(settings)
}

/// A pod with what EKS's webhook writes on it.
fn equipped(name: &str) -> Value {
    let mut object = pod("shop", name, at("07:00"), &json!({}));
    object["metadata"]["labels"] = json!({"app": "orders", "eks.amazonaws.com/pod-identity": "enabled"});
    object["spec"]["containers"] = json!([{"name": "app", "env": [
        {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"},
    ]}]);
    object["spec"]["volumes"] = json!([{"name": VOLUME, "projected": {"sources": [{"serviceAccountToken": {
        "audience": "pods.eks.amazonaws.com", "expirationSeconds": 79200, "path": VOLUME,
    }}]}}]);
    object
}

impl Test {
    fn put_pod(&mut self, object: &Value) {
        let object = serde_json::from_value(object.clone()).unwrap();
        self.apply(IndexEvent::Pod(Event::Apply(object)));
        self.reassess();
    }

    /// The same pod with the record that our webhook would write now.
    fn put_recorded(&mut self, mut object: Value) -> Value {
        self.put_pod(&object);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let kept = self.index.pods.value("shop", &name).unwrap();
        let Some(Decision::Associated(associated)) = self.index.decide("shop", kept, self.now) else {
            panic!("no association");
        };
        let policy = associated.containers[0]
            .association
            .policy
            .as_ref()
            .map(ToString::to_string);
        let record = json!({
            "grants": [{"policy": policy, "role": "EKS Pod Identity association", "containers": ["app"],
                "env": ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]}],
            "hash": Fingerprint::of_associated("orders", &associated, |_| "app").to_string(),
            "association": {"volume": VOLUME}, "labels": {"app": "orders"}, "annotations": {},
        });
        object["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record.to_string());
        object["metadata"]["labels"]["tokenscope.io/reviewed"] = json!("granted");
        self.put_pod(&object);
        object
    }
}

fn allowing() -> Value {
    json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"allowed": [ROLE]}, "token": {"expirationSeconds": 86400}})
}

#[test]
fn a_pod_with_the_record_of_an_association_has_what_it_should_have_until_the_policy_changes() {
    let mut test = listed();
    let policy = test.policy("orders", &allowing());
    test.put_recorded(equipped("orders-0"));
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);

    let mut other = allowing();
    other["token"]["expirationSeconds"] = json!(3600);
    test.policy_object("orders", 2, &other);
    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
}

#[test]
fn a_pod_without_the_agents_credentials_is_outdated_and_never_missed() {
    let mut test = listed();
    let policy = test.policy("orders", &allowing());
    test.pod("bare", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
}

#[test]
fn a_pod_that_the_eks_webhook_equipped_is_no_business_of_policies() {
    let mut test = listed();
    let policy = test.policy("orders", &allowing());
    test.put_pod(&equipped("orders-0"));
    assert_eq!(test.counts(&policy), [0, 0, 0, 0]);
}

#[test]
fn the_volume_of_the_record_is_no_token_that_a_pod_brings() {
    let mut test = listed();
    let policy = test.policy("orders", &allowing());
    let recorded = test.put_recorded(equipped("recorded"));
    // No policy grants it any more, but it was given by one.
    test.delete_policy(&policy);
    test.reassess();
    assert_eq!(test.index.pods_with_ungranted_token(), 0);

    let mut brought = recorded;
    brought["metadata"]["name"] = json!("brought");
    brought["metadata"]["uid"] = json!("uid-brought");
    brought["spec"]["volumes"][0]["name"] = json!("mine");
    test.put_pod(&brought);
    assert_eq!(test.index.pods_with_ungranted_token(), 1);
}

#[test]
fn f17_the_trust_policy_names_the_service_accounts_whose_role_an_association_decides() {
    let mut test = listed();
    let named = |test: &mut Test, policy: &PolicyName| {
        let notes = test.status(policy).trust_policies[0].notes.join("\n");
        assert!(!notes.contains("opt out"), "{notes}");
        notes.contains("association of EKS Pod Identity") && notes.ends_with("not name them: shop/orders")
    };
    let own = test.policy("orders", &default_role(ROLE));
    let other = json!({"subjects": [{"serviceAccounts": ["carts"]}], "roles": {"default": ROLE}});
    let other = test.policy("carts", &other);
    let in_shop = json!({"subjects": [{}], "roles": {"default": ROLE},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}});
    let all = test.cluster_policy("all", &in_shop);
    assert!(named(&mut test, &own));
    assert!(!named(&mut test, &other));
    assert!(named(&mut test, &all));

    // Without EKS's annotations the configuration says nothing.
    let mut test = Test::with(Settings {
        eks_compatible: false,
        ..listed().index.installation.settings
    });
    let own = test.policy("orders", &default_role(ROLE));
    assert!(!named(&mut test, &own));
}
