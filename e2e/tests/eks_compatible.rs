//! In place of the EKS webhook: its annotations, names and paths, with and without a policy.

use anyhow::ensure;
use serde_json::{Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::ISSUER;
use tokenscope_e2e::fixtures::{
    ACCOUNT, ADMIN, CARTS, ORDERS, PROPAGATION, Shop, environment, mounted_at, orders_may, reviewed, sts, variable,
    volume, who_is, with_annotations,
};
use tokenscope_e2e::{Shared, eventually, install};

static SHARED: Shared = Shared::new(|| install::Options {
    values: json!({"eksCompatible": true, "policy": {"required": false}, "eksPodIdentity": {"config": {"identities": [
        {"namespace": "associated", "serviceAccount": "carts"}, {"namespace": "closed", "serviceAccount": "carts"},
    ]}}}),
    ..install::Options::default()
});

const VOLUME: &str = "aws-iam-token";
const MOUNT: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_with_the_annotation_of_eks_needs_no_policy() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "migrated", &[]).await.unwrap();
    control_plane
        .create_service_account("migrated", "carts", &[("eks.amazonaws.com/role-arn", CARTS)])
        .await
        .unwrap();
    let mut pod = shop.pod("carts-1");
    pod["spec"]["serviceAccountName"] = json!("carts");
    let answer = shop.granted(&pod).await.unwrap();
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    let pod = answer.body;
    assert_eq!(
        volume(&pod, VOLUME).unwrap()["projected"]["sources"],
        json!([{"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}}])
    );
    assert_eq!(mounted_at(&pod, "app", VOLUME), Some(MOUNT));
    assert_eq!(
        environment(&pod, "app"),
        [
            ("AWS_ROLE_ARN", CARTS),
            (TOKEN_FILE, "/var/run/secrets/eks.amazonaws.com/serviceaccount/token")
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );

    let provider = ISSUER.strip_prefix("https://").unwrap();
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{provider}")},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            format!("{provider}:aud"): "sts.amazonaws.com", format!("{provider}:sub"): "system:serviceaccount:migrated:carts",
        }},
    }]});
    let sts = sts(control_plane, &["sts.amazonaws.com"], &[(CARTS, &trust)])
        .await
        .unwrap();
    let arn = who_is(control_plane, &sts, "migrated", "carts-1", "app").await.unwrap();
    assert!(
        arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/carts/")),
        "{arn}"
    );
    sts.stop().await;

    // Others stay as they are.
    shop.untouched(&shop.pod("plain")).await.unwrap();
}

#[tokio::test]
async fn every_annotation_of_eks_keeps_its_meaning() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "meanings", &[]).await.unwrap();
    let annotations = [
        ("eks.amazonaws.com/role-arn", ORDERS),
        ("eks.amazonaws.com/audience", "sts.amazonaws.com.cn"),
        ("eks.amazonaws.com/sts-regional-endpoints", "true"),
        ("eks.amazonaws.com/token-expiration", "7200"),
    ];
    control_plane
        .create_service_account("meanings", "annotated", &annotations)
        .await
        .unwrap();
    let mut pod = shop.pod("by-account");
    pod["spec"]["serviceAccountName"] = json!("annotated");
    pod["spec"]["containers"] = json!([
        {"name": "a", "image": "app"}, {"name": "b", "image": "app"}, {"name": "c", "image": "app"},
    ]);
    let token = |pod: &Value| volume(pod, VOLUME).unwrap()["projected"]["sources"][0]["serviceAccountToken"].clone();
    let by_account = shop.granted(&pod).await.unwrap().body;
    assert_eq!(
        token(&by_account),
        json!({"audience": "sts.amazonaws.com.cn", "expirationSeconds": 7200, "path": "token"})
    );
    for container in ["a", "b", "c"] {
        assert_eq!(
            variable(&by_account, container, "AWS_STS_REGIONAL_ENDPOINTS").as_deref(),
            Some("regional")
        );
    }

    pod["metadata"]["name"] = json!("by-pod");
    let pod = with_annotations(
        pod,
        &[
            ("eks.amazonaws.com/token-expiration", "900"),
            ("eks.amazonaws.com/skip-containers", "a, b"),
        ],
    );
    let by_pod = shop.granted(&pod).await.unwrap().body;
    assert_eq!(token(&by_pod)["expirationSeconds"], 900);
    assert_eq!((environment(&by_pod, "a"), environment(&by_pod, "b")), (vec![], vec![]));
    assert_eq!(variable(&by_pod, "c", "AWS_ROLE_ARN").as_deref(), Some(ORDERS));
}

