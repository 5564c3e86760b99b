//! The first three acts: a chain of roles, credentials from a sidecar, and tokens for third parties.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::control_plane::ISSUER;
use tokenscope_e2e::fixtures::ACCOUNT;
use tokenscope_xtask::root;

use super::stage::{
    ASSISTANT, ENDPOINT_PORT, EXCHANGE, OWN_ISSUER, PYTHON, REPORTS, SHOP, Stage, line, pod, variables,
};
use super::tokens;

const CHAIN_POLICY: &str = include_str!("../../../../examples/role-chain.yaml");
const FIRST_ROLE: &str = "arn:aws:iam::111122223333:role/shop/exchange";
const PARTNERS_ROLE: &str = "arn:aws:iam::444455556666:role/partner";
const EXTERNAL_ID: &str = "7f3e1c";
const CHAIN_PORT: u16 = 7081;
const CHAIN_STS: &str = "sts-of-the-chain";

const ENDPOINT_POLICY: &str = r#"apiVersion: tokenscope.io/v1alpha1
kind: TokenScopePolicy
metadata: {name: reports, namespace: shop}
spec:
  description: reports may use the archive of its team, and can read no token
  subjects:
  - serviceAccounts: [reports]
  roles:
    default: arn:aws:iam::111122223333:role/shop/reports
    allowed: [arn:aws:iam::111122223333:role/shop/reports, arn:aws:iam::111122223333:role/shop/closed]
  audiences: {allowed: [sts.amazonaws.com]}
  token: {source: Issuer}
  claims:
    principalTags: {team: "${namespace.labels['team']}"}
  aws:
    region: eu-central-1
    roleSessionName: ${pod.name}
    sessionPolicy:
      inline: |
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "arn:aws:iam::111122223333:role/archive/${aws:PrincipalTag/team}"}]}
  delivery: {type: Endpoint}
"#;
const REPORTS_ROLE: &str = "arn:aws:iam::111122223333:role/shop/reports";
/// A role that the policy allows, and that trusts nobody.
const CLOSED_ROLE: &str = "arn:aws:iam::111122223333:role/shop/closed";
const ARCHIVES: &str = "arn:aws:iam::111122223333:role/archive/";
const ENDPOINT_STS: &str = "sts-of-the-endpoint";

const OUTBOUND_POLICY: &str = include_str!("../../../../examples/outbound.yaml");
const BILLING: &str = "https://billing.example.com";
const ELSEWHERE: &str = "https://api.anthropic.com";
const VERIFIER: &str = "examples/verify/python/verify.py";

const SHOW_CHAIN: &str = include_str!("chain.py");
const SHOW_ENDPOINT: &str = include_str!("endpoint.py");
const STAY: &str = "import time; time.sleep(3600)";
const READ_TOKEN: &str = "import os, sys; sys.stdout.write(open(os.environ['BILLING_TOKEN_FILE']).read())";

/// The first act; gives the ARN with which the chain ends.
pub(super) fn chain(stage: &Stage<'_>) -> Result<String> {
    let Stage { tell, node, .. } = stage;
    tell.step("1. A chain: the pod's own role, then one in a partner's account, which asks for an external id");
    tell.quote(CHAIN_POLICY);
    stage.policy(CHAIN_POLICY, EXCHANGE)?;
    let trust = node.trust_policy(SHOP, EXCHANGE, FIRST_ROLE)?;
    let hops = node.eventually(
        Duration::from_secs(180),
        "the status has both sides of the step",
        || {
            let policy = node.get(&["tokenscopepolicy", EXCHANGE, "--namespace", SHOP])?;
            let hops = policy["status"]["roleChainPolicies"].as_array().cloned();
            hops.filter(|hops| hops.len() == 2)
                .with_context(|| policy["status"].to_string())
        },
    )?;
    let (permission, partner) = (
        document(&hops[0], "permissionPolicy")?,
        document(&hops[1], "trustPolicy")?,
    );
    tell.quote(&format!(
        "status, for {FIRST_ROLE}: its trust policy\n{:#}",
        parsed(&trust)?
    ));
    tell.quote(&format!("and its permission\n{permission:#}"));
    tell.quote(&format!(
        "for {PARTNERS_ROLE}: its trust policy, for the partner to create\n{partner:#}"
    ));
    let config = json!({
        "providers": [provider(ISSUER)],
        "roles": [
            {"arn": FIRST_ROLE, "trust_policy": parsed(&trust)?},
            {"arn": PARTNERS_ROLE, "trust_policy": partner},
        ],
        "permissions": [{"principal": FIRST_ROLE, "policies": [permission]}],
    });
    stage.sts.start(CHAIN_STS, CHAIN_PORT, &config)?;
    tell.done("an STS that judges as AWS documents it has both roles, made of just these documents");

    tell.step("A pod of service account exchange, with nothing of tokenscope's in its specification");
    stage.create(&pod("exchange-1", EXCHANGE, CHAIN_PORT, SHOW_CHAIN), EXTERNAL_ID)?;
    let log = stage.ended("exchange-1")?;
    tell.quote(&format!(
        "kubectl logs exchange-1: the file of AWS_CONFIG_FILE, and who the SDK is\n{log}"
    ));
    tell.quote(&format!("what STS logged:\n{}", stage.sts.decisions(CHAIN_STS)?));
    let caller = line(&log, "caller: ")?;
    ensure!(caller.contains("444455556666:assumed-role/partner/"), "{log}");
    tell.done("the unmodified SDK took the first role with the pod's token, and the partner's with the first one's credentials");
    Ok(caller)
}

