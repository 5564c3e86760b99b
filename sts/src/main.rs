//! The stand-in as a process of its own.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokenscope_sts::{Server, StsCertificate, StsConfig};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLE: &str = r#"Example:
  cat > sts.json <<'END'
  {
    "providers": [{"url": "https://oidc.tokenscope.test", "account": "111122223333", "client_ids": ["sts.amazonaws.com"]}],
    "roles": [{
      "arn": "arn:aws:iam::111122223333:role/orders",
      "trust_policy": {"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test"},
        "Condition": {"StringEquals": {"oidc.tokenscope.test:aud": "sts.amazonaws.com",
                                       "oidc.tokenscope.test:sub": "system:serviceaccount:shop:orders"}}}]}
    }]
  }
  END
  tokenscope-sts --config sts.json --issuer-trust ca.crt --connect-to oidc.tokenscope.test=127.0.0.1:6443
  # in another shell, with the address it prints:
  AWS_ENDPOINT_URL_STS=http://127.0.0.1:PORT AWS_ROLE_ARN=arn:aws:iam::111122223333:role/orders \
    AWS_WEB_IDENTITY_TOKEN_FILE=token AWS_REGION=eu-central-1 aws sts get-caller-identity

A provider's "context_provider" takes the ContextProvider document of `aws iam update-open-id-connect-provider`.

For AssumeRole and GetWebIdentityToken the file may also have:
  "users": [{"arn": "arn:aws:iam::111122223333:user/ann", "access_key_id": "AKIA…", "secret_access_key": "…"}]
  "permissions": [{"principal": "ARN of a role or user", "policies": [identity policies], "tags": {"key": "value"}}]
  "managed_policies": {"arn:aws:iam::aws:policy/…": {policy}}
  "outbound_federation": [{"account": "111122223333", "issuer": "https://….tokens.sts.global.api.aws"}]
  "region": "eu-central-1", or "aws-global" for the global endpoint
The issuer's /.well-known/openid-configuration and /.well-known/jwks.json are answered at the same address.

Not yet seen by AWS, judged here by the strict reading of its documentation and service models:
  - trusted identity propagation (ContextProvider) as a whole, and its keys in trust policies
  - GetWebIdentityToken as a whole: its claims, the limit of its payload, the code of a refusal at the global endpoint
  - chains: that inherited tags and an inherited source identity are keys of the request, the codes for a tag that
    conflicts with an inherited one and for a source identity that is to change
  - SessionTokenSize and SessionTokenUtilization
  - the code and words of refused session tags and source identities, and that a missing sts:TagSession or
    sts:SetSourceIdentity is named
  - the percentage of PackedPolicySize and its limit
  - the maximum age of a token, 24 hours by iat
  - tokens with repeated or undocumented claims under https://aws.amazon.com/"#;

/// A strict stand-in for AWS STS, for tests and demos on one machine.
///
/// Answers AssumeRoleWithWebIdentity, AssumeRole, GetWebIdentityToken and GetCallerIdentity as AWS does: it really verifies
/// tokens with the keys of their issuer and requests by their signature, and evaluates policies. Prints the address it listens on as one line and runs until
/// SIGTERM or Ctrl-C.
#[derive(Parser)]
#[command(version, after_help = EXAMPLE)]
struct StsArgs {
    /// Loopback address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// JSON file with providers, roles, and optionally issuer_trust_pem and connect_to.
    #[arg(long)]
    config: PathBuf,
    /// PEM file of CAs that issuers' certificates are checked against (repeatable).
    #[arg(long)]
    issuer_trust: Vec<PathBuf>,
    /// Reach an issuer at a loopback address; URL, Host and TLS name stay the issuer's (repeatable).
    #[arg(long, value_name = "HOST=ADDRESS", value_parser = connect_to)]
    connect_to: Vec<(String, SocketAddr)>,
    /// PEM certificate chain; with it and --tls-key the stand-in speaks TLS.
    #[arg(long, requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM private key.
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// What is logged to standard error: off, error, warn, info or debug.
    #[arg(long, default_value = "warn")]
    log_level: tracing::level_filters::LevelFilter,
}

fn connect_to(text: &str) -> Result<(String, SocketAddr), String> {
    let (host, address) = text
        .split_once('=')
        .ok_or("must be HOST=ADDRESS, e.g. oidc.test=127.0.0.1:6443")?;
    Ok((
        host.to_owned(),
        address.parse().map_err(|error| format!("{address}: {error}"))?,
    ))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(StsArgs::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In one line: a backtrace says nothing about a wrong configuration.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: StsArgs) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());

    let mut config: StsConfig =
        serde_json::from_str(&read(&args.config)?).with_context(|| args.config.display().to_string())?;
    for path in &args.issuer_trust {
        config.issuer_trust_pem.push('\n');
        config.issuer_trust_pem.push_str(&read(path)?);
    }
    config.connect_to.extend(args.connect_to);
    let certificate = match (&args.tls_certificate, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(StsCertificate {
            certificate_pem: read(certificate)?,
            key_pem: read(key)?,
        }),
        _ => None,
    };

    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config, args.listen, certificate).await?;
    writeln!(std::io::stdout(), "{}", server.addr())?;
    tokio::select! {
        _ = terminate.recv() => {}
        stopped = tokio::signal::ctrl_c() => stopped?,
    }
    server.stop().await;
    Ok(())
}