#[tokio::test]
async fn an_annotation_of_ours_beats_that_of_eks() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "both-annotations", &[]).await.unwrap();
    let annotations = [
        ("eks.amazonaws.com/role-arn", ORDERS),
        ("tokenscope.io/role-arn", CARTS),
    ];
    control_plane
        .create_service_account("both-annotations", "both", &annotations)
        .await
        .unwrap();
    let mut pod = shop.pod("both");
    pod["spec"]["serviceAccountName"] = json!("both");
    let pod = shop.granted(&pod).await.unwrap().body;

    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(CARTS));
}

#[tokio::test]
async fn a_role_that_is_no_role_is_refused_and_not_injected() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "no-role", &[]).await.unwrap();
    for (account, annotations, part) in [
        (
            "typo",
            [("eks.amazonaws.com/role-arn", "orders"), ("a.example.com/b", "")],
            "annotation eks.amazonaws.com/role-arn",
        ),
        (
            "zero",
            [
                ("eks.amazonaws.com/role-arn", ORDERS),
                ("eks.amazonaws.com/token-expiration", "0"),
            ],
            "annotation eks.amazonaws.com/token-expiration",
        ),
    ] {
        control_plane
            .create_service_account("no-role", account, &annotations)
            .await
            .unwrap();
        let mut pod = shop.pod(account);
        pod["spec"]["serviceAccountName"] = json!(account);
        let refusal = shop.refused(&pod, part).await.unwrap();
        assert!(refusal.contains("of the service account"), "{refusal}");
    }
    // An empty one means none, as it does there.
    control_plane
        .create_service_account("no-role", "empty", &[("eks.amazonaws.com/role-arn", "")])
        .await
        .unwrap();
    let mut pod = shop.pod("empty");
    pod["spec"]["serviceAccountName"] = json!("empty");
    shop.untouched(&pod).await.unwrap();
}

#[tokio::test]
async fn a_policy_that_selects_the_pod_decides_even_where_none_is_required() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "selected", &[]).await.unwrap();
    let pod = shop.granted(&shop.asking("without", ADMIN)).await.unwrap().body;
    assert_eq!(variable(&pod, "app", "AWS_ROLE_ARN").as_deref(), Some(ADMIN));
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    shop.refused(
        &shop.asking("with", ADMIN),
        "TokenScopePolicy selected/orders does not allow",
    )
    .await
    .unwrap();
    shop.granted(&shop.asking("allowed", ORDERS)).await.unwrap();
}

/// Case O1 of `e2e/tests/cases/own.md`: the API server refuses a mirror pod that has a token, and then nobody sees the static pod.
#[tokio::test]
async fn o01_a_mirror_pod_is_shown_as_it_is() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "mirrored", &[]).await.unwrap();
    let everybody =
        json!({"subjects": [{"serviceAccounts": ["*"]}], "roles": {"allowed": [ORDERS], "default": ORDERS}});
    shop.policy("everybody", everybody).await.unwrap();
    shop.granted(&shop.pod("known")).await.unwrap();
    let mirror = |name: &str, annotation: &str| {
        let annotations = [("kubernetes.io/config.mirror", "0123456789abcdef"), (annotation, ADMIN)];
        let mut pod = with_annotations(shop.pod(name), &annotations);
        pod["spec"].as_object_mut().unwrap().remove("serviceAccountName");
        pod["spec"]["nodeName"] = json!("node-1");
        pod
    };
    for (name, annotation) in [("by-default", "example.com/note"), ("asking", "tokenscope.io/role-arn")] {
        let pod = shop.untouched(&mirror(name, annotation)).await.unwrap().body;
        assert!(pod["spec"].get("volumes").is_none(), "{pod}");
    }
}

/// As charts have it that were written for clusters without any webhook.
#[tokio::test]
async fn a_pod_that_brings_volume_mount_and_variables_of_eks_itself_is_left_alone() {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, "by-hand", &[]).await.unwrap();
    control_plane
        .create_service_account("by-hand", "carts", &[("eks.amazonaws.com/role-arn", CARTS)])
        .await
        .unwrap();
    let token =
        json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"}});
    let mut pod = shop.pod("by-hand");
    pod["spec"] = json!({
        "serviceAccountName": "carts", "automountServiceAccountToken": false,
        "containers": [{
            "name": "app", "image": "app",
            "env": [{"name": "AWS_ROLE_ARN", "value": CARTS}, {"name": TOKEN_FILE, "value": format!("{MOUNT}/token")}],
            "volumeMounts": [{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}],
        }],
        "volumes": [{"name": VOLUME, "projected": {"defaultMode": 420, "sources": [token]}}],
    });
    eventually(PROPAGATION, "the webhook knows the service account", async || {
        let mut probe = shop.pod("probe");
        probe["spec"]["serviceAccountName"] = json!("carts");
        let answer = try_pod(&shop.client, &probe).await?;
        ensure!(reviewed(&answer.body) == Some("granted"), "{}", answer.body);
        Ok(())
    })
    .await
    .unwrap();
    let answer = tokenscope_e2e::admission::create_pod(&shop.client, &pod).await.unwrap();

    assert!(answer.accepted(), "{}", answer.message());
    for field in ["containers", "volumes"] {
        let (sent, stored) = (&pod["spec"][field][0], &answer.body["spec"][field][0]);
        for (key, value) in sent.as_object().unwrap() {
            assert_eq!(&stored[key], value, "{field}");
        }
    }
    assert_eq!(answer.body["spec"]["volumes"].as_array().unwrap().len(), 1);
}