/// The same policy, but for an external id that the partner didn't give.
pub(super) fn another_external_id(stage: &Stage<'_>) -> Result<()> {
    let Stage { tell, node, .. } = stage;
    tell.step("The same, but with an external id that the partner didn't give");
    let change = json!({"spec": {"aws": {"roleChain": [{"roleArn": PARTNERS_ROLE, "externalId": "guessed"}]}}});
    let patch = ["patch", "tokenscopepolicy", EXCHANGE, "--type=merge", "--patch"];
    node.kubectl_in(SHOP, &[&patch[..], &[&change.to_string()]].concat())?;
    stage.create(&pod("exchange-2", EXCHANGE, CHAIN_PORT, SHOW_CHAIN), "guessed")?;
    let log = stage.ended("exchange-2")?;
    let refused = line(&log, "refused: ")?;
    ensure!(
        refused.contains("AccessDenied") && refused.contains(PARTNERS_ROLE),
        "{log}"
    );
    tell.quote(&format!("kubectl logs exchange-2\nrefused: {refused}"));
    tell.done("the partner's trust policy refuses it, and the SDK says which step failed");
    Ok(())
}

/// The second act.
pub(super) fn endpoint(stage: &Stage<'_>) -> Result<()> {
    let Stage { tell, node, .. } = stage;
    tell.step("2. An endpoint: a sidecar takes the role, with a session policy and session tags together");
    tell.quote(ENDPOINT_POLICY);
    stage.policy(ENDPOINT_POLICY, REPORTS)?;
    let trust = parsed(&node.trust_policy(SHOP, REPORTS, REPORTS_ROLE)?)?;
    tell.quote(&format!("status.trustPolicies:\n{trust:#}"));
    let archive = |team: &str| {
        let statement = json!({
            "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")}, "Action": "sts:AssumeRole",
        });
        json!({"arn": format!("{ARCHIVES}{team}"), "trust_policy": {"Version": "2012-10-17", "Statement": [statement]}})
    };
    let may = json!({"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": format!("{ARCHIVES}*")});
    tell.quote(&format!("the role itself may take the archive of every team:\n{may}"));
    let config = json!({
        "providers": [provider(OWN_ISSUER)],
        "roles": [{"arn": REPORTS_ROLE, "trust_policy": trust}, archive("blue"), archive("red"), tokens::role(stage)?],
        "permissions": [{"principal": REPORTS_ROLE, "policies": [{"Version": "2012-10-17", "Statement": [may]}]}],
    });
    stage.sts.start(ENDPOINT_STS, ENDPOINT_PORT, &config)?;
    tell.done("the tag comes from the namespace's label, which is team=blue here");

    tell.step("A pod of service account reports");
    let stored = stage.create(
        &pod("reports-1", REPORTS, ENDPOINT_PORT, SHOW_ENDPOINT),
        "tokenscope-sidecar",
    )?;
    tell.quote(&format!(
        "the container's variables, of which none names a token of the role:\n{}",
        variables(&stored)
    ));
    let log = stage.ended("reports-1")?;
    tell.quote(&format!("kubectl logs reports-1\n{log}"));
    tell.quote(&format!("what STS logged:\n{}", stage.sts.decisions(ENDPOINT_STS)?));
    ensure!(line(&log, "files with a token (JWT): ")? == "none", "{log}");
    ensure!(line(&log, "credentials by: ")? == "container-role", "{log}");
    ensure!(
        line(&log, "caller: ")?.ends_with(":assumed-role/reports/reports-1"),
        "{log}"
    );
    ensure!(line(&log, "archive of team blue: ")? == "taken", "{log}");
    ensure!(line(&log, "archive of team red: ")?.contains("AccessDenied"), "{log}");
    tell.done("no file of the container has a token that a role is taken with; the role may take every archive, and this session that of its own team only");
    Ok(())
}

