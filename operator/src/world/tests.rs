//! What follows for policies and pods from what watches tell; no API server, no clock.

use super::*;
use serde_json::{Value, json};
use tokenscope_core::{Grant, fingerprint};

const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const OTHER_ROLE: &str = "arn:aws:iam::111122223333:role/shop/other";
const SPIFFE_ISSUER: &str = "https://oidc.example.org";
const ISSUER: &str = "https://oidc.example/id/1";

/// A moment of the day on which everything happens.
fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}:00Z").parse().unwrap()
}

/// A world of the namespace `shop` at ten o'clock, in which every list was whole.
struct Test {
    world: World,
    now: Timestamp,
    version: u32,
}

impl Test {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let mut test = Self {
            world: World::new(
                settings,
                "tokenscope-system",
                Some(SPIFFE_ISSUER.into()),
                Identities::default(),
            ),
            now: at("10:00"),
            version: 100,
        };
        test.namespace("shop", &json!({}));
        for change in [
            Change::Pod(Event::InitDone),
            Change::Namespace(Event::InitDone),
            Change::ServiceAccount(Event::InitDone),
            Change::Policy(Event::InitDone),
            Change::ClusterPolicy(Event::InitDone),
            Change::Issuer(Issuer::Known(ISSUER.into())),
        ] {
            test.world.apply(change, test.now);
        }
        assert_eq!(test.world.waits_for(), None);
        test
    }

    fn apply(&mut self, change: Change) {
        self.world.apply(change, self.now);
    }

    fn namespace(&mut self, name: &str, labels: &Value) {
        let object = json!({"metadata": {"name": name, "labels": labels}});
        self.apply(Change::Namespace(Event::Apply(serde_json::from_value(object).unwrap())));
    }

    fn account(&mut self, name: &str, role: &str, annotated_at: Timestamp) {
        let fields = json!({"f:metadata": {"f:annotations": {"f:tokenscope.io/role-arn": {}}}});
        let object = json!({"metadata": {
            "name": name, "namespace": "shop", "creationTimestamp": at("01:00").to_string(),
            "annotations": {"tokenscope.io/role-arn": role},
            "managedFields": [
                {"manager": "a", "operation": "Update", "time": at("01:00").to_string(), "fieldsV1": {"f:metadata": {}}},
                {"manager": "kubectl-annotate", "operation": "Update", "time": annotated_at.to_string(), "fieldsV1": fields},
            ],
        }});
        self.apply(Change::ServiceAccount(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
    }

    /// A policy of generation 1 from six o'clock.
    fn policy(&mut self, name: &str, spec: &Value) -> PolicyName {
        self.policy_object(name, 1, spec)
    }

    fn policy_object(&mut self, name: &str, generation: i64, spec: &Value) -> PolicyName {
        self.version += 1;
        let policy = PolicyName::namespaced("shop", name);
        let status = self.world.objects.get(&policy).map(|known| known.status.clone());
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {
                "name": name, "namespace": "shop", "uid": name, "generation": generation,
                "resourceVersion": self.version.to_string(), "creationTimestamp": at("06:00").to_string(),
            },
            "spec": spec, "status": status,
        });
        self.apply(Change::Policy(Event::Apply(serde_json::from_value(object).unwrap())));
        policy
    }

    fn cluster_policy(&mut self, name: &str, spec: &Value) -> PolicyName {
        let object = json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "ClusterTokenScopePolicy",
            "metadata": {"name": name, "uid": name, "generation": 1, "creationTimestamp": at("06:00").to_string()},
            "spec": spec,
        });
        self.apply(Change::ClusterPolicy(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
        PolicyName::cluster(name)
    }

    fn pod(&mut self, name: &str, created: Timestamp, annotations: &Value) {
        let pod = pod("shop", name, created, annotations);
        self.apply(Change::Pod(Event::Apply(serde_json::from_value(pod).unwrap())));
    }

    /// A pod with what the webhook would write on it now.
    fn injected_pod(&mut self, name: &str, created: Timestamp) {
        self.injected_pod_with(name, created, None);
    }

    /// The same with a sidecar of this image in its record, and in the pod unless the image is empty.
    fn injected_pod_with(&mut self, name: &str, created: Timestamp, sidecar: Option<&str>) {
        self.pod(name, created, &json!({}));
        self.pass();
        let around = &self.world.namespaces["shop"];
        let surroundings = self.world.surroundings("shop", around, "orders").unwrap();
        let Decision::Granted(granted) = surroundings.decide(&around.pods[name].pod, self.now) else {
            panic!("nothing is granted");
        };
        let grants: Vec<(&str, &Grant)> = granted.containers.iter().map(|found| ("app", &found.grant)).collect();
        let record = json!({
            "grants": [{"policy": grants[0].1.policy.as_ref().unwrap().to_string(), "role": ROLE, "containers": ["app"], "env": []}],
            "hash": fingerprint("orders", grants), "sidecar": sidecar.is_some(),
        });
        let annotations = json!({"tokenscope.io/grant": record.to_string(), "tokenscope.io/reviewed": "granted"});
        let mut object = pod("shop", name, created, &annotations);
        object["metadata"]["labels"] = json!({"app": "orders"});
        if let Some(image) = sidecar.filter(|image| !image.is_empty()) {
            object["spec"]["initContainers"] = json!([{"name": "tokenscope-sidecar", "image": image}]);
        }
        self.apply(Change::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    }

    fn identity(&mut self, app: &str) {
        let object = json!({"metadata": {"name": app}, "spec": {"podSelector": {"matchLabels": {"app": app}}}});
        let object = serde_json::from_value(object).unwrap();
        self.apply(Change::Identities(Some(Event::Apply(object))));
    }

    fn pass(&mut self) {
        self.world.pass(self.now);
    }

    /// What should be written, and is then.
    fn written(&mut self) -> Vec<PolicyName> {
        self.pass();
        let mut written = Vec::new();
        while let Some(name) = self.world.take_concerned() {
            if let Some((present, wanted)) = self.world.statuses(&name, self.now)
                && *present != wanted
            {
                self.world.objects.get_mut(&name).unwrap().status = wanted;
                written.push(name);
            }
        }
        written
    }

    fn status(&mut self, name: &PolicyName) -> PolicyStatus {
        self.written();
        self.world.objects[name].status.clone()
    }

    /// matched, injected, missed, outdated
    fn counts(&mut self, name: &PolicyName) -> [i64; 4] {
        let status = self.status(name);
        [
            status.matched_pods,
            status.injected_pods,
            status.missed_pods,
            status.outdated_pods,
        ]
        .map(Option::unwrap)
    }

    fn reasons(&mut self, name: &PolicyName) -> [String; 3] {
        let status = self.status(name);
        ["Accepted", "Active", "Ready"].map(|kind| {
            status
                .conditions
                .iter()
                .find(|found| found.type_ == kind)
                .unwrap()
                .reason
                .clone()
        })
    }

    fn ready_message(&mut self, name: &PolicyName) -> String {
        let status = self.status(name);
        status
            .conditions
            .into_iter()
            .find(|found| found.type_ == "Ready")
            .unwrap()
            .message
    }

    fn totals(&self) -> [i64; 4] {
        let Tally {
            matched,
            injected,
            missed,
            outdated,
            ..
        } = self.world.totals();
        [matched, injected, missed, outdated]
    }
}

fn pod(namespace: &str, name: &str, created: Timestamp, annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "creationTimestamp": created.to_string(),
            "annotations": annotations,
        },
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    })
}

