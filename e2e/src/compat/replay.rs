//! The replay of a case: its pod, admitted with its settings, beside the pod that is expected.

use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};
use tokenscope_core::{Pairs, PolicySet, Settings, TokenExpiration};
use tokenscope_webhook::facts::ReviewContext;
use tokenscope_webhook::review::{self, Asked};

use super::case::{AGENT_KEYS, Case, EXPIRATION_FLAG, KEYS, SERVICE_ACCOUNT_KEYS};
use super::deviations::{DEVIATIONS, Effect};
use super::difference::differences;
use super::outcome::Outcome;
use super::pods::{complete_mounts, normalised, without_our_metadata};

impl Case {
    /// Admits the pod and compares.
    pub fn replay(&self) -> Outcome {
        let unknown = self.webhook_state.keys().find(|key| !KEYS.contains(&key.as_str()));
        if let Some(key) = unknown {
            return Outcome::Different(format!("webhook_state has {key:?}, which this replay does not know"));
        }
        match self.admit() {
            Ok(Admitted::As(pod)) => self.compare(pod),
            Ok(Admitted::Refused(message)) => self.explain(&message),
            Err(error) => Outcome::Different(format!("{error:#}")),
        }
    }

    fn compare(&self, pod: Value) -> Outcome {
        let pod = without_our_metadata(pod, &self.pod);
        let mut expected = normalised(self.expected_pod.clone());
        if pod == expected {
            return Outcome::Equal;
        }
        let mut reasons = Vec::new();
        for deviation in DEVIATIONS {
            let Effect::Changed(change) = deviation.effect else {
                continue;
            };
            let before = expected.clone();
            change(self, &mut expected);
            expected = normalised(expected);
            if expected != before {
                reasons.push(deviation);
            }
        }
        if pod == expected && !reasons.is_empty() {
            return Outcome::Deviation(reasons);
        }
        Outcome::Different(differences(&expected, &pod))
    }

    fn explain(&self, message: &str) -> Outcome {
        let reason = DEVIATIONS.iter().find(|deviation| {
            matches!(deviation.effect, Effect::Refused(cause, texts)
                if texts.iter().any(|text| message.contains(text)) && cause(self))
        });
        match reason {
            Some(deviation) => Outcome::Deviation(vec![deviation]),
            None => Outcome::Different(format!("refused: {message}")),
        }
    }

    /// Reviews the pod as the webhook does, with the settings of the case.
    fn admit(&self) -> Result<Admitted> {
        let settings = match self.settings() {
            Ok(settings) => settings,
            // A flag that the process would not start with.
            Err(message) => return Ok(Admitted::Refused(message)),
        };
        let mut pod = self.pod.clone();
        complete_mounts(&mut pod);
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "b9d6b9f2-9c1f-4d39-9b0e-2a5c5f4f0a11",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "operation": "CREATE", "namespace": namespace, "object": pod,
            },
        })
        .to_string();
        let Asked::Pod(review) = review::read(body.as_bytes())? else {
            return Ok(Admitted::As(pod));
        };
        let annotations = self.service_account_annotations();
        let annotations: Pairs<&str> = annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let surroundings = ReviewContext {
            namespace_labels: Pairs::default(),
            service_account_annotations: Some(annotations),
            driver_tokens: None,
            refused: None,
            lacks_policies: false,
            stale: false,
        };
        let answer = review.answer(surroundings, &PolicySet::default(), &settings, Timestamp::UNIX_EPOCH);
        let answer: Value = serde_json::from_str(&answer.body).context("the answer is not JSON")?;
        let response = &answer["response"];
        if response["allowed"] != true {
            let message = response["status"]["message"].as_str().unwrap_or_default();
            return Ok(Admitted::Refused(message.to_owned()));
        }
        if let Some(patch) = response["patch"].as_str() {
            let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch)?)?;
            json_patch::patch(&mut pod, &patch).context("the patch does not fit the pod")?;
        }
        Ok(Admitted::As(pod))
    }

    /// The service account's annotations.
    fn service_account_annotations(&self) -> Vec<(String, String)> {
        SERVICE_ACCOUNT_KEYS
            .iter()
            .filter_map(|(key, annotation)| {
                Some((
                    format!("eks.amazonaws.com/{annotation}"),
                    self.webhook_state.get(*key)?.clone(),
                ))
            })
            .collect()
    }

    /// The webhook's own settings, as its flags would give them.
    fn settings(&self) -> Result<Settings, String> {
        let flag = |key: &str| self.webhook_state.get(key).map(String::as_str);
        let mut settings = Settings {
            policy_required: false,
            ..Settings::eks_compatible()
        };
        if let Some(seconds) = flag(EXPIRATION_FLAG) {
            let expiration = seconds.parse::<TokenExpiration>();
            settings.default_token_expiration = expiration.map_err(|error| error.to_string())?;
        }
        if let Some(region) = flag("handler/region").filter(|region| !region.is_empty()) {
            settings.default_region = Some(region.parse().map_err(|error| format!("{error}"))?);
        }
        if let Some(regional) = flag("handler/injectSTS") {
            let regional = regional.parse();
            settings.sts_regional_endpoints = regional.map_err(|error| format!("handler/injectSTS: {error}"))?;
        }
        settings.pod_identity = self.pod_identity()?.map(Arc::new);
        Ok(settings)
    }

    /// The configuration of EKS Pod Identity, which lists the pod's service account where a case has the agent's URL.
    fn pod_identity(&self) -> Result<Option<PodIdentity>, String> {
        let flag = |key: &str| self.webhook_state.get(key).map(String::as_str);
        let [uri, audience, mount_path, volume, token_path] = AGENT_KEYS.map(flag);
        let Some(uri) = uri else {
            return Ok(None);
        };
        let default = PodIdentityAgent::default();
        let text = |given: Option<&str>, default: Box<str>| given.map_or(default, Into::into);
        let agent = PodIdentityAgent {
            audience: match audience {
                Some(audience) => audience.parse().map_err(|error| format!("{error}"))?,
                None => default.audience,
            },
            full_uri: uri.into(),
            mount_path: text(mount_path, default.mount_path),
            volume: text(volume, default.volume),
            token_path: text(token_path, default.token_path),
        };
        let namespace = self.pod["metadata"]["namespace"].as_str().unwrap_or("default");
        let account = self.pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let config = json!({"identities": [{"namespace": namespace, "serviceAccount": account}]}).to_string();
        let parsed = PodIdentity::parse(&config, agent);
        parsed.map(Some).map_err(|error| error.to_string())
    }
}

enum Admitted {
    As(Value),
    Refused(String),
}
