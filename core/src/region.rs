//! AWS regions.

use std::str::FromStr;

use crate::arn::shortened;

/// An AWS region, such as `eu-central-1`, or that of another store: 1 to 32 lower case letters, digits and hyphens that can stand in the
/// name of a host, as SDKs put it there. Botocore takes no others (`validate_region_name`).
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
        let is_host = !text.starts_with('-') && !text.ends_with('-') && !text.bytes().all(|b| b.is_ascii_digit());
        if !is_host || text.len() > 32 || !text.bytes().all(allowed) {
            return Err(InvalidRegion::Text { text: shortened(text) });
        }
        if let Some(region) = region_of_zone(text) {
            return Err(InvalidRegion::Zone {
                text: text.into(),
                region: region.into(),
            });
        }
        if is_zone_id(text) {
            return Err(InvalidRegion::ZoneId { text: text.into() });
        }
        Ok(Self(text.into()))
    }
}

/// The region of an availability zone, which many take for a region: `eu-central-1a`; and of local and Wavelength zones, such as
/// `us-east-1-bos-1a` and `us-east-1-wl1-bos-wlz-1`. The schema of policies has the same rule.
fn region_of_zone(text: &str) -> Option<&str> {
    let is_digit = |byte: u8| byte.is_ascii_digit();
    let number = text.bytes().position(is_digit)?;
    let digits = text[number..].bytes().take_while(|byte| is_digit(*byte)).count();
    let (region, rest) = text.split_at(number + digits);
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let is_zone = match rest.as_bytes() {
        [letter] => is_letter(*letter),
        [b'-', .., before, last] if is_letter(*last) => is_digit(*before),
        [b'-', middle @ .., last] => is_digit(*last) && middle.iter().any(|byte| is_letter(*byte)),
        _ => false,
    };
    (is_zone && has_shape_of_aws(region)).then_some(region)
}

/// True for the ID of an availability zone, such as `euc1-az2`.
fn is_zone_id(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once("-az").is_some_and(|(region, zone)| {
        let words = region.trim_end_matches(|digit: char| digit.is_ascii_digit());
        let is_region = (2..=5).contains(&words.len()) && words.bytes().all(|byte| byte.is_ascii_lowercase());
        is_region && region.len() == words.len() + 1 && is_number(zone)
    })
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

/// True if a region begins as those of AWS do and is not written as they are, such as `eu-central`, `us-east1` or `eu-central-1a`: probably
/// somebody meant one of AWS, or it is of another store that begins its regions alike. False for those that end with `-fips`, which older SDKs know.
pub fn is_misspelt_region(region: &str) -> bool {
    const AREAS: [&str; 13] = [
        "af", "ap", "ca", "cn", "eu", "eusc", "il", "me", "mx", "sa", "us", "europe", "asia",
    ];
    let area = region.split_once('-').map(|(area, _)| area);
    let begins = area.is_some_and(|area| AREAS.contains(&area));
    begins && !has_shape_of_aws(region.strip_suffix("-fips").unwrap_or(region))
}

/// The reason why a text is no region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegion {
    /// It has no region's characters or length.
    #[error(
        "{text:?} is no region: it should have 1 to 32 lower case letters, digits and hyphens, begin and end with a letter or digit, and be no number, such as eu-central-1"
    )]
    Text {
        /// The text, shortened.
        text: Box<str>,
    },
    /// It is a zone.
    #[error("{text:?} is a zone, which no SDK takes for a region: write its region, {region}")]
    Zone {
        /// The zone.
        text: Box<str>,
        /// Its region.
        region: Box<str>,
    },
    /// It is the ID of a zone.
    #[error("{text:?} is the ID of a zone, which no SDK takes for a region: write its region, such as eu-central-1")]
    ZoneId {
        /// The ID.
        text: Box<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_availability_zone_is_no_region() {
        for (zone, region) in [
            ("eu-central-1a", "eu-central-1"),
            ("us-gov-west-1b", "us-gov-west-1"),
            ("ap-southeast-10c", "ap-southeast-10"),
            ("us-east-1-bos-1a", "us-east-1"),
            ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
            ("cn-north-1-pkx-1a", "cn-north-1"),
        ] {
            let why = zone.parse::<Region>().unwrap_err().to_string();
            assert!(why.ends_with(&format!("write its region, {region}")), "{why}");
        }
        for id in ["euc1-az2", "use1-az10", "apse2-az1"] {
            let why = id.parse::<Region>().unwrap_err().to_string();
            assert!(why.contains("ID of a zone"), "{why}");
        }
        // Other stores that take AWS's requests name their regions as they like.
        for region in [
            "eu-central-1",
            "us-gov-west-1",
            "default",
            "garage",
            "eu-isoe-west-1",
            "us-east-1-fips",
            "store-1",
            "my-store-1-2",
            "rack-az1",
        ] {
            assert!(region.parse::<Region>().is_ok(), "{region}");
        }
    }

    #[test]
    fn a04_a_text_that_no_sdk_takes_for_a_region_is_refused_with_the_bound() {
        let long = "r".repeat(33);
        for text in [
            "",
            "-",
            "-eu-central-1",
            "eu-central-1-",
            "1",
            "2026",
            "EU-central-1",
            "eu_central_1",
            "eu central 1",
            " eu-central-1",
            "eu-central-1\n",
            "eu-central-1\nsource_profile = x",
            "eu.central.1",
            "eu-central-1/",
            "eu-central-1@evil.example",
            "eu-central-1#",
            "${region}",
            "eu-zürich-1",
            &long,
        ] {
            let why = text.parse::<Region>().unwrap_err().to_string();
            assert!(
                why.contains("1 to 32 lower case letters, digits and hyphens"),
                "{text:?}: {why}"
            );
            assert!(!why.contains('\n') && why.len() < 300, "{why}");
        }
        for text in [&long[..32], "r", "1-2", "r1"] {
            assert!(text.parse::<Region>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a04_a_region_that_is_nearly_one_of_aws_is_told_from_those_of_other_stores() {
        for region in [
            "eu-central",
            "us-east1",
            "us-east-one",
            "europe-west1",
            "eu-central-1a",
            "us-1",
            "cn-north",
            "eu-central-1-",
            "ap-southeast-1-2",
        ] {
            assert!(is_misspelt_region(region), "{region}");
        }
        for region in [
            "eu-central-1",
            "ap-southeast-10",
            "us-gov-west-1",
            "us-east-1-fips",
            "eusc-de-east-1",
            "garage",
            "default",
            "store-1",
            "us",
            "",
            "useast-1",
            "auto",
        ] {
            assert!(!is_misspelt_region(region), "{region}");
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
