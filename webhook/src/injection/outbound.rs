//! The tokens for third parties that come with grants: their volumes, mounts and variables.

use std::borrow::Cow;
use std::sync::Arc;

use tokenscope_core::outbound::{OUTBOUND_FOLDER, OutboundName, OutboundSource, OutboundToken, OutboundValue};
use tokenscope_core::pod::{Text, VolumeMount, outbound_volume, path_on_windows};
use tokenscope_core::sidecar::TOKEN_FILE;

use super::pieces::{Content, DesiredMount, DesiredToken, DesiredVariable, DesiredVolume, VariableValue, unexpanded};

/// The most volumes of such tokens in one pod: as many as four policies give that have nothing in common, or one policy to four containers where
/// AWS signs.
const MOST_VOLUMES: usize = 32;

/// The tokens for third parties of one pod.
#[derive(Debug, Default)]
pub(super) struct DesiredOutbound<'a> {
    /// Those of each policy that gives some.
    sets: Vec<OutboundSet<'a>>,
    /// Each distinct token's volume once, in the order in which they are wanted.
    volumes: Vec<OutboundVolume<'a>>,
    /// The first two different tokens whose volumes would have one name: a name tells tokens apart by 64 bits.
    alike: Option<(&'a OutboundToken, &'a OutboundToken)>,
}

/// The tokens of one policy.
#[derive(Debug)]
struct OutboundSet<'a> {
    tokens: &'a Arc<[OutboundToken]>,
    /// The container that they are for; `None` where they are the same for all.
    container: Option<&'a str>,
    /// The volume of each token, and where containers mount it.
    mounts: Vec<(String, String)>,
}

#[derive(Debug)]
struct OutboundVolume<'a> {
    name: String,
    token: &'a OutboundToken,
    /// The container for whose role AWS signs the token.
    container: Option<&'a str>,
}

impl<'a> DesiredOutbound<'a> {
    /// The index of these tokens of a container; `None` where there are none.
    pub(super) fn index_of(&mut self, tokens: &'a Arc<[OutboundToken]>, container: &'a str) -> Option<usize> {
        self.index_with(tokens, container, outbound_volume)
    }

    /// The same where `name` gives a token's volume its name.
    fn index_with(
        &mut self,
        tokens: &'a Arc<[OutboundToken]>,
        container: &'a str,
        name: impl Fn(&OutboundToken, &str) -> String,
    ) -> Option<usize> {
        if tokens.is_empty() {
            return None;
        }
        let is_of_aws = |token: &OutboundToken| token.aws().is_some();
        let for_one = tokens.iter().any(is_of_aws).then_some(container);
        // Containers that one policy grants something share its tokens.
        let is_same = |set: &OutboundSet<'_>| Arc::ptr_eq(set.tokens, tokens) && set.container == for_one;
        if let Some(known) = self.sets.iter().position(is_same) {
            return Some(known);
        }
        let mounts = tokens.iter().map(|token| (name(token, container), token.folder()));
        let mounts: Vec<_> = mounts.collect();
        for (token, (name, _)) in tokens.iter().zip(&mounts) {
            let volume = OutboundVolume {
                name: name.clone(),
                token,
                container: for_one.filter(|_| is_of_aws(token)),
            };
            match self.volumes.iter().find(|known| known.name == *name) {
                Some(known) if !are_same(known, &volume) => {
                    self.alike.get_or_insert((known.token, token));
                }
                Some(_) => {}
                // Beyond the bound one more is enough: the pod is refused.
                None if self.volumes.len() > MOST_VOLUMES => {}
                None => self.volumes.push(volume),
            }
        }
        self.sets.push(OutboundSet {
            tokens,
            container: for_one,
            mounts,
        });
        Some(self.sets.len() - 1)
    }

    /// Those with this index that AWS signs, each with its volume: the same token under two names is there once.
    pub(super) fn of_aws(&self, set: Option<usize>) -> Vec<(&'a OutboundToken, &str)> {
        let mut found: Vec<(&OutboundToken, &str)> = Vec::new();
        let set = set.and_then(|set| self.sets.get(set));
        for (token, (volume, _)) in set.into_iter().flat_map(|set| set.tokens.iter().zip(&set.mounts)) {
            if token.aws().is_some() && found.iter().all(|(_, known)| known != volume) {
                found.push((token, volume));
            }
        }
        found
    }

