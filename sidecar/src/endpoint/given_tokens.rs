//! The tokens that are given by audience: those of each container, and those that all containers of the pod have. Pure.

use tokenscope_core::credentials_endpoint::TokenByAudience;
use tokenscope_core::outbound::MOST_OUTBOUND_TOKENS;
use tokenscope_core::{Audience, TokenExpiration};

/// The most tokens of a container: that of its role, and those for third parties.
const MOST: usize = MOST_OUTBOUND_TOKENS + 1;

/// A token that may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenToken {
    /// Its audience.
    pub audience: Audience,
    /// The longest lifetime that may be asked for.
    pub most: TokenExpiration,
}

/// Reads those of a container. An error names the field.
pub(super) fn given(served: &[TokenByAudience]) -> Result<Vec<GivenToken>, String> {
    if served.len() > MOST {
        return Err(format!(
            "tokens has {} entries and should have at most {MOST}",
            served.len()
        ));
    }
    let token = |(index, token): (usize, &TokenByAudience)| {
        let most = TokenExpiration::from_seconds(token.most_seconds.into());
        Ok(GivenToken {
            audience: token.audience.clone(),
            most: most.map_err(|error| format!("tokens[{index}].mostSeconds: {error}"))?,
        })
    };
    served.iter().enumerate().map(token).collect()
}

/// Those that each of the containers has, with the shortest lifetime.
pub(super) fn common<'a>(containers: impl IntoIterator<Item = &'a [GivenToken]>) -> Vec<GivenToken> {
    let mut containers = containers.into_iter();
    let mut common = containers.next().unwrap_or_default().to_vec();
    for tokens in containers {
        common.retain_mut(|token| match find(tokens, &token.audience) {
            Some(other) => {
                token.most = token.most.min(other.most);
                true
            }
            None => false,
        });
    }
    common
}

/// The one of an audience.
pub(super) fn find<'a>(tokens: &'a [GivenToken], audience: &Audience) -> Option<&'a GivenToken> {
    tokens.iter().find(|token| token.audience == *audience)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn token(audience: &str, seconds: i64) -> GivenToken {
        GivenToken {
            audience: audience.parse().unwrap(),
            most: TokenExpiration::from_seconds(seconds).unwrap(),
        }
    }

    #[test]
    fn common_is_what_each_container_has_for_the_shortest_time() {
        let (app, job) = ([token("a", 3600), token("b", 3600)], [token("c", 600), token("a", 900)]);
        assert_eq!(common([&app[..], &job]), [token("a", 900)]);
        assert_eq!(common([&app[..], &[]]), []);
        assert_eq!(common([]), []);
        assert_eq!(common([&app[..]]), app);
    }

    #[test]
    fn a_lifetime_that_is_none_and_too_many_tokens_are_refused() {
        let served = |most_seconds| TokenByAudience {
            audience: Audience::sts(),
            most_seconds,
        };
        let why = given(&[served(3600), served(599)]).unwrap_err();
        assert!(why.contains("tokens[1].mostSeconds"), "{why}");
        let why = given(&vec![served(3600); MOST + 1]).unwrap_err();
        assert!(why.contains("at most 9"), "{why}");
    }
}
