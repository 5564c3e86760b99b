//! The tokens for third parties that AWS signs for a container's role: the webhook's JSON, read and checked.

use std::path::{Path, PathBuf};

use tokenscope_aws::GetWebIdentityToken;
use tokenscope_core::Audience;
use tokenscope_core::credentials_endpoint::ServedOutbound;
use tokenscope_core::outbound::{AwsToken, MOST_OUTBOUND_TOKENS, OutboundName};

/// A token for a third party.
#[derive(Clone, Debug)]
pub struct OutboundSettings {
    /// Its name.
    pub name: OutboundName,
    /// Its file.
    pub file: PathBuf,
    /// Its audience.
    pub audience: Audience,
    /// The seconds that are asked for, while the session lasts as long.
    pub duration_seconds: u32,
    /// The other parts of the request to AWS.
    pub aws: AwsToken,
}

/// The tokens of one container, each with a name of its own. An error names the field and what would be right.
pub(super) fn outbound(served: &[ServedOutbound]) -> Result<Vec<OutboundSettings>, String> {
    if served.len() > MOST_OUTBOUND_TOKENS {
        return Err(format!(
            "outbound has {} tokens and should have at most {MOST_OUTBOUND_TOKENS}",
            served.len()
        ));
    }
    let mut tokens: Vec<OutboundSettings> = Vec::with_capacity(served.len());
    for (index, token) in served.iter().enumerate() {
        if tokens.iter().any(|other| other.name == token.name) {
            return Err(format!("outbound[{index}].name: {} is there twice", token.name));
        }
        tokens.push(read(token).map_err(|why| format!("outbound[{index}].{why}"))?);
    }
    Ok(tokens)
}

fn read(served: &ServedOutbound) -> Result<OutboundSettings, String> {
    const SHORTEST: u32 = GetWebIdentityToken::SHORTEST;
    const LONGEST: u32 = GetWebIdentityToken::LONGEST;
    if !Path::new(&*served.file).is_absolute() {
        return Err("file should be an absolute path".to_owned());
    }
    if !(SHORTEST..=LONGEST).contains(&served.duration_seconds) {
        return Err(format!(
            "durationSeconds is {} and should be from {SHORTEST} to {LONGEST}",
            served.duration_seconds
        ));
    }
    Ok(OutboundSettings {
        name: served.name.clone(),
        file: PathBuf::from(&*served.file),
        audience: served.audience.clone(),
        duration_seconds: served.duration_seconds,
        aws: served.aws().ok_or("scope is for a token with originIdentity alone")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> ServedOutbound {
        ServedOutbound {
            name: "claude".parse().unwrap(),
            file: "/outbound/token".into(),
            audience: "https://api.anthropic.com".parse().unwrap(),
            duration_seconds: 3600,
            algorithm: tokenscope_core::outbound::AwsAlgorithm::RS256,
            origin_identity: false,
            scope: None,
        }
    }

    type Change = fn(&mut ServedOutbound);

    #[test]
    fn what_is_wrong_is_said_with_the_field() {
        assert_eq!(outbound(&[token()]).unwrap().len(), 1);
        let wrong: [(Change, &str); 4] = [
            (
                |token| token.file = "token".into(),
                "outbound[0].file should be an absolute path",
            ),
            (|token| token.duration_seconds = 59, "outbound[0].durationSeconds is 59"),
            (|token| token.duration_seconds = 3601, "from 60 to 3600"),
            (|token| token.scope = Some("read".parse().unwrap()), "outbound[0].scope"),
        ];
        for (change, part) in wrong {
            let mut changed = token();
            change(&mut changed);
            let why = outbound(&[changed]).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
        assert!(
            outbound(&[token(), token()])
                .unwrap_err()
                .contains("claude is there twice")
        );
        let many: Vec<_> = (0..9).map(|_| token()).collect();
        assert!(outbound(&many).unwrap_err().contains("at most 8"));
    }
}