    /// The mounts of containers that get the tokens with this index.
    pub(super) fn mounts(&self, set: Option<usize>) -> impl Iterator<Item = DesiredMount<'_>> {
        let set = set.and_then(|set| self.sets.get(set));
        let mounts = set.into_iter().flat_map(|set| &set.mounts);
        mounts.map(|(volume, path)| DesiredMount { volume, path })
    }

    /// True if this is exactly how a container mounts one of the volumes, and its token is the same for all containers.
    pub(super) fn is_shared_mount(&self, mount: &VolumeMount<Text<'_>>) -> bool {
        let is_shared = |volume: &OutboundVolume<'_>| *volume.name == *mount.name && volume.container.is_none();
        let folder = mount.mount_path.strip_prefix(OUTBOUND_FOLDER);
        let name = folder.and_then(|folder| folder.strip_prefix('/'));
        let exact = DesiredMount {
            volume: &mount.name,
            path: &mount.mount_path,
        };
        self.volumes.iter().any(is_shared)
            && name.is_some_and(|name| name.parse::<OutboundName>().is_ok())
            && exact.is_written(mount)
    }

    /// The volumes.
    pub(super) fn volumes(&self) -> impl Iterator<Item = DesiredVolume<'a>> {
        self.volumes.iter().map(|volume| DesiredVolume {
            name: Cow::Owned(volume.name.clone()),
            content: match &volume.token.source {
                OutboundSource::ServiceAccount => Content::Token {
                    audience: volume.token.audience.as_str(),
                    expiration: volume.token.expiration,
                },
                OutboundSource::Issuer | OutboundSource::Aws(_) => Content::Memory,
            },
        })
    }

    /// Those of tokenscope's issuer, which the sidecar keeps.
    pub(super) fn issued(&self) -> impl Iterator<Item = DesiredToken<'a>> {
        let issued = self.volumes.iter();
        let issued = issued.filter(|volume| volume.token.source == OutboundSource::Issuer);
        issued.map(|volume| DesiredToken {
            audience: &volume.token.audience,
            expiration: volume.token.expiration,
            volume: Cow::Owned(volume.name.clone()),
        })
    }

    /// The reasons why the pod can't have all of them.
    pub(super) fn obstacles(&self) -> impl Iterator<Item = String> {
        let alike = self.alike.map(|(one, other)| {
            format!(
                "the tokens {} and {} for third parties would be in one volume, although they differ: give one of them another expirationSeconds in its policy's outboundTokens",
                one.name, other.name
            )
        });
        self.excess().into_iter().chain(alike)
    }

    fn excess(&self) -> Option<String> {
        (self.volumes.len() > MOST_VOLUMES).then(|| {
            format!(
                "the pod's containers would have more than {MOST_VOLUMES} different tokens for third parties: give fewer containers a role, or roles by fewer policies, or let the policies give fewer outboundTokens (one that AWS signs counts for each container)"
            )
        })
    }
}

/// True if the tokens of two volumes are the same but for their names and variables, so that one volume can hold both.
fn are_same(one: &OutboundVolume<'_>, other: &OutboundVolume<'_>) -> bool {
    let (token, others) = (one.token, other.token);
    let differs =
        (&token.source, &token.audience, token.expiration) != (&others.source, &others.audience, others.expiration);
    one.container == other.container && !differs
}

/// The variables that tell of these tokens.
pub(super) fn variables(tokens: &[OutboundToken], windows: bool) -> impl Iterator<Item = DesiredVariable<'_>> {
    tokens.iter().flat_map(move |token| {
        token.variables.iter().map(move |variable| DesiredVariable {
            name: variable.name.as_str(),
            value: VariableValue::Text(match &variable.value {
                OutboundValue::File => Cow::Owned(file(token, windows)),
                OutboundValue::Audience => unexpanded(token.audience.as_str()),
                OutboundValue::Text(text) => unexpanded(text),
            }),
        })
    })
}

/// The path of a token, as a program in the container writes it.
fn file(token: &OutboundToken, windows: bool) -> String {
    let path = [&*token.folder(), "/", TOKEN_FILE].concat();
    if windows {
        return path_on_windows(&path);
    }
    path
}

#[cfg(test)]
mod tests {
    use tokenscope_core::TokenExpiration;
    use tokenscope_core::outbound::AwsToken;

    use super::*;

    fn token(name: &str, audience: &str, seconds: i64, source: OutboundSource) -> Arc<[OutboundToken]> {
        Arc::new([OutboundToken {
            name: name.parse().unwrap(),
            audience: audience.parse().unwrap(),
            source,
            expiration: TokenExpiration::from_seconds(seconds).unwrap(),
            variables: Vec::new(),
        }])
    }

    #[test]
    fn different_tokens_whose_volumes_would_have_one_name_are_told_and_the_same_tokens_share_it() {
        let first = token("first", "a", 900, OutboundSource::ServiceAccount);
        for (second, are_alike) in [
            (token("second", "a", 900, OutboundSource::ServiceAccount), false),
            (token("second", "b", 900, OutboundSource::ServiceAccount), true),
            (token("second", "a", 901, OutboundSource::ServiceAccount), true),
            (token("second", "a", 900, OutboundSource::Issuer), true),
            (
                token("second", "a", 900, OutboundSource::Aws(AwsToken::default())),
                true,
            ),
        ] {
            let mut desired = DesiredOutbound::default();
            for tokens in [&first, &second] {
                desired.index_with(tokens, "app", |_, _| "tokenscope-outbound-0123456789abcdef".to_owned());
            }
            assert_eq!(desired.volumes().count(), 1);
            let told: Vec<String> = desired.obstacles().collect();
            assert_eq!(told.len(), usize::from(are_alike), "{told:?}");
            assert!(
                told.iter().all(|told| told.contains("tokens first and second")),
                "{told:?}"
            );
        }
    }
}
