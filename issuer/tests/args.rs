//! What the flags of `serve` make of the issuer.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use clap::Parser as _;
use tokenscope_core::TokenSource;
use tokenscope_issuer::args::{IssuerAction, IssuerCommand, ServeArgs};
use tokenscope_issuer::rotation::KeyRotationSettings;

const URL: &str = "https://issuer.example.com/a";
const CLUSTER: &str = "https://kubernetes.default.svc";

fn serve(flags: &[&str]) -> Result<ServeArgs, clap::Error> {
    let first = ["tokenscope-issuer", "serve", "--issuer-url", URL];
    match IssuerCommand::try_parse_from(first.iter().chain(flags))?.action {
        IssuerAction::Serve(arguments) => Ok(*arguments),
        other => panic!("{other:?}"),
    }
}

#[test]
fn in_the_issuers_own_process_its_source_is_available() {
    let settings = serve(&["--enforcement", "audit"]).unwrap().settings();
    assert_eq!(settings.issuer.as_deref(), Some(URL));
    assert!(settings.has_source(TokenSource::Issuer));
    assert_eq!(settings.enforcement.as_str(), "audit", "the other flags count too");
}

#[test]
fn an_exchange_audience_that_the_api_server_takes_itself_is_refused() {
    for flags in [
        ["--exchange-audience", CLUSTER, "--cluster-issuer", CLUSTER].as_slice(),
        &["--exchange-audience", "b", "--api-audience", "a,b"],
        &["--api-audience", URL],
        &["--cluster-issuer", URL],
    ] {
        let error = serve(flags).unwrap().audience().unwrap_err().to_string();
        assert!(
            error.contains("--exchange-audience is") && error.contains("the API server takes itself"),
            "{error}"
        );
    }
}

#[test]
fn the_exchange_audience_is_the_issuers_url_unless_it_is_given() {
    assert_eq!(serve(&["--cluster-issuer", CLUSTER]).unwrap().audience().unwrap(), URL);
    let given = serve(&["--exchange-audience", "exchange", "--api-audience", CLUSTER]).unwrap();
    assert_eq!(given.audience().unwrap(), "exchange");
}

#[test]
fn how_long_a_retired_key_verifies_does_not_depend_on_the_longest_lifetime_of_now() {
    let rotation = |seconds: &str| serve(&["--longest-token", seconds]).unwrap().rotation().unwrap();
    assert_eq!(rotation("600"), rotation("43200"));
    assert!(serve(&["--longest-token", "43201"]).is_err());
    // The rotation's own tests show that a key goes after this time and not before.
    assert_eq!(KeyRotationSettings::KEPT.as_secs(), 43_200 + 600);
}

#[test]
fn a_name_of_a_cluster_that_could_be_read_as_a_subject_is_a_usage_error() {
    let named = serve(&["--cluster-name", "eu-1"]).unwrap();
    assert_eq!(named.cluster_name.unwrap().as_str(), "eu-1");
    let error = serve(&["--cluster-name", "eu/1:x"]).unwrap_err().to_string();
    assert!(error.contains("--cluster-name") && error.contains("eu/1:x"), "{error}");
}
