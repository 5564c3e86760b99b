//! The volumes of a pod that hold service account tokens, as far as the lock looks at them.

use tokenscope_core::pod::{
    self, EKS_TOKEN_VOLUME, TOKEN_VOLUME, is_outbound_volume, is_sidecar_volume, is_token_volume,
};
use tokenscope_core::{GrantRecord, HeldToken, TokenVolume};

/// A volume that holds tokens of an audience, or whose CSI driver may get one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptVolume {
    name: Box<str>,
    csi_driver: Option<Box<str>>,
    /// Audience and lifetime in seconds.
    tokens: Box<[(Box<str>, Option<i64>)]>,
    containers: Box<[Box<str>]>,
}

impl KeptVolume {
    /// The volumes of a pod that the lock looks at: those with a token for somebody else than the API server, without those that
    /// the webhook added, if a proven record says that there are some. Since version 0.2 each audience has a volume; before, all
    /// audiences of a pod had one, which bears the first of the names.
    pub(super) fn all_of(pod: &pod::Pod<Box<str>>, record: Option<&GrantRecord<'_>>) -> Box<[Self]> {
        let is_ours = |name: &str| {
            [TOKEN_VOLUME, EKS_TOKEN_VOLUME]
                .into_iter()
                .any(|first| is_token_volume(name, first))
                || is_sidecar_volume(name)
                || is_outbound_volume(name)
        };
        let of_association = record.and_then(|record| record.association.as_ref()?.volume.as_deref());
        let is_own = |name: &str| (record.is_some() && is_ours(name)) || of_association == Some(name);
        let volumes = pod.facts(record).token_volumes;
        let kept = volumes.iter().filter(|volume| !is_own(volume.name)).map(Self::of);
        kept.filter(|volume| volume.csi_driver.is_some() || !volume.tokens.is_empty())
            .collect()
    }

    fn of(volume: &TokenVolume<'_>) -> Self {
        let tokens = volume.tokens.iter();
        Self {
            name: volume.name.into(),
            csi_driver: volume.csi_driver.map(Into::into),
            tokens: tokens
                .filter_map(|token| Some((token.audience?.into(), token.expiration_seconds)))
                .collect(),
            containers: volume.containers.iter().map(|&name| name.into()).collect(),
        }
    }

    /// The number of its tokens.
    pub(super) fn token_count(&self) -> usize {
        self.tokens.len()
    }

    /// As a decision looks at it.
    pub(super) fn borrowed(&self) -> TokenVolume<'_> {
        let tokens = self.tokens.iter().map(|(audience, expiration_seconds)| HeldToken {
            audience: Some(audience),
            expiration_seconds: *expiration_seconds,
        });
        TokenVolume {
            name: &self.name,
            csi_driver: self.csi_driver.as_deref(),
            tokens: tokens.collect(),
            containers: self.containers.iter().map(|name| &**name).collect(),
        }
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let tokens = self.tokens.iter().map(|token| size_of_val(token) + token.0.len());
        let containers = self.containers.iter().map(|name| size_of_val(name) + name.len());
        size_of_val(self)
            + self.name.len()
            + self.csi_driver.as_ref().map_or(0, |driver| driver.len())
            + tokens.sum::<usize>()
            + containers.sum::<usize>()
    }
}