fn default_role(role: &str) -> Value {
    json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": role}})
}

#[test]
fn a_pod_with_what_it_should_have_is_injected() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));

    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "UpToDate"]);
    assert_eq!(test.totals(), [1, 1, 0, 0]);
}

#[test]
fn a_pod_without_a_grant_is_missed_if_the_policy_was_there_first() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.pod("before", at("05:59"), &json!({}));
    test.pod("after", at("06:00"), &json!({}));

    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);
    assert_eq!(test.reasons(&policy)[2], "MissedPods");
    let missed: Vec<_> = test.world.missed().map(|(key, _)| key.1.to_string()).collect();
    assert_eq!(missed, ["after"]);
    let report = test.world.report(&("shop".into(), "after".into()), test.now).unwrap();
    assert!(report.message.contains("TokenScopePolicy shop/orders"), "{report:?}");
}

#[test]
fn a_pod_with_another_grant_is_outdated() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));
    test.policy_object("orders", 2, &default_role(OTHER_ROLE));

    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
    assert_eq!(test.reasons(&policy)[2], "OutdatedPods");
}

#[test]
fn a_new_generation_counts_from_when_it_was_seen() {
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    test.pod("old", at("07:00"), &json!({}));
    test.written();
    test.policy_object("orders", 2, &default_role(ROLE));
    test.pod("new", at("10:00"), &json!({}));

    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);
    let noted = test.status(&policy).generation_observed_at.unwrap();
    assert_eq!(noted, Time(at("10:00")));

    // Another operator that starts later believes what was noted.
    test.now = at("12:00");
    let status = test.status(&policy);
    let mut later = Test::new();
    later.now = at("12:00");
    later.policy_object("orders", 2, &default_role(ROLE));
    later.world.objects.get_mut(&policy).unwrap().status = status;
    later.pod("new", at("10:00"), &json!({}));
    assert_eq!(later.counts(&policy), [1, 0, 1, 0]);
}

