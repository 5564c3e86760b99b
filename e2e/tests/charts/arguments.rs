//! Values that every process takes as an argument.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::template;

/// The arguments of each process's Deployment.
fn arguments(values: &Value) -> Result<Vec<(String, Vec<String>)>> {
    let objects = template("tokenscope", values)?;
    let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
    let of = |deployment: &Value| {
        let name = deployment["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
        let texts = arguments.into_iter().flatten().filter_map(Value::as_str);
        (name, texts.map(str::to_owned).collect())
    };
    Ok(deployments.map(of).collect())
}

#[test]
fn the_age_from_which_a_watch_is_stale_is_a_value_that_reaches_every_process() -> Result<()> {
    let issuer = json!({"enabled": true, "url": "https://tokens.example.com"});
    for (value, argument) in [
        (json!({}), "--watch-age-limit=300"),
        (json!({"watchAgeLimitSeconds": 80}), "--watch-age-limit=80"),
        (json!({"watchAgeLimitSeconds": 0}), "--watch-age-limit=0"),
    ] {
        let mut values = value;
        values["issuer"] = issuer.clone();
        let processes = arguments(&values)?;
        ensure!(processes.len() == 3, "{processes:?}");
        for (name, arguments) in processes {
            let given: Vec<_> = arguments
                .iter()
                .filter(|given| given.starts_with("--watch-age-limit"))
                .collect();
            ensure!(given == [argument], "{name}: {given:?}");
        }
    }
    // Values that an upgrade keeps from an older release have none.
    for (name, arguments) in arguments(&json!({"watchAgeLimitSeconds": null}))? {
        let text = arguments.join(" ");
        ensure!(!text.contains("--watch-age-limit"), "{name}: {text}");
    }
    Ok(())
}
