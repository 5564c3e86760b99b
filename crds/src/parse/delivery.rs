//! The way in which credentials reach the SDK.

use super::session_name::session_name;
use super::{invalid, parse, parse_optional};
use crate::messages;
use crate::v1alpha1::{DeliverySpec, DeliveryTypeSpec, NamedProfileSpec, ProfileDeliverySpec, RoleHopSpec};
use std::collections::BTreeSet;
use tokenscope_core::delivery::{Delivery, MOST_HOPS, MOST_PROFILES, NamedProfile, RoleHop, is_plain};
use tokenscope_core::{InvalidPolicy, RoleArn};

pub(super) fn delivery(delivery: &DeliverySpec) -> Result<Delivery, InvalidPolicy> {
    match delivery.type_ {
        DeliveryTypeSpec::Endpoint => Err(invalid("spec.delivery.type", messages::ENDPOINT)),
        DeliveryTypeSpec::File if delivery.profile != ProfileDeliverySpec::default() => {
            Err(invalid("spec.delivery.profile", messages::PROFILE_WITHOUT_TYPE))
        }
        DeliveryTypeSpec::File => Ok(Delivery::File),
        DeliveryTypeSpec::Profile => Ok(Delivery::Profile(profiles(&delivery.profile.profiles)?)),
    }
}

fn profiles(profiles: &[NamedProfileSpec]) -> Result<Vec<NamedProfile>, InvalidPolicy> {
    const FIELD: &str = "spec.delivery.profile.profiles";
    if profiles.len() > MOST_PROFILES {
        return Err(invalid(FIELD, format!("should have at most {MOST_PROFILES} profiles")));
    }
    let mut names = BTreeSet::new();
    let mut parsed = Vec::with_capacity(profiles.len());
    for (index, profile) in profiles.iter().enumerate() {
        let field = |member: &str| format!("{FIELD}[{index}].{member}");
        if !names.insert(&profile.name) {
            return Err(invalid(field("name"), messages::PROFILE_TWICE));
        }
        parsed.push(NamedProfile {
            name: parse(&profile.name, &field("name"))?,
            region: parse(&profile.region, &field("region"))?,
            role: match &profile.role_arn {
                None => None,
                Some(role) => Some(plain_role(role, &field("roleArn"))?),
            },
            chain: role_chain(&profile.role_chain, &field("roleChain"))?,
        });
    }
    Ok(parsed)
}

/// The roles that are taken one after the other.
pub(super) fn role_chain(hops: &[RoleHopSpec], field: &str) -> Result<Vec<RoleHop>, InvalidPolicy> {
    if hops.len() > MOST_HOPS {
        return Err(invalid(field, format!("should have at most {MOST_HOPS} roles")));
    }
    let hop = |(index, hop): (usize, &RoleHopSpec)| {
        let field = |member: &str| format!("{field}[{index}].{member}");
        Ok(RoleHop {
            role: plain_role(&hop.role_arn, &field("roleArn"))?,
            external_id: parse_optional(hop.external_id.as_deref(), &field("externalId"))?,
            session_name: match &hop.role_session_name {
                None => None,
                Some(text) => Some(session_name(text, &field("roleSessionName"))?),
            },
        })
    };
    hops.iter().enumerate().map(hop).collect()
}

fn plain_role(text: &str, field: &str) -> Result<RoleArn, InvalidPolicy> {
    let role: RoleArn = parse(text, field)?;
    if !is_plain(text) {
        return Err(invalid(field, messages::PLAIN_ROLE));
    }
    Ok(role)
}