#[test]
fn a_pod_whose_policy_no_longer_grants_is_outdated_for_it() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));
    let mut disabled = default_role(ROLE);
    disabled["disabled"] = true.into();
    test.policy_object("orders", 2, &disabled);

    assert_eq!(test.counts(&policy), [0, 0, 0, 1]);
    assert_eq!(test.reasons(&policy), ["Valid", "Disabled", "NotInForce"]);
}

#[test]
fn pods_that_are_reviewed_and_refused_are_not_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [OTHER_ROLE]}}));
    test.pod(
        "warned",
        at("07:00"),
        &json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/reviewed": "refused"}),
    );
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.totals(), [0; 4]);

    test.policy_object("orders", 2, &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1], "a restart would help it now");
}

#[test]
fn pods_that_ask_and_were_never_reviewed_are_missed_also_where_nothing_is_granted() {
    let mut test = Test::new();
    test.pod("asks", at("07:00"), &json!({"tokenscope.io/role-arn": ROLE}));
    test.pass();

    assert_eq!(test.totals(), [1, 0, 1, 0]);
    let report = test.world.report(&("shop".into(), "asks".into()), test.now).unwrap();
    assert!(report.message.contains("a new pod would be refused"), "{report:?}");
}

#[test]
fn pods_older_than_the_annotation_of_their_service_account_are_not_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    test.account("orders", ROLE, at("08:00"));
    test.pod("before", at("07:00"), &json!({}));
    test.pod("after", at("09:00"), &json!({}));

    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);
}

#[test]
fn pods_created_outside_the_schedule_are_not_missed() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["activeSchedule"] = json!({"cron": "0 8 * * *", "duration": "4h", "timeZone": "UTC"});
    let policy = test.policy("orders", &spec);
    test.pod("early", at("07:00"), &json!({}));
    test.pod("inside", at("09:00"), &json!({}));
    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);

    assert_eq!(test.world.next_change(), Some(at("12:00")));
    test.now = at("12:00");
    assert!(test.world.is_stale(test.now));
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.reasons(&policy), ["Valid", "OutsideSchedule", "NotInForce"]);
}

#[test]
fn finished_pods_and_those_of_namespaces_that_are_left_out_do_not_count() {
    let mut test = Test::new();
    let everywhere = json!({"subjects": [{}], "roles": {"default": ROLE}});
    let policy = test.cluster_policy("all", &everywhere);
    test.namespace("kube-system", &json!({}));
    test.namespace("tokenscope-system", &json!({}));
    test.namespace("out", &json!({"tokenscope.io/inject": "false"}));
    for namespace in ["kube-system", "tokenscope-system", "out"] {
        let object = pod(namespace, "a", at("07:00"), &json!({}));
        test.apply(Change::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    }
    test.pod("runs", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);

    let mut finished = pod("shop", "runs", at("07:00"), &json!({}));
    finished["status"]["phase"] = "Succeeded".into();
    test.apply(Change::Pod(Event::Apply(serde_json::from_value(finished).unwrap())));
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.world.missed().count(), 0);
    test.namespace("out", &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);
}

