//! AWS regions.

use std::str::FromStr;

use crate::arn::shortened;

/// An AWS region, such as `eu-central-1`: 1 to 32 lower case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region(Box<str>);

impl Region {
    /// The region as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) || is_zone(text) {
            return Err(InvalidRegion { text: shortened(text) });
        }
        Ok(Self(text.into()))
    }
}

/// True for an availability zone, which many take for a region: `eu-central-1a`.
fn is_zone(text: &str) -> bool {
    let region = text.strip_suffix(|letter: char| letter.is_ascii_lowercase());
    region.is_some_and(has_shape_of_aws)
}

/// True if a region is written as AWS writes its own: words, and a number at the end. Others have regions of other shapes.
fn has_shape_of_aws(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else {
        return false;
    };
    let is_word = |word: &str| word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && words.contains('-') && words.split('-').all(is_word)
}

/// The partition of a region, by its first words; `None` where the region is not written as those of AWS are.
pub fn partition_of_region(region: &str) -> Option<&'static str> {
    const PARTITIONS: [(&str, &str); 9] = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-iso-", "aws-iso"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("eu-isof-", "aws-iso-f"),
        ("eusc-", "aws-eusc"),
        ("", "aws"),
    ];
    let found = PARTITIONS.into_iter().find(|(prefix, _)| region.starts_with(prefix));
    found
        .filter(|_| has_shape_of_aws(region))
        .map(|(_, partition)| partition)
}

/// The reason why a text is no region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an AWS region such as eu-central-1")]
pub struct InvalidRegion {
    text: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_availability_zone_is_no_region() {
        for zone in ["eu-central-1a", "us-gov-west-1b", "ap-southeast-10c"] {
            assert!(zone.parse::<Region>().is_err(), "{zone}");
        }
        // Other stores that take AWS's requests name their regions as they like.
        for region in ["eu-central-1", "us-gov-west-1", "default", "garage", "eu-isoe-west-1"] {
            assert!(region.parse::<Region>().is_ok(), "{region}");
        }
    }

    #[test]
    fn each_region_is_of_one_partition() {
        for (region, partition) in [
            ("eu-central-1", Some("aws")),
            ("us-east-2", Some("aws")),
            ("ap-southeast-10", Some("aws")),
            ("cn-north-1", Some("aws-cn")),
            ("us-gov-east-1", Some("aws-us-gov")),
            ("us-iso-west-1", Some("aws-iso")),
            ("us-isob-east-1", Some("aws-iso-b")),
            ("eu-isoe-west-1", Some("aws-iso-e")),
            ("us-isof-south-1", Some("aws-iso-f")),
            ("eusc-de-east-1", Some("aws-eusc")),
            ("default", None),
            ("aws-global", None),
            ("eu-central-1a", None),
            ("", None),
        ] {
            assert_eq!(partition_of_region(region), partition, "{region}");
        }
    }
}
