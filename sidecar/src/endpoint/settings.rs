//! The settings of the endpoint: the webhook's JSON, read and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenscope_aws::{EndpointFlavor, StsEndpoint};
use tokenscope_core::credentials_endpoint::{
    CredentialsEndpoint, MOST_ENDPOINT_BYTES, ServedContainer, ServedRole, ServedSessionPolicy,
};
use tokenscope_core::delivery::{ExternalId, MOST_HOPS};
use tokenscope_core::kubernetes_names::is_label;
use tokenscope_core::{Region, RoleArn};

use super::deadlines::StsDeadlines;
use super::given_tokens::{GivenToken, common, given};
use super::outbound_settings::{OutboundSettings, outbound};
use super::session_name::session_name;
use crate::exchange::{Authority, authorities};

/// The most containers: those of a pod that the webhook looks at.
const MOST_CONTAINERS: usize = 256;
/// The most regions of a container.
const MOST_REGIONS: usize = 16;
/// The lifetimes of a session that may be asked for, in seconds (AWS STS API reference, AssumeRoleWithWebIdentity; from an hour on, so
/// that a client doesn't ask again all the time).
const SESSION_SECONDS: std::ops::RangeInclusive<u32> = 3600..=43_200;
/// The longest session of a role that is taken with the credentials of another one, in seconds (AWS IAM User Guide, "Role chaining").
const CHAINED_SECONDS: u32 = 3600;
/// The most bytes of an inline session policy (AWS STS API reference, `Policy`).
const LONGEST_POLICY: usize = 2048;
/// The most managed policies that narrow a session (AWS STS API reference, `PolicyArns`).
const MOST_POLICY_ARNS: usize = 10;

/// The credentials that are served, the containers that they are served to, and where they come from.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// The port on the loopback addresses.
    pub port: u16,
    /// The folder in which each container has a folder of its own for its authorization token.
    pub folders: PathBuf,
    /// The containers, each with a name of its own.
    pub containers: Vec<ContainerSettings>,
    /// The tokens that every process of the pod is given by audience.
    pub common_tokens: Vec<GivenToken>,
    /// The authorities of STS's certificate; `None`: the public ones.
    pub authorities: Option<Arc<[Authority]>>,
    /// The deadlines of calls to STS.
    pub deadlines: StsDeadlines,
}

/// The credentials of a container.
#[derive(Clone, Debug)]
pub struct ContainerSettings {
    /// Its name, a DNS label.
    pub name: Box<str>,
    /// The file with its web identity token.
    pub token_file: PathBuf,
    /// The role that is taken with the token.
    pub first: RoleStep,
    /// The roles that are taken after it.
    pub chain: Vec<RoleStep>,
    /// The seconds that the first session lasts; `None`: an hour.
    pub duration_seconds: Option<u32>,
    /// The policies of the last session.
    pub session_policy: ServedSessionPolicy,
    /// The endpoints of STS in the order of preference, at least one.
    pub endpoints: Vec<StsEndpoint>,
    /// The tokens for third parties that AWS signs for the last role.
    pub outbound: Vec<OutboundSettings>,
    /// The tokens that it is given by audience.
    pub tokens: Vec<GivenToken>,
}

/// A role that is taken.
#[derive(Clone, Debug)]
pub struct RoleStep {
    /// The role.
    pub role: RoleArn,
    /// The external id.
    pub external_id: Option<ExternalId>,
    /// The session's name.
    pub session_name: Box<str>,
}

impl EndpointSettings {
    /// Reads the JSON. `pod_name` makes the names of sessions that have none. An error names the field and what would be right, and
    /// repeats no value that may be a secret.
    pub fn read(text: &str, folders: PathBuf, pod_name: Option<&str>) -> Result<Self, String> {
        if text.len() > MOST_ENDPOINT_BYTES {
            return Err(format!(
                "it has {} bytes and should have at most {MOST_ENDPOINT_BYTES}",
                text.len()
            ));
        }
        let endpoint: CredentialsEndpoint = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if endpoint.port == 0 {
            return Err("port should be from 1 to 65535".to_owned());
        }
        let count = endpoint.containers.len();
        if !(1..=MOST_CONTAINERS).contains(&count) {
            return Err(format!(
                "containers has {count} entries and should have 1 to {MOST_CONTAINERS}"
            ));
        }
        let authorities = endpoint.sts_authorities.as_deref().map(authorities).transpose();
        let mut containers: Vec<ContainerSettings> = Vec::with_capacity(count);
        for (index, container) in endpoint.containers.iter().enumerate() {
            if containers.iter().any(|other| other.name == container.name) {
                return Err(format!("containers[{index}].name: {} is there twice", container.name));
            }
            let read = ContainerSettings::read(container, endpoint.sts_url.as_deref(), pod_name);
            containers.push(read.map_err(|why| {
                // The URL stands beside the containers.
                if why.starts_with("stsUrl: ") {
                    why
                } else {
                    format!("containers[{index}].{why}")
                }
            })?);
        }
        let common_tokens = if endpoint.has_all_containers {
            common(containers.iter().map(|container| &*container.tokens))
        } else {
            Vec::new()
        };
        Ok(Self {
            port: endpoint.port,
            folders,
            common_tokens,
            containers,
            authorities: authorities.map_err(|why| format!("stsAuthorities: {why}"))?,
            deadlines: StsDeadlines::default(),
        })
    }

