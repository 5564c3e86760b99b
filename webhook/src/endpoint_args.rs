//! The flags of the sidecar that serves credentials.

use std::net::Ipv6Addr;

use rustls::pki_types::ServerName;
use tokenscope_core::credentials_endpoint::DEFAULT_PORT;
use tokenscope_core::sidecar::SidecarSettings;
use tokenscope_platform::telemetry::chain;

use crate::issuer_authorities::certificates;

/// The most bytes of STS's URL.
const MOST_URL_BYTES: usize = 255;

/// The most bytes of the authorities of STS's certificate. They stand in every pod whose credentials a sidecar serves.
const MOST_AUTHORITIES_BYTES: usize = 16 * 1024;

/// The flags of the sidecar that serves credentials; its image is in [`SettingsArgs`](tokenscope_index::settings::SettingsArgs).
#[derive(Clone, Debug, clap::Args)]
pub struct EndpointArgs {
    /// The port of the pod's loopback addresses on which the sidecar serves credentials
    #[arg(long, env = "TOKENSCOPE_ENDPOINT_PORT", value_name = "PORT", default_value_t = DEFAULT_PORT,
          value_parser = clap::value_parser!(u16).range(1024..))]
    pub endpoint_port: u16,

    /// The URL of AWS STS that this sidecar asks, such as that of an endpoint inside a VPC [default: that of a region]
    #[arg(long, env = "TOKENSCOPE_STS_URL", value_name = "URL", value_parser = sts_url)]
    pub sts_url: Option<String>,

    /// The authorities of the certificate that the sidecar finds there, as PEM, at most 16 KiB [default: the public ones]
    #[arg(long, env = "TOKENSCOPE_STS_AUTHORITIES", value_name = "PEM", value_parser = authorities)]
    pub sts_authorities: Option<String>,
}

impl EndpointArgs {
    pub(crate) fn sidecar(&self, others: SidecarSettings) -> SidecarSettings {
        SidecarSettings {
            endpoint_port: self.endpoint_port,
            sts_url: self.sts_url.as_deref().map(Into::into),
            sts_authorities: self.sts_authorities.as_deref().map(Into::into),
            ..others
        }
    }
}

/// An https URL without a path, as the sidecar takes it.
fn sts_url(text: &str) -> Result<String, &'static str> {
    let authority = text.strip_prefix("https://").unwrap_or_default();
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if text.len() > MOST_URL_BYTES || !is_authority(authority) {
        return Err(
            "it should be an https URL of at most 255 characters without a path or a query, such as https://sts.eu-central-1.amazonaws.com",
        );
    }
    Ok(text.to_owned())
}

/// True for a name or an address, and perhaps a port (RFC 3986, 3.2).
fn is_authority(text: &str) -> bool {
    let (is_host, port) = if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (ServerName::try_from(host).is_ok(), port)
    };
    let is_port =
        |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// The certificates in a PEM text, as PEM, and nothing else of it.
fn authorities(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "it should be certificates as PEM, of at most 16 KiB";
    if text.len() > MOST_AUTHORITIES_BYTES {
        return Err(format!("{EXPECTED}: it has {} bytes", text.len()));
    }
    let certificates = certificates(text.as_bytes()).map_err(|error| format!("{EXPECTED}: {}", chain(&error)))?;
    if certificates.len() > MOST_AUTHORITIES_BYTES {
        return Err(format!(
            "{EXPECTED}: its certificates have {} bytes",
            certificates.len()
        ));
    }
    Ok(certificates)
}
