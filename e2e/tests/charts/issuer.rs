//! The issuer's objects.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::template;

/// A number in the Deployment would undo what the HorizontalPodAutoscaler has chosen, at each upgrade.
#[test]
fn the_issuers_deployment_names_no_number_of_pods_where_an_autoscaler_chooses_it() -> Result<()> {
    for enabled in [false, true] {
        let autoscaling = json!({"enabled": enabled, "maxReplicas": 7});
        let issuer =
            json!({"enabled": true, "url": "https://a.example.com", "replicas": 3, "autoscaling": autoscaling});
        let objects = template("tokenscope", &json!({"issuer": issuer}))?;
        let find = |kind: &str| {
            let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == "tokenscope-issuer";
            objects.iter().find(is_it)
        };
        let replicas = &find("Deployment").context("no Deployment")?["spec"]["replicas"];
        let autoscaler = find("HorizontalPodAutoscaler").map(|object| &object["spec"]);
        if enabled {
            let spec = autoscaler.context("no HorizontalPodAutoscaler")?;
            ensure!(replicas.is_null(), "{replicas}");
            assert_eq!((&spec["minReplicas"], &spec["maxReplicas"]), (&json!(3), &json!(7)));
            assert_eq!(spec["scaleTargetRef"]["name"], "tokenscope-issuer");
        } else {
            ensure!(autoscaler.is_none(), "{autoscaler:?}");
            assert_eq!(replicas, &json!(3));
        }
    }
    Ok(())
}

/// The issuer would refuse it at its start, and webhook and guard would have locked another audience than any token has.
#[test]
fn a_url_that_the_issuer_would_not_start_with_is_refused_before_anything_is_installed() -> Result<()> {
    let values = |url: &str| json!({"issuer": {"enabled": true, "url": url}});
    for good in ["https://a.example.com", "https://a.example.com/clusters/A_1.b~c-d"] {
        template("tokenscope", &values(good))?;
    }
    for bad in [
        "http://a.example.com",
        "https://a.example.com/",
        "https://a.example.com/b/",
        "https://A.example.com",
        "https://a.example.com:8443",
        "https://a.example.com//b",
        "https://a.example.com/../b",
        "https://a.example.com/%2e",
        "https://user@a.example.com",
        "https://a..example.com",
    ] {
        let Err(error) = template("tokenscope", &values(bad)) else {
            anyhow::bail!("{bad} is taken");
        };
        ensure!(format!("{error:#}").contains("url"), "{bad}: {error:#}");
    }
    Ok(())
}