#[test]
fn a_deleted_pod_leaves_no_trace_also_where_only_a_new_list_shows_it() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    for name in ["a", "b"] {
        test.pod(name, at("07:00"), &json!({}));
    }
    assert_eq!(test.counts(&policy), [2, 0, 2, 0]);
    test.apply(Change::Pod(Event::Init));
    let left = pod("shop", "b", at("07:00"), &json!({}));
    test.apply(Change::Pod(Event::InitApply(
        serde_json::from_value(left.clone()).unwrap(),
    )));
    test.apply(Change::Pod(Event::InitDone));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);
    test.apply(Change::Pod(Event::Delete(serde_json::from_value(left).unwrap())));
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.totals(), [0; 4]);
}

#[test]
fn two_defaults_for_one_pod_show_on_both_policies_until_one_goes() {
    let mut test = Test::new();
    let one = test.policy("one", &default_role(ROLE));
    let two = test.policy("two", &default_role(OTHER_ROLE));
    let same = test.policy(
        "same",
        &json!({"subjects": [{"serviceAccounts": ["other"]}], "roles": {"default": ROLE}}),
    );
    for (policy, other) in [(&one, "shop/two"), (&two, "shop/one")] {
        assert_eq!(test.reasons(policy)[2], "Conflict");
        let message = test.ready_message(policy);
        assert!(
            message.contains(other) && message.contains(ROLE) && message.contains(OTHER_ROLE),
            "{message}"
        );
    }
    assert_eq!(test.reasons(&same)[2], "UpToDate");

    test.policy_object("two", 2, &default_role(&format!("{OTHER_ROLE}s")));
    assert!(test.ready_message(&one).contains(&format!("{OTHER_ROLE}s")));
    test.policy_object("two", 3, &default_role(ROLE));
    assert_eq!(test.written().len(), 2);
    assert_eq!(test.reasons(&one)[2], "UpToDate");
    test.policy_object("two", 4, &default_role(OTHER_ROLE));
    assert_eq!(test.reasons(&one)[2], "Conflict");
    test.world.remove_policy(&two);
    assert_eq!(test.written(), std::slice::from_ref(&one));
    assert_eq!(test.reasons(&one)[2], "UpToDate");
}

#[test]
fn a_conflict_ends_when_one_side_expires() {
    let mut test = Test::new();
    let one = test.policy("one", &default_role(ROLE));
    let mut ending = default_role(OTHER_ROLE);
    ending["expiresAt"] = at("11:00").to_string().into();
    let two = test.policy("two", &ending);
    assert_eq!(test.reasons(&one)[2], "Conflict");
    test.now = at("11:00");
    assert!(test.world.is_stale(test.now));
    assert_eq!(test.reasons(&one)[2], "UpToDate");
    assert_eq!(test.reasons(&two), ["Valid", "Expired", "NotInForce"]);
}

#[test]
fn an_unusable_policy_says_what_is_wrong_and_the_others_go_on() {
    let mut test = Test::new();
    let bad = test.policy("bad", &json!({"subjects": [{}], "roles": {"default": "nonsense"}}));
    let shape = test.policy("shape", &json!({"subjects": 7}));
    let good = test.policy("good", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));

    assert_eq!(test.reasons(&bad), ["Invalid", "Unusable", "NotAccepted"]);
    assert_eq!(test.reasons(&shape), ["Invalid", "Unusable", "NotAccepted"]);
    let message = test.status(&bad).conditions[0].message.clone();
    assert!(message.starts_with("spec.roles.default: \"nonsense\""), "{message}");
    assert_eq!(test.counts(&good), [1, 1, 0, 0]);
}

#[test]
fn a_source_that_this_version_lacks_is_not_accepted() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["token"] = json!({"source": "Issuer"});
    let policy = test.policy("orders", &spec);
    assert_eq!(test.reasons(&policy), ["SourceNotAvailable", "Unusable", "NotAccepted"]);
    assert_eq!(test.status(&policy).trust_policies, []);
}

/// The sidecar's image of an installation that says nothing about it.
fn sidecar_image() -> String {
    Settings::default().sidecar.image.into()
}

fn from_spiffe(spiffe: &Value) -> Value {
    let mut spec = default_role(ROLE);
    spec["token"] = json!({"source": "SPIFFE", "spiffe": spiffe});
    spec
}

