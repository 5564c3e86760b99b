//! The demo of deliveries, as `cargo xtask demo --delivery` runs it: in a cluster with a node, with pods that run.
//!
//! `TOKENSCOPE_CLUSTER_TESTS=0` skips it.

use std::process::Command;

use anyhow::{Result, ensure};
use tokenscope_e2e::node::is_possible;
use tokenscope_xtask::cluster::warm_up;

#[test]
fn the_demo_shows_a_chain_an_endpoint_with_a_session_policy_and_tags_and_a_verified_outbound_token() -> Result<()> {
    if !is_possible()? {
        return Ok(());
    }
    warm_up()?;
    let name = format!("delivery-{}", std::process::id()); // two runs don't end each other's
    let output = Command::new(env!("CARGO_BIN_EXE_demo_delivery"))
        .args(["--name", &name])
        .output()?;
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "{text}\n{errors}");
    ensure!(
        text.ends_with("billing takes billing's token, and another party refuses it\n"),
        "it doesn't end as it should:\n{text}"
    );
    for said in [
        "external_id = 7f3e1c",
        "caller: arn:aws:sts::444455556666:assumed-role/partner/exchange-1",
        "refused: An error occurred (AccessDenied) when calling the AssumeRole operation",
        "credentials by: container-role",
        "archive of team blue: taken",
        "archive of team red: refused",
        "Startup probe failed: container app has no credentials: ",
        "tags={\"team\": \"blue\"}",
        "BILLING_TOKEN_FILE=/var/run/secrets/tokenscope.io/outbound/billing/token",
        "the token is refused: Audience doesn't match",
        "as the walkthrough has it: 200 10 minutes, iss https://tokens.tokenscope.test, aud sts.amazonaws.com, sub ",
        "without the header: 403 MetadataHeader",
        "as the walkthrough has it: 400 TokenRefused",
        "Readiness probe failed: container app has no credentials: ",
    ] {
        ensure!(text.contains(said), "{said} is not in\n{text}");
    }
    ensure!(!text.contains("eyJ"), "a token is shown");
    Ok(())
}