    /// True if a container is given tokens by audience.
    pub fn gives_tokens(&self) -> bool {
        self.containers.iter().any(|container| !container.tokens.is_empty())
    }

    /// The folder of a container's authorization token.
    pub fn folder_of(&self, container: &ContainerSettings) -> PathBuf {
        self.folders.join(&*container.name)
    }
}

impl ContainerSettings {
    fn read(served: &ServedContainer, sts_url: Option<&str>, pod_name: Option<&str>) -> Result<Self, String> {
        if !is_label(&served.name) {
            return Err("name should be a DNS label: 1 to 63 lower case letters, digits and hyphens".to_owned());
        }
        if !Path::new(&*served.token_file).is_absolute() {
            return Err("tokenFile should be an absolute path".to_owned());
        }
        if served.chain.len() > MOST_HOPS {
            return Err(format!(
                "chain has {} roles and should have at most {MOST_HOPS}",
                served.chain.len()
            ));
        }
        if served.role.external_id.is_some() {
            return Err("role.externalId: a role that is taken with a token has no external id".to_owned());
        }
        let hops = served.chain.iter().enumerate();
        let chain =
            hops.map(|(index, hop)| RoleStep::read(hop, pod_name).map_err(|why| format!("chain[{index}].{why}")));
        Ok(Self {
            name: served.name.clone(),
            token_file: PathBuf::from(&*served.token_file),
            first: RoleStep::read(&served.role, pod_name).map_err(|why| format!("role.{why}"))?,
            chain: chain.collect::<Result<_, _>>()?,
            duration_seconds: duration(served)?,
            session_policy: session_policy(served.session_policy.as_ref())?,
            endpoints: endpoints(&served.regions, sts_url)?,
            outbound: outbound(&served.outbound)?,
            tokens: given(&served.tokens)?,
        })
    }

    /// The role whose credentials are served: the last one that is taken.
    pub fn last_role(&self) -> &RoleArn {
        self.chain.last().map_or(&self.first.role, |step| &step.role)
    }
}

impl RoleStep {
    fn read(served: &ServedRole, pod_name: Option<&str>) -> Result<Self, String> {
        Ok(Self {
            role: served.role.clone(),
            external_id: served.external_id.clone(),
            session_name: session_name(served.session_name.as_deref(), pod_name)
                .map_err(|why| format!("sessionName: {why}"))?,
        })
    }
}

fn duration(served: &ServedContainer) -> Result<Option<u32>, String> {
    let Some(seconds) = served.duration_seconds else {
        return Ok(None);
    };
    if !SESSION_SECONDS.contains(&seconds) {
        return Err(format!(
            "durationSeconds is {seconds} and should be from {} to {}",
            SESSION_SECONDS.start(),
            SESSION_SECONDS.end()
        ));
    }
    if !served.chain.is_empty() && seconds > CHAINED_SECONDS {
        return Err(format!(
            "durationSeconds is {seconds}, and the session of a role that is taken after another one lasts {CHAINED_SECONDS} at most"
        ));
    }
    Ok(Some(seconds))
}

fn session_policy(served: Option<&ServedSessionPolicy>) -> Result<ServedSessionPolicy, String> {
    let policy = served.cloned().unwrap_or_default();
    let length = policy.inline.as_ref().map_or(0, |inline| inline.len());
    if policy.inline.is_some() && !(1..=LONGEST_POLICY).contains(&length) {
        return Err(format!(
            "sessionPolicy.inline has {length} bytes and should have 1 to {LONGEST_POLICY}"
        ));
    }
    if policy.arns.len() > MOST_POLICY_ARNS {
        return Err(format!(
            "sessionPolicy.arns has {} entries and should have at most {MOST_POLICY_ARNS}",
            policy.arns.len()
        ));
    }
    Ok(policy)
}