#[test]
fn the_trust_policy_of_a_spiffe_id_names_the_spiffe_providers_issuer() {
    let mut test = Test::new();
    let policy = test.policy(
        "orders",
        &from_spiffe(&json!({"spiffeId": "spiffe://example.org/orders"})),
    );
    let trust = test.status(&policy).trust_policies;
    let document: Value = serde_json::from_str(&trust[0].document).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(
        statement["Principal"]["Federated"],
        "arn:aws:iam::111122223333:oidc-provider/oidc.example.org"
    );
    assert_eq!(
        statement["Condition"]["StringEquals"]["oidc.example.org:sub"],
        "spiffe://example.org/orders"
    );
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "UpToDate"]);

    let open = test.policy("open", &from_spiffe(&json!({"trustDomain": "example.org"})));
    assert_eq!(test.status(&open).trust_policies, []);
    let message = test.ready_message(&open);
    assert!(message.contains("spec.token.spiffe.spiffeId is left out"), "{message}");

    for (issuer, why) in [(None, "spiffe.issuer says it"), (Some("http://x"), "is no https URL")] {
        test.world.spiffe_issuer = issuer.map(Into::into);
        test.world.concern_all();
        assert_eq!(test.status(&policy).trust_policies, []);
        let message = test.ready_message(&policy);
        assert!(message.contains(why), "{message}");
    }
}

#[test]
fn a_pod_without_the_sidecar_of_its_record_is_missed_and_one_with_an_old_sidecar_outdated() {
    let mut test = Test::new();
    let policy = test.policy("orders", &from_spiffe(&json!({})));
    test.injected_pod_with("good", at("07:00"), Some(&sidecar_image()));
    test.injected_pod_with("own-file", at("07:00"), None);
    assert_eq!(test.counts(&policy), [2, 2, 0, 0]);
    test.injected_pod_with("old", at("07:00"), Some("tokenscope-sidecar:0"));
    assert_eq!(test.counts(&policy), [3, 2, 0, 1]);
    assert_eq!(test.reasons(&policy)[2], "OutdatedPods");
    let message = test.ready_message(&policy);
    assert!(message.contains("another sidecar than new ones get"), "{message}");
    test.injected_pod_with("without", at("07:00"), Some(""));
    assert_eq!(test.counts(&policy), [4, 2, 1, 1]);
    assert_eq!(test.reasons(&policy)[2], "MissedPods");
}

#[test]
fn pods_that_no_cluster_spiffe_id_selects_are_told_of_where_there_are_any() {
    let mut test = Test::new();
    let policy = test.policy("orders", &from_spiffe(&json!({})));
    let other = test.policy("other", &default_role(ROLE));
    test.injected_pod_with("a", at("07:00"), Some(&sidecar_image()));
    assert_eq!(test.reasons(&policy)[2], "UpToDate", "there is no controller manager");

    test.apply(Change::Identities(Some(Event::InitDone)));
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "NoSpiffeIdentity"]);
    let message = test.ready_message(&policy);
    assert!(message.starts_with("1 of 1 pods match no ClusterSPIFFEID"), "{message}");
    assert_eq!(test.reasons(&other)[2], "UpToDate");

    test.identity("carts");
    assert_eq!(test.reasons(&policy)[2], "NoSpiffeIdentity");
    test.identity("orders");
    assert_eq!(test.reasons(&policy)[2], "UpToDate");
    test.apply(Change::Identities(Some(Event::Init)));
    test.apply(Change::Identities(Some(Event::InitDone)));
    assert_eq!(test.reasons(&policy)[2], "NoSpiffeIdentity");
    test.apply(Change::Identities(None));
    assert_eq!(test.reasons(&policy)[2], "UpToDate");
}

#[test]
fn trust_policies_are_given_for_exact_roles() {
    let mut test = Test::new();
    let spec = json!({
        "subjects": [{"serviceAccounts": ["orders"], "podSelector": {"matchLabels": {"app": "orders"}}}],
        "roles": {"default": ROLE, "allowed": [ROLE, OTHER_ROLE, "arn:aws:iam::111122223333:role/shop/*"]},
    });
    let policy = test.policy("orders", &spec);
    let trust = test.status(&policy).trust_policies;
    let roles: Vec<_> = trust.iter().map(|trust| trust.role_arn.as_str()).collect();
    assert_eq!(roles, [ROLE, OTHER_ROLE]);
    let document: Value = serde_json::from_str(&trust[0].document).unwrap();
    let statement = &document["Statement"][0];
    assert_eq!(
        statement["Principal"]["Federated"],
        "arn:aws:iam::111122223333:oidc-provider/oidc.example/id/1"
    );
    assert_eq!(
        statement["Condition"]["StringEquals"]["oidc.example/id/1:sub"],
        "system:serviceaccount:shop:orders"
    );
    assert!(trust[0].notes[0].contains("podSelector"));

    test.apply(Change::Issuer(Issuer::Unknown));
    assert_eq!(test.status(&policy).trust_policies, []);
    assert!(test.ready_message(&policy).contains("has not said what its issuer is"));
}

