//! The namespaces and objects that admission policies select.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{NAMESPACE, policy, sets_of_values, template};

/// The namespaces that a policy's or webhook's selector leaves out by their names.
fn left_out(selector: &Value) -> Vec<&str> {
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let mut by_name = expressions
        .filter(|expression| expression["key"] == "kubernetes.io/metadata.name" && expression["operator"] == "NotIn");
    let names = by_name.next().and_then(|expression| expression["values"].as_array());
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn f01_pods_of_kube_system_are_guarded_only_where_a_value_asks_for_it_and_those_of_the_release_never() -> Result<()> {
    for (values, expected) in [
        (json!({}), vec!["kube-system", NAMESPACE]),
        (json!({"guard": {"excludeNamespaces": []}}), vec![NAMESPACE]),
        (json!({"guard": {"excludeNamespaces": null}}), vec![NAMESPACE]),
        (
            json!({"guard": {"excludeNamespaces": ["shop"]}}),
            vec!["shop", NAMESPACE],
        ),
    ] {
        let objects = template("tokenscope", &values)?;
        for name in ["tokenscope-guard", "tokenscope-guard-required"] {
            let selector = &policy(&objects, name)?["spec"]["matchConstraints"]["namespaceSelector"];
            ensure!(left_out(selector) == expected, "{name} with {values}: {selector}");
        }
        // The webhook, which refuses no pod of theirs, is told the same names.
        let never_denied = format!("\"--never-deny-namespace={}\"", expected[0].replace(NAMESPACE, ""));
        let told = objects
            .iter()
            .filter(|object| object["kind"] == "Deployment" && object.to_string().contains(&never_denied));
        ensure!(told.count() == 2, "webhook and operator with {values}: {never_denied}");
    }
    Ok(())
}

/// The API server fills in what is left out, and tools that compare would show that as a change for ever.
#[test]
fn policies_leave_no_selector_out_that_the_api_server_would_fill_in() -> Result<()> {
    for (file, values) in sets_of_values("tokenscope")? {
        for object in template("tokenscope", &values)? {
            let kind = object["kind"].as_str().unwrap_or_default();
            if !["ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"].contains(&kind) {
                continue;
            }
            let constraints = &object["spec"]["matchConstraints"];
            let name = &object["metadata"]["name"];
            for field in ["namespaceSelector", "objectSelector"] {
                ensure!(constraints[field].is_object(), "{name} has no {field} with {file}");
            }
            ensure!(constraints["matchPolicy"] == "Equivalent", "{name} with {file}");
        }
    }
    Ok(())
}