/// The endpoints of the regions; with a URL, that one, which gets signatures for the first region.
fn endpoints(regions: &[Box<str>], sts_url: Option<&str>) -> Result<Vec<StsEndpoint>, String> {
    if !(1..=MOST_REGIONS).contains(&regions.len()) {
        return Err(format!(
            "regions has {} entries and should have 1 to {MOST_REGIONS}",
            regions.len()
        ));
    }
    let region = |index: usize, name: &str| {
        name.parse::<Region>()
            .map_err(|error| format!("regions[{index}]: {error}"))
    };
    if let Some(url) = sts_url {
        let endpoint =
            StsEndpoint::custom(url, &region(0, &regions[0])?).map_err(|error| format!("stsUrl: {error}"))?;
        if !endpoint.is_https() && !is_loopback(endpoint.host()) {
            return Err("stsUrl: http:// is for loopback addresses alone; use https://".to_owned());
        }
        return Ok(vec![endpoint]);
    }
    let regional = |(index, name): (usize, &str)| {
        StsEndpoint::regional(&region(index, name)?, EndpointFlavor::default())
            .map_err(|error| format!("regions[{index}]: {error}"))
    };
    regions.iter().map(|name| &**name).enumerate().map(regional).collect()
}

/// True for a host that is this pod itself.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SECOND: &str = "arn:aws:iam::111122223333:role/b";

    /// The settings of an example that a test changes.
    fn read(change: impl FnOnce(&mut Value)) -> Result<EndpointSettings, String> {
        let mut value = json!({"port": 9912, "containers": [{
            "name": "app", "tokenFile": "/t/token", "role": {"role": "arn:aws:iam::111122223333:role/first"},
            "regions": ["eu-central-1", "eu-west-1"],
        }]});
        change(&mut value);
        EndpointSettings::read(&value.to_string(), "/folders".into(), Some("orders-7d9f-x2x9p"))
    }

    #[test]
    fn each_region_is_an_endpoint_and_a_url_takes_the_place_of_all() {
        let hosts = |settings: &EndpointSettings| -> Vec<String> {
            let endpoints = settings.containers[0].endpoints.iter();
            endpoints.map(|endpoint| endpoint.host().to_owned()).collect()
        };
        let settings = read(|_| ()).unwrap();
        assert_eq!(
            hosts(&settings),
            ["sts.eu-central-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"]
        );
        assert_eq!(&*settings.containers[0].first.session_name, "orders-7d9f-x2x9p");
        for url in [
            "http://127.0.0.1:4566",
            "http://[::1]:4566",
            "http://localhost:1",
            "https://vpce.example",
        ] {
            assert_eq!(
                hosts(&read(|value| value["stsUrl"] = json!(url)).unwrap()).len(),
                1,
                "{url}"
            );
        }
    }

    type Change = fn(&mut Value);

    /// Changes that make the example wrong, and a part of what is said.
    const WRONG: [(Change, &str); 14] = [
        (|v| v["port"] = json!(0), "port should be from 1"),
        (|v| v["containers"] = json!([]), "containers has 0 entries"),
        (
            |v| v["containers"][0]["name"] = json!("../app"),
            "containers[0].name should be a DNS label",
        ),
        (
            |v| v["containers"][0]["tokenFile"] = json!("token"),
            "containers[0].tokenFile should be an absolute path",
        ),
        (
            |v| v["containers"][0]["regions"] = json!([]),
            "containers[0].regions has 0 entries",
        ),
        (
            |v| v["containers"][0]["regions"] = json!(["mars"]),
            "containers[0].regions[0]: mars is not a region",
        ),
        (
            |v| v["containers"][0]["durationSeconds"] = json!(900),
            "containers[0].durationSeconds is 900",
        ),
        (
            |v| {
                v["containers"][0]["durationSeconds"] = json!(7200);
                v["containers"][0]["chain"] = json!([{"role": "arn:aws:iam::111122223333:role/b"}]);
            },
            "lasts 3600 at most",
        ),
        (
            |v| v["containers"][0]["role"]["externalId"] = json!("e-1"),
            "containers[0].role.externalId",
        ),
        (
            |v| v["containers"][0]["chain"] = json!([{"role": SECOND, "sessionName": "a b"}]),
            "containers[0].chain[0].sessionName",
        ),
        (
            |v| v["containers"][0]["sessionPolicy"] = json!({"inline": "x".repeat(2049)}),
            "containers[0].sessionPolicy.inline has 2049 bytes",
        ),
        (
            |v| v["stsUrl"] = json!("http://sts.example"),
            "stsUrl: http:// is for loopback",
        ),
        (
            |v| v["stsAuthorities"] = json!("none"),
            "stsAuthorities: it should have a certificate",
        ),
        (
            |v| {
                let first = v["containers"][0].clone();
                v["containers"] = json!([first, first]);
            },
            "containers[1].name: app is there twice",
        ),
    ];

    #[test]
    fn what_is_wrong_is_said_with_the_field() {
        for (change, part) in WRONG {
            let why = read(change).unwrap_err();
            assert!(why.contains(part), "{why} should contain {part}");
        }
        let long = EndpointSettings::read(&" ".repeat(MOST_ENDPOINT_BYTES + 1), "/f".into(), None);
        assert!(long.unwrap_err().contains("at most 65536"));
    }
}