#[test]
fn at_most_twenty_trust_policies_are_given_and_the_status_says_so() {
    let mut test = Test::new();
    let allowed: Vec<String> = (10..40).map(|n| format!("{ROLE}-{n}")).collect();
    let policy = test.policy("many", &json!({"subjects": [{}], "roles": {"allowed": allowed}}));
    assert_eq!(test.status(&policy).trust_policies.len(), 20);
    assert!(test.ready_message(&policy).contains("20 of 30 roles"));
}

#[test]
fn nothing_is_written_twice() {
    let mut test = Test::new();
    test.policy("orders", &default_role(ROLE));
    test.policy("bad", &json!({"subjects": 7}));
    test.pod("a", at("07:00"), &json!({}));
    assert_eq!(test.written().len(), 2);

    test.now = at("10:05");
    test.world.concern_all();
    assert_eq!(test.written(), [], "also when all is looked at again");
    // The watch brings what was written.
    test.policy("orders", &default_role(ROLE));
    test.pod("a", at("07:00"), &json!({"somebody.else/annotation": "x"}));
    assert!(!test.world.is_stale(test.now));
    assert_eq!(test.written(), []);
}

#[test]
fn what_somebody_else_wrote_into_the_status_is_corrected() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let right = test.status(&policy);
    test.world.objects.get_mut(&policy).unwrap().status = PolicyStatus::default();
    test.policy("orders", &default_role(ROLE));
    test.world.concern(policy.clone());
    test.now = at("10:05");
    let mut again = test.status(&policy);
    for (present, before) in again.conditions.iter_mut().zip(&right.conditions) {
        present.last_transition_time = before.last_transition_time.clone();
    }
    assert_eq!(again, right);
}

#[test]
fn a_status_keeps_the_time_of_a_condition_until_it_flips() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.written();
    test.now = at("11:00");
    test.pod("a", at("10:30"), &json!({}));
    let status = test.status(&policy);
    let times: Vec<_> = status
        .conditions
        .iter()
        .map(|found| found.last_transition_time.0)
        .collect();
    assert_eq!(times, [at("10:00"), at("10:00"), at("11:00")], "only Ready has flipped");
}

#[test]
fn every_pod_of_many_is_judged_and_every_policy_of_many_has_its_status() {
    let mut test = Test::new();
    for namespace in 0..20 {
        let name = format!("n{namespace}");
        test.namespace(&name, &json!({"team": name}));
        for policy in 0..50 {
            let object = json!({
                "metadata": {"name": format!("p{policy}"), "namespace": name, "uid": "u", "generation": 1},
                "spec": {"subjects": [{"serviceAccounts": [format!("a{policy}")]}], "roles": {"default": ROLE}},
            });
            let mut object = object;
            object["apiVersion"] = "tokenscope.io/v1alpha1".into();
            object["kind"] = "TokenScopePolicy".into();
            test.apply(Change::Policy(Event::InitApply(
                serde_json::from_value(object).unwrap(),
            )));
        }
        for number in 0..250 {
            let mut object = pod(&name, &format!("pod-{number}"), at("07:00"), &json!({}));
            object["spec"]["serviceAccountName"] = format!("a{}", number % 50).into();
            test.apply(Change::Pod(Event::InitApply(serde_json::from_value(object).unwrap())));
        }
    }
    assert_eq!(test.written().len(), 1_000);
    assert_eq!(test.totals(), [5_000, 0, 5_000, 0]);
    for name in test.world.objects.keys().cloned().collect::<Vec<_>>() {
        assert_eq!(test.counts(&name), [5, 0, 5, 0]);
    }
}
