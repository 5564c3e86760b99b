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
