//! The probe `tokenscope-sidecar ready`: every file must be there and valid now. It looks at the files themselves, as a
//! workload does. Of credentials that are served it reads what the running process has left in a folder that no neighbour can write to. A token
//! that they are taken with is no workload's: while they are valid it may have ended, as where its source is away.

use std::process::ExitCode;

use jiff::Timestamp;
use tokenscope_core::sidecar::{JWT_BUNDLE_FILE, X509_SVID_FILE};

use crate::config::Config;
use crate::health::REASON_FILE;
use crate::token::Token;
use crate::x509;

/// Runs the probe: exit status 0, or 1 and one line on standard error that says why.
pub fn process(config: &Config) -> ExitCode {
    match ready(config, Timestamp::now()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing if every file is there and valid at `now`, else why not, in one line.
pub fn ready(config: &Config, now: Timestamp) -> Result<(), String> {
    let read =
        |name: &str| std::fs::read_to_string(config.directory.join(name)).map_err(|_| "is not there yet".to_owned());
    let valid = |end: Timestamp| {
        let ago = now.duration_since(end).as_secs();
        if end > now {
            Ok(())
        } else {
            Err(format!("expired {ago} s ago"))
        }
    };
    let token = |name: &str| {
        let token = Token::parse(&read(name)?).map_err(|error| format!("is no token: {error}"))?;
        valid(token.expires_at)
    };
    let certificate = |name: &str| {
        let end = x509::pem_valid_until(&read(name)?).ok_or("is no certificate")?;
        valid(end)
    };

    let sources = sources(config);
    let mut checks: Vec<(&str, Result<(), String>)> = Vec::new();
    for file in config.tokens.iter().filter(|file| !sources.contains(&&*file.name)) {
        checks.push((&file.name, token(&file.name)));
    }
    let agent = config.workload_api();
    if agent.is_some_and(|agent| agent.x509_svid) {
        checks.push((X509_SVID_FILE, certificate(X509_SVID_FILE)));
    }
    if agent.is_some_and(|agent| agent.jwt_bundle) {
        checks.push((JWT_BUNDLE_FILE, read(JWT_BUNDLE_FILE).map(|_| ())));
    }
    first_fault(config, checks)?;
    #[cfg(feature = "endpoint")]
    if let Some(endpoint) = &config.endpoint {
        let taken_with = sources.into_iter().map(|name| (name, token(name)));
        return crate::endpoint::ready(endpoint, now).or_else(|why| first_fault(config, taken_with).and(Err(why)));
    }
    Ok(())
}

/// The files of tokens that roles are taken with, whose credentials are served.
#[cfg(feature = "endpoint")]
fn sources(config: &Config) -> Vec<&str> {
    let containers = config.endpoint.iter().flat_map(|endpoint| &endpoint.containers);
    let taken_with: Vec<_> = containers.map(|container| &container.token_file).collect();
    let files = config.tokens.iter().map(|file| &*file.name);
    files
        .filter(|file| taken_with.contains(&&config.directory.join(file)))
        .collect()
}

#[cfg(not(feature = "endpoint"))]
fn sources(_: &Config) -> Vec<&str> {
    Vec::new()
}

/// The first file whose check failed, in one line, with the reason that the running process has left.
fn first_fault<'f>(
    config: &Config,
    checks: impl IntoIterator<Item = (&'f str, Result<(), String>)>,
) -> Result<(), String> {
    let Some((name, Err(why))) = checks.into_iter().find(|(_, check)| check.is_err()) else {
        return Ok(());
    };
    let reason = std::fs::read_to_string(config.directory.join(REASON_FILE)).unwrap_or_default();
    let reason = reason.lines().find(|line| line.starts_with(name));
    Err(match reason {
        Some(reason) => format!("{name} {why}: {reason}"),
        None => format!("{name} {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invocation, invocation};
    use crate::token::tests::token;

    /// The probe as the webhook writes it for the files of a folder.
    fn probe(folder: &std::path::Path, tokens: &str, more: &[(&str, &str)]) -> Config {
        let variables = [
            ("TOKENSCOPE_DIRECTORY", folder.to_str().unwrap()),
            ("TOKENSCOPE_JWT_SVIDS", tokens),
            ("SPIFFE_ENDPOINT_SOCKET", "unix:///spiffe-workload-api/spire-agent.sock"),
            ("TOKENSCOPE_INJECTED", "true"),
        ];
        let value = |name: &str| {
            let found = variables.iter().chain(more).find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        match invocation(["ready".into()], value) {
            Ok(Invocation::Ready(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_probe_says_that_a_token_has_expired_and_nothing_while_it_is_valid() {
        let folder = std::env::temp_dir().join(format!("tokenscope-probe-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = probe(&folder, "token=sts.amazonaws.com other=sts.amazonaws.com.cn", &[]);
        let at = |second| ready(&config, Timestamp::from_second(second).unwrap());
        assert_eq!(at(0), Err("token is not there yet".to_owned()));

        std::fs::write(folder.join("token"), token("k", 0, 1000).secret()).unwrap();
        std::fs::write(folder.join("other"), token("k", 0, 2000).secret()).unwrap();
        let reason =
            "token (since 1970-01-01T00:09:10Z): nobody answers\nother (since 1970-01-01T00:09:11Z): nobody answers\n";
        std::fs::write(folder.join(REASON_FILE), reason).unwrap();
        assert_eq!(at(999), Ok(()), "an outage is no harm while the tokens are valid");

        let expired = "token expired 42 s ago: token (since 1970-01-01T00:09:10Z): nobody answers";
        assert_eq!(
            at(1042),
            Err(expired.to_owned()),
            "one line, of the first that has expired"
        );
        std::fs::write(folder.join("token"), token("k", 1000, 3000).secret()).unwrap();
        std::fs::remove_file(folder.join(REASON_FILE)).unwrap();
        assert_eq!(at(2000), Err("other expired 0 s ago".to_owned()));
        std::fs::write(folder.join("other"), token("k", 1000, 3000).secret()).unwrap();
        assert_eq!(at(2000), Ok(()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// One container takes its role itself, with `token`; another one is served, by a role that is taken with `own`.
    #[cfg(feature = "endpoint")]
    #[test]
    fn a_token_that_a_role_was_taken_with_may_have_ended_while_the_credentials_are_valid() {
        let folder = std::env::temp_dir().join(format!("tokenscope-probe-served-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("app")).unwrap();
        let endpoint = serde_json::json!({"port": 9912, "containers": [{
            "name": "app", "tokenFile": folder.join("own"), "role": {"role": "arn:aws:iam::111122223333:role/orders"},
            "regions": ["eu-central-1"],
        }]});
        let endpoint = endpoint.to_string();
        let more = [
            ("TOKENSCOPE_ENDPOINT", &*endpoint),
            ("TOKENSCOPE_AUTHORIZATION_FOLDERS", folder.to_str().unwrap()),
            ("TOKENSCOPE_POD_NAME", "orders-0"),
        ];
        let config = probe(&folder, "token=sts.amazonaws.com own=sts.amazonaws.com", &more);
        let at = |second| ready(&config, Timestamp::from_second(second).unwrap());
        let write = |file: &str, end| std::fs::write(folder.join(file), token("k", 0, end).secret()).unwrap();
        write("token", 5000);
        write("own", 1000);
        std::fs::write(folder.join("app/.state"), "1970-01-01T01:00:00Z\n\n").unwrap();
        assert_eq!(at(1042), Ok(()), "its source may be away");
        assert_eq!(at(3642), Err("own expired 2642 s ago".to_owned()));
        write("own", 7000);
        let expired = "the credentials of container app expired 42 s ago: AWS STS has not answered yet";
        assert_eq!(at(3642), Err(expired.to_owned()));
        assert_eq!(
            at(5001),
            Err("token expired 1 s ago".to_owned()),
            "a container reads this one"
        );
        std::fs::remove_dir_all(folder).unwrap();
    }
}