/// A pod whose role AWS STS refuses: the sidecar's probe fails, and the kubelet writes its line into an Event of the pod.
pub(super) fn refused_session(stage: &Stage<'_>) -> Result<()> {
    let Stage { tell, node, .. } = stage;
    tell.step("A pod that asks for a role of the same policy that trusts nobody");
    let mut pod = pod("reports-2", REPORTS, ENDPOINT_PORT, SHOW_ENDPOINT);
    pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": CLOSED_ROLE});
    stage.create(&pod, "tokenscope-sidecar")?;
    let events = [
        "events",
        "--field-selector=involvedObject.kind=Pod,involvedObject.name=reports-2,reason=Unhealthy",
        "--namespace",
        SHOP,
    ];
    let why = "Startup probe failed: container app has no credentials: ";
    let message = node.eventually(Duration::from_secs(180), "the pod's Event says why", || {
        let events = node.get(&events)?;
        let mut all = events["items"].as_array().into_iter().flatten();
        let of_kubelet = |event: &&Value| event["source"]["component"] == "kubelet";
        let event = all.find(|event| of_kubelet(event) && event["message"].to_string().contains("AccessDenied"));
        let message = event.and_then(|event| event["message"].as_str()).map(str::trim_end);
        Ok(message.with_context(|| events.to_string())?.to_owned())
    })?;
    tell.quote(&format!(
        "kubectl get events --field-selector involvedObject.name=reports-2\n{message}"
    ));
    ensure!(message.starts_with(why) && message.lines().count() == 1, "{message}");
    tell.done("the kubelet wrote the line of the sidecar's probe into the pod's own Event, and the pod's containers don't start");
    Ok(())
}

/// The third act.
pub(super) fn outbound(stage: &Stage<'_>) -> Result<()> {
    let Stage { tell, node, .. } = stage;
    tell.step("3. Tokens for third parties, beside the role");
    tell.quote(OUTBOUND_POLICY);
    stage.policy(OUTBOUND_POLICY, ASSISTANT)?;
    let stored = stage.create(&pod("assistant-1", ASSISTANT, CHAIN_PORT, STAY), "tokenscope-outbound-")?;
    tell.quote(&format!("the container's variables:\n{}", variables(&stored)));
    node.kubectl_in(
        SHOP,
        &["wait", "--for=condition=Ready", "--timeout=240s", "pod/assistant-1"],
    )?;
    tell.done("each party has a file of its own, which the kubelet renews");

    tell.step("The pod shows its token for billing to a verifier, as a service of yours would be one");
    let token = node.kubectl_in(SHOP, &["exec", "assistant-1", "--", PYTHON, "-c", READ_TOKEN])?;
    let verifier = root().join(VERIFIER).display().to_string();
    let verify = |audience: &str| {
        tell.quote(&format!("python {VERIFIER} --issuer {ISSUER} --audience {audience}"));
        let arguments = [verifier.as_str(), "--issuer", ISSUER, "--audience", audience];
        let (well, said) = stage.sts.run_trusting(&stage.python, &arguments, &token)?;
        tell.quote(&said);
        Ok::<_, anyhow::Error>((well, said))
    };
    let (taken, claims) = verify(BILLING)?;
    ensure!(
        taken && claims.contains("system:serviceaccount:shop:assistant"),
        "{claims}"
    );
    let (taken, reason) = verify(ELSEWHERE)?;
    ensure!(!taken && reason.to_lowercase().contains("audience"), "{reason}");
    tell.done(
        "it fetched the issuer's keys, took the token for billing, and refused it where another audience is asked for",
    );
    Ok(())
}

/// An issuer as an identity provider of the first account.
fn provider(issuer: &str) -> Value {
    json!({"url": issuer, "account": ACCOUNT, "client_ids": ["sts.amazonaws.com"]})
}

fn parsed(text: &str) -> Result<Value> {
    Ok(serde_json::from_str(text)?)
}

/// A document of a step of a chain.
fn document(step: &Value, name: &str) -> Result<Value> {
    parsed(step[name].as_str().with_context(|| format!("no {name}: {step}"))?)
}
