//! The audiences of the API server itself, as the process's own token shows them.
//!
//! A token for the API server must never be locked: every pod has one. The token that the process shows the API server is meant
//! for it, so its `aud` names at least one of the API server's audiences, and by default all of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::config::AuthInfo;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokenscope_core::Audience;
use tokenscope_core::lock::{Lock, LockMode};

/// The largest token that is read. The API server's have about a kibibyte.
const MOST_TOKEN_BYTES: u64 = 64 << 10;

/// A locked audience is one of the API server's own.
#[derive(Debug, thiserror::Error)]
#[error(
    "--lock-audience: {0} is an audience of the API server itself, whose tokens every pod has: lock the audiences of other parties only"
)]
pub struct ApiAudience(Audience);

/// Refuses locked audiences that are the API server's own, as far as the process's own token shows. Without one, as with a
/// client certificate, nothing is refused.
pub async fn check_locked(auth: &AuthInfo, lock: &Lock) -> Result<(), ApiAudience> {
    // Where nothing is refused or warned about, an installation must go on as before.
    if lock.mode < LockMode::Warn {
        return Ok(());
    }
    let own = own_audiences(auth).await;
    match lock
        .audiences
        .iter()
        .find(|audience| own.iter().any(|own| own == audience.as_str()))
    {
        Some(audience) => Err(ApiAudience(audience.clone())),
        None => Ok(()),
    }
}

/// The URL of tokenscope's own issuer is an audience of the API server.
#[derive(Debug, thiserror::Error)]
#[error(
    "--issuer-url: {0} is an audience of the API server itself, whose tokens every pod has: tokenscope's own issuer needs a URL of its own"
)]
pub struct ApiIssuer(Box<str>);

/// Refuses an issuer whose URL is an audience of the API server: every pod's own token could be exchanged there.
pub async fn check_issuer(auth: &AuthInfo, issuer: Option<&str>) -> Result<(), ApiIssuer> {
    let Some(issuer) = issuer else {
        return Ok(());
    };
    if own_audiences(auth).await.iter().any(|own| own == issuer) {
        return Err(ApiIssuer(issuer.into()));
    }
    Ok(())
}

/// The API server's own audiences, as far as the process's own token shows them: at most 16. No policy gives a pod a token of one
/// for a third party.
pub async fn of_api_server(auth: &AuthInfo) -> Vec<Box<str>> {
    const MOST: usize = 16;
    let own = own_audiences(auth).await.into_iter();
    own.take(MOST).map(Into::into).collect()
}

/// The audiences of the token that requests carry; none where there is no token or it can't be read.
async fn own_audiences(auth: &AuthInfo) -> Vec<String> {
    match own_token(auth).await {
        Ok(token) => audiences_of(&token),
        Err(error) => {
            tracing::debug!(file = auth.token_file, %error, "the API server's audiences are not known");
            Vec::new()
        }
    }
}

/// The token that requests carry; empty where they carry none.
async fn own_token(auth: &AuthInfo) -> std::io::Result<String> {
    use tokio::io::AsyncReadExt as _;
    if let Some(token) = &auth.token {
        return Ok(token.expose_secret().to_owned());
    }
    let mut token = String::new();
    let Some(file) = &auth.token_file else {
        return Ok(token);
    };
    let opened = tokio::fs::File::open(file).await?;
    opened.take(MOST_TOKEN_BYTES).read_to_string(&mut token).await?;
    Ok(token)
}

/// The `aud` of a JWT (RFC 7519, 4.1.3), without looking at its signature; none if it is no JWT.
pub fn audiences_of(token: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct AudienceClaim {
        #[serde(default)]
        aud: OneOrMore,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    impl Default for OneOrMore {
        fn default() -> Self {
            Self::More(Vec::new())
        }
    }

    let payload = token.trim().split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    // Serde reads a list as the members of a struct too; claims are an object (RFC 7519, 7.2).
    if claims.trim_ascii_start().first() != Some(&b'{') {
        return Vec::new();
    }
    match serde_json::from_slice::<AudienceClaim>(&claims) {
        Ok(AudienceClaim {
            aud: OneOrMore::One(audience),
        }) => vec![audience],
        Ok(AudienceClaim {
            aud: OneOrMore::More(audiences),
        }) => audiences,
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn one_audience_and_several_are_read() {
        assert_eq!(audiences_of(&token(r#"{"aud":"a"}"#)), ["a"]);
        assert_eq!(audiences_of(&token(r#"{"aud":["a","b"],"sub":"s"}"#)), ["a", "b"]);
        for other in ["", "a.b.c", "no token", &token("{}"), &token(r#"{"aud":7}"#)] {
            assert_eq!(audiences_of(other), [""; 0], "{other}");
        }
    }

    #[tokio::test]
    async fn an_issuer_whose_url_is_an_audience_of_the_api_server_is_refused() {
        let auth = AuthInfo {
            token: Some(token(r#"{"aud":["https://oidc.example.com"]}"#).into()),
            ..AuthInfo::default()
        };
        check_issuer(&auth, None).await.unwrap();
        check_issuer(&auth, Some("https://tokens.example.com")).await.unwrap();
        let error = check_issuer(&auth, Some("https://oidc.example.com")).await.unwrap_err();
        assert!(error.to_string().contains("--issuer-url"), "{error}");
    }

    #[tokio::test]
    async fn a_locked_audience_of_the_api_server_is_refused_by_its_name() {
        let own = token(r#"{"aud":["https://kubernetes.default.svc","k3s"]}"#);
        let file = std::env::temp_dir().join(format!("tokenscope-audiences-{}", std::process::id()));
        tokio::fs::write(&file, &own).await.unwrap();
        let by_file = AuthInfo {
            token_file: Some(file.display().to_string()),
            ..AuthInfo::default()
        };
        let by_kubeconfig = AuthInfo {
            token: Some(own.into()),
            ..AuthInfo::default()
        };
        let locked = |names: &[&str]| Lock {
            mode: LockMode::Deny,
            audiences: names.iter().map(|name| name.parse().unwrap()).collect(),
            ..Lock::default()
        };

        for auth in [&by_file, &by_kubeconfig] {
            check_locked(auth, &locked(&["sts.amazonaws.com"])).await.unwrap();
            let refused = check_locked(auth, &locked(&["sts.amazonaws.com", "k3s"])).await;
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("k3s") && error.contains("--lock-audience"), "{error}");
            let audited = Lock {
                mode: LockMode::Audit,
                ..locked(&["k3s"])
            };
            check_locked(auth, &audited).await.unwrap();
        }
        tokio::fs::remove_file(&file).await.unwrap();
        check_locked(&by_file, &locked(&["k3s"])).await.unwrap();
        check_locked(&AuthInfo::default(), &locked(&["k3s"])).await.unwrap();
    }
}
