//! The fourth act: tokens by audience, as Aporeto's enforcer gave them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::stage::{ENDPOINT_PORT, INVOICES, OWN_ISSUER, PYTHON, SHOP, Stage, line, pod};

const POLICY: &str = include_str!("../../../../examples/tokens-by-audience.yaml");
const ROLE: &str = "arn:aws:iam::111122223333:role/shop/invoices";
const ASK: &str = include_str!("tokens.py");
const STAY: &str = "import time; time.sleep(3600)";

/// The role of this act for the STS of the endpoint: with source Issuer the sidecar takes it before it is ready.
pub(super) fn role(stage: &Stage<'_>) -> Result<Value> {
    stage.policy(POLICY, INVOICES)?;
    let trust = stage.node.trust_policy(SHOP, INVOICES, ROLE)?;
    Ok(json!({"arn": ROLE, "trust_policy": serde_json::from_str::<Value>(&trust)?}))
}

/// The act.
pub(super) fn tokens(stage: &Stage<'_>) -> Result<()> {
    let Stage { tell, node, .. } = stage;
    tell.step("4. Tokens by audience: GET /token, as programs that were written for Aporeto's enforcer ask");
    tell.quote(POLICY);
    stage.create(&pod("invoices-1", INVOICES, ENDPOINT_PORT, STAY), "tokenscope-sidecar")?;
    let ready = ["wait", "--for=condition=Ready", "--timeout=240s", "pod/invoices-1"];
    node.kubectl_in(SHOP, &ready)?;
    // An issuer that is slow to answer, as on a busy machine, is asked again, as a program would.
    let said = node.eventually(Duration::from_secs(60), "the pod gets a token", || {
        let said = ask(stage)?;
        ensure!(
            line(&said, "as the walkthrough has it: ")?.starts_with("200 "),
            "{said}"
        );
        Ok(said)
    })?;
    tell.quote(&said);
    let given = line(&said, "as the walkthrough has it: ")?;
    ensure!(
        given.starts_with("200 ") && given.contains(&format!("iss {OWN_ISSUER}, aud sts.amazonaws.com")),
        "{said}"
    );
    for (what, expected) in [
        ("without the header: ", "403 MetadataHeader"),
        ("an audience that no policy grants: ", "400 AudienceNotGranted"),
        ("too short a validity: ", "422 InvalidValidity"),
    ] {
        ensure!(line(&said, what)? == expected, "{said}");
    }
    tell.done("one header and one address, and what the policy doesn't grant is refused");
    withdrawn(stage)
}

/// The answers to the program in the pod.
fn ask(stage: &Stage<'_>) -> Result<String> {
    let program = ["exec", "invoices-1", "--container=app", "--", PYTHON, "-c", ASK];
    stage.node.kubectl_in(SHOP, &program)
}

/// The policy is disabled: the issuer refuses the next token, and the pod's Events say so.
fn withdrawn(stage: &Stage<'_>) -> Result<()> {
    let Stage { tell, node, .. } = stage;
    tell.step("The policy is disabled, while the pod runs");
    let patch = ["patch", "tokenscopepolicy", INVOICES, "--type=merge", "--patch"];
    let disabled = r#"{"spec": {"disabled": true}}"#;
    node.kubectl_in(SHOP, &[&patch[..], &[disabled]].concat())?;
    // A question that was answered within the last minute has the same answer.
    let said = node.eventually(Duration::from_secs(240), "the issuer refuses", || {
        let said = ask(stage)?;
        ensure!(
            line(&said, "as the walkthrough has it: ")?.starts_with("400 "),
            "{said}"
        );
        Ok(said)
    })?;
    tell.quote(&format!(
        "as the walkthrough has it: {}",
        line(&said, "as the walkthrough has it: ")?
    ));
    tell.done("the next token is refused within a minute");

    // The probe comes every half a minute, and the sidecar asks the issuer once a minute.
    let why = "Readiness probe failed: container app has no credentials: ";
    let message = node.eventually(
        Duration::from_secs(300),
        "the pod's Events say why it is not ready",
        || {
            let described = node.kubectl_in(SHOP, &["describe", "pod", "invoices-1"])?;
            let messages = described
                .lines()
                .filter_map(|line| line.find(why).map(|start| line[start..].to_owned()));
            // A probe that comes between the end of the old credentials and the refusal knows no reason yet.
            let mut reasons = messages
                .filter(|message| message.len() > why.len() && !message.ends_with("AWS STS has not answered yet"));
            let found = reasons.next();
            found.with_context(|| format!("no {why:?} with a reason: {described}"))
        },
    )?;
    tell.quote(&format!("kubectl describe pod invoices-1\n{message}"));
    let conditions = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    node.eventually(Duration::from_secs(120), "the pod is not ready", || {
        let ready = node.kubectl_in(SHOP, &["get", "pod", "invoices-1", "--output", conditions])?;
        ensure!(ready.trim() == "False", "{ready}");
        Ok(())
    })?;
    tell.done("the sidecar has dropped the role's credentials, the pod is not ready, and its Events have the reason");
    Ok(())
}
