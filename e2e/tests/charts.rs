//! The charts, by the real helm: with the defaults, and with each set of values in `charts/*/ci/`.

#[path = "charts/arguments.rs"]
mod arguments;
#[path = "charts/guard.rs"]
mod guard;
#[path = "charts/issuer.rs"]
mod issuer;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::apply::documents;
use tokenscope_e2e::helm::{NAMESPACE, chart, helm, template};

const CHARTS: [&str; 2] = ["tokenscope", "tokenscope-crds"];

#[test]
fn helm_finds_nothing_to_complain_about() -> Result<()> {
    for name in CHARTS {
        for (file, values) in sets_of_values(name)? {
            let folder = chart(name).display().to_string();
            let said = helm(&["lint", "--strict", &folder], &values).with_context(|| file.clone())?;
            ensure!(
                said.contains("1 chart(s) linted, 0 chart(s) failed"),
                "{name} with {file}: {said}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_object_is_whole_and_of_its_own_name() -> Result<()> {
    for name in CHARTS {
        for (file, values) in sets_of_values(name)? {
            let objects = template(name, &values).with_context(|| file.clone())?;
            let mut names: Vec<String> = objects
                .iter()
                .map(|object| {
                    let metadata = &object["metadata"];
                    let names = [&object["apiVersion"], &object["kind"], &metadata["name"]];
                    ensure!(
                        names.iter().all(|name| name.is_string()),
                        "{name} with {file}: {object}"
                    );
                    Ok(format!("{} {} {}", names[1], metadata["namespace"], names[2]))
                })
                .collect::<Result<_>>()?;
            ensure!(names.len() >= 2, "{name} with {file} makes only {names:?}");
            names.sort();
            let all = names.len();
            names.dedup();
            ensure!(
                names.len() == all,
                "{name} with {file} makes an object twice: {names:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_value_that_is_wrong_is_refused_by_its_name() -> Result<()> {
    let wrong = [
        ("rotationOverlap", json!({"certificates": {"rotationOverlap": 5}})),
        ("enforcement", json!({"enforcement": "sometimes"})),
        ("replicas", json!({"webhook": {"replicas": "two"}})),
        ("webhok", json!({"webhok": {}})),
        ("timeoutSeconds", json!({"webhook": {"timeoutSeconds": 11}})),
        ("watchAgeLimitSeconds", json!({"watchAgeLimitSeconds": -1})),
        ("watchAgeLimitSeconds", json!({"watchAgeLimitSeconds": 30})),
        ("audiences", json!({"lock": {"audiences": [""]}})),
        ("audiences", json!({"lock": {"audiences": ["sts amazonaws.com"]}})),
        ("audiences", json!({"lock": {"audiences": ["a'] || true || ['"]}})),
        (
            "audiences",
            json!({"lock": {"audiences": (0..17).map(|number| format!("a{number}")).collect::<Vec<_>>()}}),
        ),
        ("csiDrivers", json!({"lock": {"csiDrivers": ["a'b"]}})),
        ("mode", json!({"lock": {"mode": false}})),
        ("users", json!({"lock": {"allowed": {"users": ["a', 'b"]}}})),
        (
            "exemptNamespaces",
            json!({"lock": {"exemptNamespaces": ["Not A Name"]}}),
        ),
        (
            "clientCertificates",
            json!({"webhook": {"clientCertificates": {"enabled": true}}}),
        ),
        (
            "webhook.clientCertificates.probeSecret",
            json!({"webhook": {"clientCertificates": {"enabled": true, "caSecret": "clients"}}}),
        ),
        ("metricsFrom", json!({"metrics": {"podMonitor": {"enabled": true}}})),
        ("clusterIssuer", json!({"issuer": "https://oidc.example.com"})),
        ("issuer.url", json!({"issuer": {"enabled": true}})),
        (
            "issuer.keys.requirePublished",
            json!({"issuer": {"enabled": true, "url": "https://a.example.com", "keys": {
                "requirePublished": true, "file": {"name": "keys.pem", "volume": {"emptyDir": {}}},
            }}}),
        ),
        (
            "defaults.audience is issuer.url",
            json!({"issuer": {"enabled": true, "url": "https://a.example.com"}, "defaults": {"audience": "https://a.example.com"}}),
        ),
        ("url", json!({"issuer": {"url": "https://tokens.example.com?a"}})),
        (
            "url",
            json!({"issuer": {"url": "https://tokens.example.com/'] || true || ['"}}),
        ),
    ];
    for (name, value) in wrong {
        let Err(error) = template("tokenscope", &value) else {
            anyhow::bail!("{value} is taken");
        };
        ensure!(format!("{error:#}").contains(name), "{name}: {error:#}");
    }
    Ok(())
}

#[test]
fn operator_and_helm_test_show_a_client_certificate_where_the_webhook_asks_for_one_and_only_there() -> Result<()> {
    let clients = json!({"enabled": true, "caConfigMap": "clients", "probeSecret": "probe"});
    for (values, shows) in [
        (Value::Null, false),
        (json!({"webhook": {"clientCertificates": clients}}), true),
    ] {
        let folder = chart("tokenscope").display().to_string();
        let objects = documents(&helm(&["template", "tokenscope", &folder], &values)?)?;
        let find = |kind: &str, name: &str| {
            let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
            objects.iter().find(is_it).with_context(|| format!("no {kind} {name}"))
        };
        let operator = &find("Deployment", "tokenscope-operator")?["spec"]["template"]["spec"];
        let check = &find("Pod", "tokenscope-check")?["spec"];
        for (pod, flags) in [
            (operator, ["--webhook-client-certificate", "--webhook-client-key"]),
            (check, ["--client-cert", "--client-key"]),
        ] {
            let text = pod.to_string();
            let files = ["tls.crt", "tls.key"].map(|file| format!("=/etc/tokenscope/probe/{file}\""));
            for (flag, file) in flags.iter().zip(files) {
                assert_eq!(text.contains(&format!("{flag}{file}")), shows, "{flag}: {text}");
            }
            let volumes = pod["volumes"].as_array().into_iter().flatten();
            let mut mounts = pod["containers"][0]["volumeMounts"].as_array().into_iter().flatten();
            let mounted = mounts.any(|mount| mount["name"] == "probe" && mount["mountPath"] == "/etc/tokenscope/probe");
            let secrets: Vec<_> = volumes
                .filter(|volume| volume["name"] == "probe")
                .map(|volume| volume["secret"]["secretName"].as_str())
                .collect();
            assert_eq!(
                (mounted, secrets),
                (shows, vec![Some("probe"); usize::from(shows)]),
                "{text}"
            );
        }
    }
    Ok(())
}

#[test]
fn every_mode_of_the_lock_has_the_policies_that_it_needs_and_no_other() -> Result<()> {
    for (mode, pods, tokens) in [
        ("off", None, None),
        ("audit", None, Some("Audit")),
        ("warn", Some("Warn"), Some("Warn")),
        ("deny", Some("Deny"), Some("Deny")),
    ] {
        let objects = template("tokenscope", &json!({"lock": {"mode": mode}}))?;
        let action = |policy: &str| {
            let bound = objects.iter().find(|object| {
                object["kind"] == "ValidatingAdmissionPolicyBinding" && object["spec"]["policyName"] == policy
            });
            bound.and_then(|binding| binding["spec"]["validationActions"][0].as_str())
        };
        assert_eq!(action("tokenscope-lock-pods"), pods, "{mode}");
        assert_eq!(action("tokenscope-lock-tokens"), tokens, "{mode}");
        let guard = policy(&objects, "tokenscope-guard")?;
        let condition = guard["spec"]["matchConditions"][0]["expression"]
            .as_str()
            .unwrap_or_default();
        assert_eq!(condition.contains("serviceAccountToken"), mode == "deny", "{condition}");
        let ephemeral = policy(&objects, "tokenscope-ephemeral")?["spec"].to_string();
        assert_eq!(ephemeral.contains("volumeMounts"), mode == "deny", "{ephemeral}");
    }
    Ok(())
}

#[test]
fn without_locked_audiences_the_default_audience_is_locked_everywhere() -> Result<()> {
    let values = json!({"lock": {"mode": "deny"}, "defaults": {"audience": "sts.amazonaws.com.cn"}});
    let objects = template("tokenscope", &values)?;
    for name in [
        "tokenscope-guard",
        "tokenscope-lock-pods",
        "tokenscope-lock-tokens",
        "tokenscope-ephemeral",
    ] {
        let text = policy(&objects, name)?["spec"].to_string();
        assert!(text.contains(r#"in [\"sts.amazonaws.com.cn\"]"#), "{name}: {text}");
    }
    for name in ["tokenscope-webhook", "tokenscope-operator"] {
        let deployment = objects
            .iter()
            .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name);
        let text = deployment.with_context(|| name.to_owned())?["spec"].to_string();
        for flag in [
            "--lock-mode=deny",
            "--lock-audience=sts.amazonaws.com.cn",
            "--lock-exempt-namespace=kube-system",
            "--never-deny-namespace=kube-system",
        ] {
            assert!(text.contains(flag), "{name} has no {flag}: {text}");
        }
    }
    Ok(())
}

#[test]
fn drivers_that_the_lock_lists_are_in_every_policy_that_looks_at_volumes_and_in_none_without_a_list() -> Result<()> {
    let names = ["tokenscope-guard", "tokenscope-lock-pods", "tokenscope-ephemeral"];
    for (drivers, listed) in [(json!([]), false), (json!(["a.example.com", "b"]), true)] {
        let objects = template("tokenscope", &json!({"lock": {"mode": "deny", "csiDrivers": drivers}}))?;
        for name in names {
            let text = policy(&objects, name)?["spec"].to_string();
            assert_eq!(
                text.contains(r#"has(v.csi) && v.csi.driver in [\"a.example.com\",\"b\"]"#),
                listed,
                "{name}: {text}"
            );
            assert_eq!(
                text.contains("lock.csiDrivers names (a.example.com, b)"),
                listed,
                "{name}: {text}"
            );
        }
        let flags = objects.iter().filter(|object| object["kind"] == "Deployment");
        for deployment in flags {
            let text = deployment["spec"].to_string();
            assert_eq!(text.contains("--lock-csi-driver=a.example.com"), listed, "{text}");
        }
    }
    Ok(())
}

#[test]
fn the_audience_of_our_own_issuer_is_locked_whatever_the_values_of_the_lock_say() -> Result<()> {
    const ISSUER: &str = "https://tokens.example.com";
    let names = [
        "tokenscope-exchange-tokens",
        "tokenscope-exchange-pods",
        "tokenscope-exchange-ephemeral",
    ];
    let bindings = [
        "tokenscope-exchange-tokens",
        "tokenscope-exchange-pods-opted-out",
        "tokenscope-exchange-pods-unguarded",
        "tokenscope-exchange-ephemeral",
        "tokenscope-guard",
    ];
    for mode in ["off", "audit", "warn", "deny"] {
        for guard in [true, false] {
            let mut values = json!({"lock": {"mode": mode, "exemptNamespaces": ["shop"]}, "guard": {"enabled": guard}});
            let without = template("tokenscope", &values)?;
            for name in names {
                assert!(policy(&without, name).is_err(), "{name}");
            }
            values["issuer"] = json!({"enabled": true, "url": ISSUER});
            let objects = template("tokenscope", &values)?;
            for name in names.into_iter().chain(["tokenscope-guard"]) {
                let text = policy(&objects, name)?["spec"].to_string();
                assert!(text.contains(ISSUER), "{mode} {name}: {text}");
            }
            for name in bindings {
                let found = objects.iter().find(|object| {
                    object["kind"] == "ValidatingAdmissionPolicyBinding" && object["metadata"]["name"] == name
                });
                let spec = &found.with_context(|| format!("{mode}: no binding {name}"))?["spec"];
                assert_eq!(spec["validationActions"], json!(["Deny"]), "{mode} {name}");
            }
            for (deployment, flag) in [
                ("tokenscope-webhook", "--issuer-url=https://tokens.example.com"),
                (
                    "tokenscope-webhook",
                    "--issuer-ca-file=/etc/tokenscope/issuer-ca/ca.crt",
                ),
                ("tokenscope-operator", "--issuer-url=https://tokens.example.com"),
            ] {
                let is_it =
                    |object: &&Value| object["kind"] == "Deployment" && object["metadata"]["name"] == deployment;
                let text = objects.iter().find(is_it).context(deployment)?["spec"].to_string();
                assert!(text.contains(flag), "{deployment}: {text}");
            }
        }
    }
    Ok(())
}

fn policy<'a>(objects: &'a [Value], name: &str) -> Result<&'a Value> {
    let found = objects
        .iter()
        .find(|object| object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == name);
    found.with_context(|| format!("there is no policy {name}"))
}

/// The defaults, and what the files say.
fn sets_of_values(name: &str) -> Result<Vec<(String, Value)>> {
    let mut sets = vec![("the defaults".to_owned(), Value::Null)];
    let folder = chart(name).join("ci");
    let files: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?,
        Err(_) => Vec::new(),
    };
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        // A file of comments alone stands for the defaults.
        let values = serde_saphyr::from_str(&text).with_context(|| file.display().to_string())?;
        sets.push((file.display().to_string(), values));
    }
    ensure!(
        name != "tokenscope" || sets.len() > 3,
        "the chart has several sets of values"
    );
    Ok(sets)
}

#[test]
fn f15_the_webhooks_pods_can_run_in_their_nodes_network_and_on_other_ports() -> Result<()> {
    let webhook = json!({"hostNetwork": true, "port": 9443, "metricsPort": 9080});
    let objects = template("tokenscope", &json!({"webhook": webhook}))?;
    let deployment = |name: &str| {
        let mut objects = objects.iter();
        let found = objects.find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name);
        found.map(|object| object["spec"].clone()).context("no Deployment")
    };
    let spec = deployment("tokenscope-webhook")?;
    let pod = &spec["template"]["spec"];
    ensure!(
        pod["hostNetwork"] == true && pod["dnsPolicy"] == "ClusterFirstWithHostNet",
        "{pod}"
    );
    ensure!(spec["strategy"]["rollingUpdate"]["maxSurge"] == 0, "{spec}");
    let text = pod.to_string();
    for part in [
        ":9443\"",
        ":9080\"",
        r#""containerPort":9443"#,
        r#""containerPort":9080"#,
    ] {
        ensure!(text.contains(part), "no {part}: {text}");
    }
    let operator = deployment("tokenscope-operator")?;
    ensure!(operator["template"]["spec"]["hostNetwork"].is_null(), "{operator}");

    let objects = template("tokenscope", &json!({"webhook": {"dnsPolicy": "Default"}}))?;
    let text = serde_json::to_string(&objects)?;
    ensure!(
        text.contains(r#""dnsPolicy":"Default""#) && !text.contains("hostNetwork"),
        "{text}"
    );
    Ok(())
}

#[test]
fn whoever_runs_the_webhook_in_its_nodes_network_reads_that_no_network_policy_holds_there_and_what_does() -> Result<()>
{
    let folder = chart("tokenscope").display().to_string();
    let install = [
        "install",
        "tokenscope",
        &folder,
        "--namespace",
        NAMESPACE,
        "--dry-run=client",
    ];
    let said = |webhook: Value| helm(&install, &json!({"webhook": webhook}));
    let warning = "NetworkPolicies don't hold";
    ensure!(!said(json!({}))?.contains(warning));
    let notes = said(json!({"hostNetwork": true, "port": 9443}))?;
    let says_both = notes.contains(warning) && notes.contains("Have the webhook answer\nAPI servers alone");
    ensure!(says_both && notes.contains("9443 (reviews)"), "{notes}");
    let certificates = json!({"enabled": true, "caConfigMap": "clients", "probeSecret": "probe"});
    let notes = said(json!({"hostNetwork": true, "clientCertificates": certificates}))?;
    ensure!(notes.contains("Reviews are answered to\nAPI servers alone"), "{notes}");
    Ok(())
}
