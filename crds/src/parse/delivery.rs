//! The way in which credentials reach the SDK.

use std::collections::BTreeSet;

use tokenscope_core::delivery::{
    Delivery, EndpointDelivery, MOST_HOPS, MOST_POLICY_ARNS, MOST_PROFILES, MOST_STS_REGIONS, NamedProfile, RoleHop,
    SessionDuration, SessionPolicy, is_plain,
};
use tokenscope_core::{InvalidPolicy, RoleArn};

use super::session_name::session_name;
use super::{invalid, parse, parse_all, parse_optional};
use crate::messages;
use crate::v1alpha1::{
    AwsSpec, DeliveryTypeSpec, EndpointDeliverySpec, NamedProfileSpec, PolicySpec, ProfileDeliverySpec, RoleHopSpec,
    SessionPolicySpec, SourceSpec,
};

/// The delivery of a policy, with the settings of the SDK that only one type knows.
pub(super) fn delivery(policy: &PolicySpec) -> Result<Delivery, InvalidPolicy> {
    let delivery = &policy.delivery;
    if delivery.type_ != DeliveryTypeSpec::Profile && delivery.profile != ProfileDeliverySpec::default() {
        return Err(invalid("spec.delivery.profile", messages::PROFILE_WITHOUT_TYPE));
    }
    if delivery.type_ != DeliveryTypeSpec::Endpoint {
        if delivery.endpoint != EndpointDeliverySpec::default() {
            return Err(invalid("spec.delivery.endpoint", messages::ENDPOINT_WITHOUT_TYPE));
        }
        without_endpoint(&policy.aws)?;
    }
    match delivery.type_ {
        DeliveryTypeSpec::File => Ok(Delivery::File),
        DeliveryTypeSpec::Profile => Ok(Delivery::Profile(profiles(&delivery.profile.profiles)?)),
        DeliveryTypeSpec::Endpoint => {
            let spiffe = &policy.token.spiffe;
            if spiffe.x509_svid || spiffe.jwt_bundle {
                return Err(invalid("spec.token.spiffe", messages::FILES_WITH_ENDPOINT));
            }
            let gives_tokens = delivery.endpoint.aporeto_tokens;
            if gives_tokens && policy.token.source != SourceSpec::Issuer {
                let field = "spec.delivery.endpoint.aporetoTokens";
                return Err(invalid(field, messages::APORETO_WITHOUT_ISSUER));
            }
            endpoint(&policy.aws, gives_tokens).map(Delivery::Endpoint)
        }
    }
}

/// Refuses what only an endpoint knows.
fn without_endpoint(aws: &AwsSpec) -> Result<(), InvalidPolicy> {
    if aws.session_policy != SessionPolicySpec::default() {
        return Err(invalid(SESSION_POLICY, messages::SESSION_POLICY_WITHOUT_ENDPOINT));
    }
    if aws.session_duration_seconds.is_some() {
        return Err(invalid(SESSION_DURATION, messages::DURATION_WITHOUT_ENDPOINT));
    }
    if !aws.sts.regions.is_empty() {
        return Err(invalid(STS_REGIONS, messages::REGIONS_WITHOUT_ENDPOINT));
    }
    Ok(())
}

const SESSION_POLICY: &str = "spec.aws.sessionPolicy";
const SESSION_DURATION: &str = "spec.aws.sessionDurationSeconds";
const STS_REGIONS: &str = "spec.aws.sts.regions";

fn endpoint(aws: &AwsSpec, gives_tokens: bool) -> Result<EndpointDelivery, InvalidPolicy> {
    if aws.sts.regions.len() > MOST_STS_REGIONS {
        let reason = format!("should have at most {MOST_STS_REGIONS} regions");
        return Err(invalid(STS_REGIONS, reason));
    }
    let duration = |seconds: i64| {
        let duration = SessionDuration::from_seconds(seconds).map_err(|error| invalid(SESSION_DURATION, error))?;
        if !aws.role_chain.is_empty() && duration > SessionDuration::HOUR {
            return Err(invalid(SESSION_DURATION, messages::DURATION_WITH_CHAIN));
        }
        Ok(duration)
    };
    Ok(EndpointDelivery {
        regions: parse_all(&aws.sts.regions, STS_REGIONS)?,
        duration: aws.session_duration_seconds.map(duration).transpose()?,
        policy: session_policy(&aws.session_policy, SESSION_POLICY)?,
        gives_tokens,
    })
}

/// The policies of a session, which stand in this field.
pub(super) fn session_policy(policy: &SessionPolicySpec, place: &str) -> Result<SessionPolicy, InvalidPolicy> {
    let field = |member: &str| format!("{place}.{member}");
    if policy.arns.len() > MOST_POLICY_ARNS {
        let reason = format!("should have at most {MOST_POLICY_ARNS} ARNs, as AWS STS demands");
        return Err(invalid(field("arns"), reason));
    }
    let parsed = SessionPolicy {
        inline: parse_optional(policy.inline.as_deref(), &field("inline"))?,
        arns: parse_all(&policy.arns, &field("arns"))?,
    };
    // The schema allows 1536. Of an object that is stored all the same, what STS would refuse with every call is refused here.
    if !parsed.fits_sts() {
        return Err(invalid(place, messages::SESSION_POLICY_OF_STS));
    }
    Ok(parsed)
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
