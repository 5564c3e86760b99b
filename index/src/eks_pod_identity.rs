//! The flags of EKS Pod Identity, which webhook and operator must agree on: the file that the EKS webhook reads too, and what pods get.

use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokenscope_core::Audience;
use tokenscope_core::pod::{
    EKS_TOKEN_VOLUME, TOKEN_VOLUME, is_authorization_volume, is_config_volume, is_outbound_volume, is_sidecar_volume,
    is_token_volume,
};
use tokenscope_core::pod_identity::{InvalidPodIdentity, MOST_CONFIG_BYTES, PodIdentity, PodIdentityAgent};

/// The most bytes of a URL or path that stands in pods.
const MOST_TEXT_BYTES: usize = 1024;

/// The ServiceAccounts whose pods get their credentials from the agent of EKS Pod Identity, and the agent's settings. It counts in EKS-compatible mode only.
#[derive(Clone, Debug, clap::Args)]
pub struct PodIdentityArgs {
    /// The JSON file with the service accounts of EKS Pod Identity, as the EKS webhook takes it; it is read at start [default: none has it]
    #[arg(long, env = "TOKENSCOPE_EKS_POD_IDENTITY_CONFIG", value_name = "PATH")]
    pub eks_pod_identity_config: Option<PathBuf>,

    /// The audience of the tokens that the agent of EKS Pod Identity takes
    #[arg(
        long,
        env = "TOKENSCOPE_EKS_POD_IDENTITY_AUDIENCE",
        value_name = "AUDIENCE",
        default_value = "pods.eks.amazonaws.com"
    )]
    pub eks_pod_identity_audience: Audience,

    /// The URL of the agent of EKS Pod Identity; where nodes have only IPv6 it is http://[fd00:ec2::23]/v1/credentials
    #[arg(long, env = "TOKENSCOPE_EKS_POD_IDENTITY_FULL_URI", value_name = "URL", default_value_t = agent().full_uri.into(), value_parser = agent_url)]
    pub eks_pod_identity_full_uri: String,

    /// Where the token for that agent is mounted in containers
    #[arg(long, env = "TOKENSCOPE_EKS_POD_IDENTITY_MOUNT_PATH", value_name = "FOLDER", default_value_t = agent().mount_path.into(), value_parser = mount_path)]
    pub eks_pod_identity_mount_path: String,

    /// The name of the volume with that token
    #[arg(long, env = "TOKENSCOPE_EKS_POD_IDENTITY_VOLUME", value_name = "NAME", default_value_t = agent().volume.into(), value_parser = volume)]
    pub eks_pod_identity_volume: String,

    /// The path of that token in its volume
    #[arg(long, env = "TOKENSCOPE_EKS_POD_IDENTITY_TOKEN_PATH", value_name = "PATH", default_value_t = agent().token_path.into(), value_parser = token_path)]
    pub eks_pod_identity_token_path: String,
}

fn agent() -> PodIdentityAgent {
    PodIdentityAgent::default()
}

/// The reason why the configuration of EKS Pod Identity can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PodIdentityError {
    /// The file can't be read.
    #[error("{} can't be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// The file says something else.
    #[error("{} is no configuration of EKS Pod Identity", .0.display())]
    Invalid(PathBuf, #[source] InvalidPodIdentity),
}

impl PodIdentityArgs {
    /// Reads the file; `None` where none is named.
    pub fn load(&self) -> Result<Option<Arc<PodIdentity>>, PodIdentityError> {
        let Some(file) = &self.eks_pod_identity_config else {
            return Ok(None);
        };
        let agent = PodIdentityAgent {
            audience: self.eks_pod_identity_audience.clone(),
            full_uri: self.eks_pod_identity_full_uri.as_str().into(),
            mount_path: self.eks_pod_identity_mount_path.as_str().into(),
            volume: self.eks_pod_identity_volume.as_str().into(),
            token_path: self.eks_pod_identity_token_path.as_str().into(),
        };
        let text = read(file)?;
        let parsed = PodIdentity::parse(&text, agent);
        let found = parsed.map_err(|error| PodIdentityError::Invalid(file.clone(), error))?;
        tracing::info!(file = %file.display(), service_accounts = found.len(), "the configuration of EKS Pod Identity was read");
        Ok(Some(Arc::new(found)))
    }
}

/// The file's text, of which one byte more than may be is read.
fn read(file: &Path) -> Result<String, PodIdentityError> {
    let unread = |error| PodIdentityError::Read(file.to_owned(), error);
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(unread)?;
    let most = MOST_CONFIG_BYTES as u64 + 1;
    opened.take(most).read_to_string(&mut text).map_err(unread)?;
    Ok(text)
}

/// A URL that SDKs of AWS take for container credentials: by HTTP they ask only the machine itself and the agents of ECS and EKS (AWS
/// SDKs and Tools reference, "Container credential provider").
fn agent_url(text: &str) -> Result<String, &'static str> {
    const WRONG: &str =
        "it should be an https URL, or an http URL whose host is 169.254.170.23, [fd00:ec2::23] or a loopback address";
    if text.len() > MOST_TEXT_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WRONG);
    }
    if text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) {
        return Ok(text.to_owned());
    }
    let authority = text
        .strip_prefix("http://")
        .and_then(|rest| rest.split(['/', '?', '#']).next());
    let is_taken = authority.is_some_and(|authority| {
        // The colons of an IPv6 address stand in brackets.
        let end = authority.rfind(']').map_or(0, |at| at + 1);
        let (host, port) = match authority[end..].split_once(':') {
            Some((rest, port)) => (&authority[..end + rest.len()], Some(port)),
            None => (authority, None),
        };
        let names = [
            "localhost",
            "[::1]",
            "169.254.170.2",
            "169.254.170.23",
            "[fd00:ec2::23]",
        ];
        let is_local = names.contains(&host) || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
        is_local && port.is_none_or(|port| port.parse::<u16>().is_ok())
    });
    is_taken.then(|| text.to_owned()).ok_or(WRONG)
}