const AGENT_VOLUME: &str = "eks-pod-identity-token";

/// A namespace with a service account that the configuration of EKS Pod Identity lists.
#[expect(clippy::unwrap_used, reason = "this is how tests fail")]
async fn listed(namespace: &str) -> Shop<'static> {
    let control_plane = &SHARED.environment().await.control_plane;
    let shop = Shop::open(control_plane, namespace, &[]).await.unwrap();
    let role = [("eks.amazonaws.com/role-arn", CARTS)];
    control_plane
        .create_service_account(namespace, "carts", &role)
        .await
        .unwrap();
    shop
}

/// A pod of this service account.
fn carts(shop: &Shop<'_>, name: &str) -> Value {
    let mut pod = shop.pod(name);
    pod["spec"]["serviceAccountName"] = json!("carts");
    pod
}

#[tokio::test]
async fn a_service_account_of_eks_pod_identity_is_sent_to_the_agent() {
    let shop = listed("associated").await;
    let answer = shop.granted(&carts(&shop, "carts-1")).await.unwrap();
    let warnings = answer.warnings.join(" ");
    assert!(
        warnings.contains("annotation eks.amazonaws.com/role-arn of service account carts has no effect"),
        "{warnings}"
    );
    let pod = answer.body;
    let folder = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount";
    assert_eq!(
        environment(&pod, "app"),
        [
            (
                "AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(),
                "http://169.254.170.23/v1/credentials".to_owned()
            ),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE".to_owned(),
                format!("{folder}/{AGENT_VOLUME}")
            ),
        ]
    );
    assert_eq!(mounted_at(&pod, "app", AGENT_VOLUME), Some(folder));
    assert_eq!(
        volume(&pod, AGENT_VOLUME).unwrap()["projected"]["sources"],
        json!([{"serviceAccountToken": {"audience": "pods.eks.amazonaws.com", "expirationSeconds": 79200, "path": AGENT_VOLUME}}])
    );
    assert_eq!(pod["metadata"]["labels"]["eks.amazonaws.com/pod-identity"], "enabled");

    // What was stored is taken over as it is by the review of its copy.
    let mut copy = shop.pod("copy");
    copy["spec"] = pod["spec"].clone();
    for field in ["nodeName", "serviceAccount"] {
        copy["spec"].as_object_mut().unwrap().remove(field);
    }
    let copy = shop.granted(&copy).await.unwrap().body;
    for field in ["containers", "volumes"] {
        assert_eq!(copy["spec"][field], pod["spec"][field], "{field}");
    }

    // Who asks for a role is refused, and not given another one.
    let asking = with_annotations(carts(&shop, "asking"), &[("tokenscope.io/role-arn", ORDERS)]);
    shop.refused(&asking, "it would get the role of the association")
        .await
        .unwrap();

    // Others stay as they are.
    shop.untouched(&shop.pod("plain")).await.unwrap();
}

#[tokio::test]
async fn a_policy_keeps_the_agents_token_from_pods_that_it_selects() {
    let shop = listed("closed").await;
    shop.granted(&carts(&shop, "without")).await.unwrap();

    let mut spec = json!({"subjects": [{"serviceAccounts": ["carts"]}], "roles": {"allowed": [CARTS], "default": CARTS},
        "audiences": {"allowed": ["sts.amazonaws.com"]}, "token": {"expirationSeconds": 86400}});
    shop.policy("carts", spec.clone()).await.unwrap();
    shop.refused(&carts(&shop, "closed"), "TokenScopePolicy closed/carts does not allow")
        .await
        .unwrap();

    spec["audiences"]["allowed"] = json!(["sts.amazonaws.com", "pods.eks.amazonaws.com"]);
    shop.policy("open", spec).await.unwrap();
    let answer = shop.granted(&carts(&shop, "open")).await.unwrap();
    let warnings = answer.warnings.join(" ");
    assert!(warnings.contains("and not the default role of"), "{warnings}");
    assert!(volume(&answer.body, AGENT_VOLUME).is_some(), "{}", answer.body);
    let record = answer.body["metadata"]["annotations"]["tokenscope.io/grant"]
        .as_str()
        .unwrap();
    assert!(
        record.contains("EKS Pod Identity association") && record.contains("TokenScopePolicy closed/open"),
        "{record}"
    );
}
