//! The probe `tokenscope-sidecar ready`: every file must be there and valid now. It looks at the files themselves, as a
//! workload does.

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

    let mut checks: Vec<(&str, Result<(), String>)> = Vec::new();
    for file in &config.tokens {
        checks.push((&file.name, token(&file.name)));
    }
    let agent = config.workload_api();
    if agent.is_some_and(|agent| agent.x509_svid) {
        checks.push((X509_SVID_FILE, certificate(X509_SVID_FILE)));
    }
    if agent.is_some_and(|agent| agent.jwt_bundle) {
        checks.push((JWT_BUNDLE_FILE, read(JWT_BUNDLE_FILE).map(|_| ())));
    }
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
    fn probe(folder: &std::path::Path, tokens: &str) -> Config {
        let variables = [
            ("TOKENSCOPE_DIRECTORY", folder.to_str().unwrap()),
            ("TOKENSCOPE_JWT_SVIDS", tokens),
            ("SPIFFE_ENDPOINT_SOCKET", "unix:///spiffe-workload-api/spire-agent.sock"),
            ("TOKENSCOPE_INJECTED", "true"),
        ];
        let value = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
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
        let config = probe(&folder, "token=sts.amazonaws.com other=sts.amazonaws.com.cn");
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
}