/// The mount path of a volume, as Kubernetes takes it for every system.
fn mount_path(text: &str) -> Result<String, &'static str> {
    let rest = text.strip_prefix('/').filter(|_| !text.contains(':'));
    rest.filter(|rest| is_plain_path(rest))
        .map(|_| text.to_owned())
        .ok_or("it should be an absolute path without \":\", \"..\" and empty parts")
}

/// The path of a projected token in its volume.
fn token_path(text: &str) -> Result<String, &'static str> {
    let path = Some(text).filter(|text| is_plain_path(text));
    path.map(ToOwned::to_owned)
        .ok_or("it should be a relative path without \"..\" and empty parts")
}

fn is_plain_path(text: &str) -> bool {
    text.len() <= MOST_TEXT_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'$')
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The name of a volume: a label of RFC 1123, and none of the names that other volumes of ours have.
fn volume(text: &str) -> Result<String, &'static str> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let has_ends = !text.is_empty() && !text.starts_with('-') && !text.ends_with('-');
    if text.len() > 63 || !has_ends || !text.bytes().all(allowed) {
        return Err("it should be a name of at most 63 lower-case letters, digits and \"-\"");
    }
    let is_token = |name: &str| {
        [TOKEN_VOLUME, EKS_TOKEN_VOLUME]
            .into_iter()
            .any(|first| is_token_volume(name, first))
    };
    let added = [
        is_config_volume,
        is_authorization_volume,
        is_outbound_volume,
        is_sidecar_volume,
    ];
    if is_token(text) || added.into_iter().any(|is_added| is_added(text)) {
        return Err("it is the name of another volume that tokenscope adds to pods");
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokenscope_fixtures::unique_name;

    use super::*;

    #[derive(Debug, Parser)]
    struct TestArguments {
        #[command(flatten)]
        pod_identity: PodIdentityArgs,
    }

    /// A path where no file is yet, in a folder of its own.
    fn temporary_file(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(unique_name(&format!("pod-identity-{test}")));
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("config.json")
    }

    fn parse(flags: &[&str]) -> Result<PodIdentityArgs, clap::Error> {
        let all = ["process"].iter().chain(flags);
        TestArguments::try_parse_from(all).map(|arguments| arguments.pod_identity)
    }

    #[test]
    fn without_flags_a_pod_gets_what_the_eks_webhook_gives_it() {
        let file = temporary_file("good");
        std::fs::write(
            &file,
            r#"{"identities":[{"namespace":"shop","serviceAccount":"orders"}]}"#,
        )
        .unwrap();
        let flag = format!("--eks-pod-identity-config={}", file.display());
        let found = parse(&[&flag]).unwrap().load().unwrap().unwrap();
        assert_eq!(found.agent, PodIdentityAgent::default());
        assert!(found.lists("shop", "orders"));
        assert!(parse(&[]).unwrap().load().unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_missing_too_large_or_something_else_is_an_error_that_names_it() {
        let file = temporary_file("bad");
        let flag = format!("--eks-pod-identity-config={}", file.display());
        let error = || {
            let error = parse(&[&flag]).unwrap().load().unwrap_err();
            assert!(error.to_string().contains("config.json"), "{error}");
            std::error::Error::source(&error).unwrap().to_string()
        };
        error();
        std::fs::write(&file, " ".repeat(MOST_CONFIG_BYTES + 1)).unwrap();
        assert!(error().contains("more than 1048576 bytes"));
        std::fs::write(&file, "identities: []").unwrap();
        assert!(error().contains("not a JSON object"));
    }

    #[test]
    fn what_no_sdk_or_kubelet_takes_is_a_usage_error() {
        for flag in [
            "full-uri=http://169.254.170.23/v1/credentials",
            "full-uri=http://[fd00:ec2::23]/v1/credentials",
            "full-uri=http://127.0.0.1:9911/credentials",
            "full-uri=https://agent.example.com/credentials",
            "mount-path=/var/run/other",
            "volume=agent-token",
            "token-path=folder/token",
            "audience=agent.example.com",
        ] {
            assert!(parse(&[&format!("--eks-pod-identity-{flag}")]).is_ok(), "{flag}");
        }
        for flag in [
            "full-uri=",
            "full-uri=http://agent.example.com/credentials",
            "full-uri=http://127.0.0.1.example.com/",
            "full-uri=http://169.254.170.23@example.com/",
            "full-uri=http://169.254.170.23:80@example.com/",
            "full-uri=http://[::1].example.com/",
            "full-uri=http://[::1]:@example.com/",
            "full-uri=ftp://127.0.0.1/",
            "full-uri=https://",
            "mount-path=var/run",
            "mount-path=/var/../run",
            "mount-path=/",
            "mount-path=C:/run",
            "volume=aws-iam-token",
            "volume=tokenscope-aws-token-0123456789abcdef",
            "volume=tokenscope-aws-config",
            "volume=tokenscope-aws-config-0123456789abcdef",
            "volume=tokenscope-authorization-0123456789abcdef",
            "volume=tokenscope-outbound-0123456789abcdef",
            "volume=tokenscope-source-token",
            "volume=Token",
            "volume=",
            "token-path=/token",
            "token-path=../token",
            "audience=two words",
        ] {
            assert!(parse(&[&format!("--eks-pod-identity-{flag}")]).is_err(), "{flag}");
        }
    }
}
