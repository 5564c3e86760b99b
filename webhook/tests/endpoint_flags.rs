//! The flags of the sidecar that serves credentials: what does not fit is refused when the webhook starts.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use clap::Parser as _;
use tokenscope_webhook::endpoint_args::EndpointArgs;

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    endpoint: EndpointArgs,
}

fn parsed(flag: &str, value: &str) -> Result<EndpointArgs, String> {
    let flags = Flags::try_parse_from(["webhook", &format!("{flag}={value}")]);
    flags.map(|flags| flags.endpoint).map_err(|error| error.to_string())
}

/// A certificate and its key, each as PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["sts".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn the_authorities_are_the_certificates_alone_whatever_stands_beside_them() {
    let (certificate, key) = certificate();
    let plain = |text: &str| text.replace('\r', "");
    for text in [
        certificate.clone(),
        format!("{certificate}{key}"),
        format!("{key}# mine\n{certificate}"),
    ] {
        let authorities = parsed("--sts-authorities", &text).unwrap().sts_authorities.unwrap();
        assert_eq!(plain(&authorities), plain(&certificate));
    }
}

#[test]
fn authorities_without_a_certificate_are_refused() {
    let (certificate, key) = certificate();
    let many = certificate.repeat((16 << 10) / certificate.len() + 1);
    for (text, said) in [
        ("none", "there is no certificate in it"),
        (&*key, "there is no certificate in it"),
        ("-----BEGIN CERTIFICATE-----\n", "it is not readable PEM"),
        (
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "it is not readable PEM",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "a certificate in it can't be read",
        ),
        (&*many, "of at most 16 KiB"),
    ] {
        let error = parsed("--sts-authorities", text).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_url_of_sts_has_a_host_and_no_path() {
    for url in [
        "https://sts.eu-central-1.amazonaws.com",
        "https://vpce-0123.sts.eu-central-1.vpce.amazonaws.com/",
        "https://sts.example:8443",
        "https://10.0.0.1",
        "https://[fd00::1]:443",
    ] {
        assert_eq!(parsed("--sts-url", url).unwrap().sts_url.as_deref(), Some(url));
    }
    let long = format!("https://{}", "a.".repeat(130));
    for url in [
        "https://:::",
        "https://",
        "https:///",
        "https://:443",
        "https://sts.example:",
        "https://sts.example:0",
        "https://sts.example:65536",
        "https://sts.example:+1",
        "https://[::1",
        "https://[sts.example]",
        "https://fd00::1",
        "https://a..b",
        "https://sts.example/path",
        "https://sts.example?query",
        "https://me@sts.example",
        "http://sts.example",
        &*long,
    ] {
        let error = parsed("--sts-url", url).unwrap_err();
        assert!(error.contains("it should be an https URL"), "{url}: {error}");
    }
}
