//! The options: their flags, their variables and the help.

use std::fmt::Write as _;

use tokenscope_core::credentials_endpoint::ENDPOINT_VARIABLE;
use tokenscope_core::sidecar::{READY, WRITE, variables};

/// An option of the program, which is a flag and a variable.
pub(super) struct OptionSpec {
    pub(super) flag: &'static str,
    pub(super) variable: &'static str,
    /// Its value's name in the help; `None` for a switch.
    pub(super) value: Option<&'static str>,
    help: &'static str,
}

const fn option(flag: &'static str, variable: &'static str, value: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec {
        flag,
        variable,
        value: Some(value),
        help,
    }
}

const fn switch(flag: &'static str, variable: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec {
        flag,
        variable,
        value: None,
        help,
    }
}

pub(super) const DIRECTORY: OptionSpec = option(
    "directory",
    variables::DIRECTORY,
    "PATH",
    "where the files are written; it must exist",
);
pub(super) const JWT_SVID: OptionSpec = option(
    "jwt-svid",
    variables::JWT_SVIDS,
    "FILE=AUDIENCE",
    "keep a token for this audience in this file; may be repeated (in the variable: separated by spaces or lines)",
);
pub(super) const SPIFFE_ID: OptionSpec = option(
    "spiffe-id",
    variables::SPIFFE_ID,
    "ID",
    "the identity with this SPIFFE ID, such as spiffe://example.org/app",
);
pub(super) const HINT: OptionSpec = option("hint", variables::HINT, "HINT", "the identity with this hint");
pub(super) const TRUST_DOMAIN: OptionSpec = option(
    "trust-domain",
    variables::TRUST_DOMAIN,
    "NAME",
    "an identity in this trust domain",
);
pub(super) const SOCKET: OptionSpec = option(
    "socket",
    variables::SOCKET,
    "unix:///PATH",
    "the SPIFFE Workload API's socket",
);
pub(super) const X509_SVID: OptionSpec = switch(
    "x509-svid",
    variables::X509_SVID,
    "keep svid.pem, svid_key.pem and svid_bundle.pem, too",
);
pub(super) const JWT_BUNDLE: OptionSpec = switch("jwt-bundle", variables::JWT_BUNDLE, "keep jwt_bundle.json, too");
pub(super) const ISSUED_TOKEN: OptionSpec = option(
    "issued-token",
    variables::ISSUED_TOKENS,
    "FILE=AUDIENCE",
    "keep a token of tokenscope's issuer for this audience in this file; may be repeated, as --jwt-svid",
);
pub(super) const ISSUER: OptionSpec = option(
    "issuer",
    variables::ISSUER,
    "URL",
    "the issuer: the https URL that /token follows",
);
pub(super) const ISSUER_CA: OptionSpec = option(
    "issuer-ca",
    variables::ISSUER_CA,
    "PEM",
    "the authorities of the issuer's certificate; no others are trusted",
);
pub(super) const SUBJECT_TOKEN: OptionSpec = option(
    "subject-token",
    variables::SUBJECT_TOKEN,
    "PATH",
    "the file with the pod's own token, which is exchanged",
);
pub(super) const TOKEN_LIFETIME: OptionSpec = option(
    "token-lifetime",
    variables::TOKEN_LIFETIME,
    "SECONDS",
    "the lifetime that the issuer is asked for",
);
pub(super) const ENDPOINT: OptionSpec = option(
    "endpoint",
    ENDPOINT_VARIABLE,
    "JSON",
    "serve credentials on the loopback addresses, as this says",
);
pub(super) const AUTHORIZATION_FOLDERS: OptionSpec = option(
    "authorization-folders",
    variables::AUTHORIZATION_FOLDERS,
    "PATH",
    "where each container has a folder for its authorization token (/tokenscope-authorization)",
);
pub(super) const ONCE: OptionSpec = switch("once", "TOKENSCOPE_ONCE", "end when every file is written once");
pub(super) const OBSERVE: OptionSpec = option(
    "observe",
    "TOKENSCOPE_OBSERVE",
    "ADDRESS",
    "serve /livez, /readyz and /metrics over HTTP, such as at 127.0.0.1:9102",
);
pub(super) const LOG_LEVEL: OptionSpec = option(
    "log-level",
    variables::LOG_LEVEL,
    "LEVEL",
    "off, error, warn, info (the default) or debug",
);

/// Those that say which tokens of SPIFFE are wanted.
pub(super) const OF_SPIFFE: [&OptionSpec; 7] = [
    &JWT_SVID,
    &SPIFFE_ID,
    &HINT,
    &TRUST_DOMAIN,
    &SOCKET,
    &X509_SVID,
    &JWT_BUNDLE,
];

/// Those that say which tokens of tokenscope's issuer are.
pub(super) const OF_ISSUER: [&OptionSpec; 5] = [&ISSUED_TOKEN, &ISSUER, &ISSUER_CA, &SUBJECT_TOKEN, &TOKEN_LIFETIME];

pub(super) const OPTIONS: [&OptionSpec; 18] = [
    &DIRECTORY,
    &JWT_SVID,
    &SPIFFE_ID,
    &HINT,
    &TRUST_DOMAIN,
    &SOCKET,
    &X509_SVID,
    &JWT_BUNDLE,
    &ISSUED_TOKEN,
    &ISSUER,
    &ISSUER_CA,
    &SUBJECT_TOKEN,
    &TOKEN_LIFETIME,
    &ENDPOINT,
    &AUTHORIZATION_FOLDERS,
    &ONCE,
    &OBSERVE,
    &LOG_LEVEL,
];

/// The help.
pub(super) fn help() -> String {
    let mut text = format!(
        "Keeps tokens fresh in files, for AWS_WEB_IDENTITY_TOKEN_FILE: SPIFFE's JWT-SVIDs, or tokens of tokenscope's issuer.\n\n\
         Usage: tokenscope-sidecar [OPTION…]          keep the files fresh until SIGTERM\n       \
         tokenscope-sidecar {READY} [OPTION…]    exit status 0 if every file is there and valid now\n       \
         tokenscope-sidecar {WRITE} PATH TEXT…   write each text to its path, and end\n\n\
         Options, each also an environment variable:\n",
    );
    for option in OPTIONS {
        let value = option.value.map(|value| format!(" {value}")).unwrap_or_default();
        let flag = format!("--{}{value}", option.flag);
        let _ = writeln!(text, "  {flag:<27} {:<25} {}", option.variable, option.help); // a String takes everything
    }
    text.push_str("  --help, --version");
    text
}
