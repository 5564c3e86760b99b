//! The vectors, and what tells grants apart.

use super::*;
use crate::config_file::FileHop;
use crate::delivery::{SessionDuration, SessionPolicy};
use crate::{Audience, PolicyName, TokenExpiration};

fn grant() -> Grant {
    Grant {
        role: "arn:aws:iam::111122223333:role/orders".parse().unwrap(),
        audience: Audience::sts(),
        source: TokenSource::ServiceAccount,
        expiration: TokenExpiration::HOUR,
        claims: None,
        spiffe: Spiffe::default(),
        region: Some("eu-central-1".parse().unwrap()),
        sts_regional_endpoints: true,
        disables_instance_metadata: true,
        session_name: Some(SessionName::PodName),
        config_file: None,
        endpoint: None,
        outbound: [].into(),
        policy: Some(PolicyName::namespaced("shop", "orders")),
    }
}

fn endpoint() -> GrantedEndpoint {
    GrantedEndpoint {
        regions: vec!["eu-central-1".parse().unwrap()],
        chain: vec![FileHop {
            role: "arn:aws:iam::444455556666:role/target".parse().unwrap(),
            external_id: Some("e2".parse().unwrap()),
            session_name: Some(SessionName::Text("orders".into())),
        }],
        duration: Some(SessionDuration::HOUR),
        policy: SessionPolicy {
            inline: Some("{}".parse().unwrap()),
            arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".parse().unwrap()],
        },
        gives_tokens: false,
    }
}

fn text(grant: &Grant) -> String {
    Fingerprint::of("orders", [("app", grant)]).to_string()
}

/// Another text for the same grant needs another version: otherwise every running pod counts as outdated after an upgrade.
#[test]
fn the_fingerprint_of_a_grant_is_the_same_in_every_build_of_this_version() {
    let spiffe = Grant {
        source: TokenSource::Spiffe,
        spiffe: Spiffe {
            id: Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap()),
            hint: Some("aws".parse().unwrap()),
            trust_domain: Some("example.org".parse().unwrap()),
            x509_svid: true,
            jwt_bundle: true,
        },
        region: None,
        sts_regional_endpoints: false,
        disables_instance_metadata: false,
        session_name: Some(SessionName::Text("orders".into())),
        ..grant()
    };
    assert_eq!(text(&grant()), "v2-0660ebd24d843ded");
    assert_eq!(text(&spiffe), "v2-9eb198396ba63b3c");
    let served = Grant {
        endpoint: Some(endpoint()),
        ..grant()
    };
    assert_eq!(text(&served), "v2-58c25c5536d2a4bf");
    assert_eq!(
        Fingerprint::of("default", []).to_string(),
        "v2-98d48645e9aec0b3",
        "a pod without any grant"
    );
}

/// Another name for the same audience gives a copy of a running pod a volume more. The first two are the published values of
/// FNV-1a for these texts.
#[test]
fn the_hash_in_a_volumes_name_is_the_same_in_every_version() {
    for (audience, hash) in [
        ("a", "af63dc4c8601ec8c"),
        ("foobar", "85944171f73967e8"),
        ("sts.amazonaws.com", "152c9218263a3d03"),
        ("sts.amazonaws.com.cn", "56e5b6913815f616"),
        ("https://audience.example.org/?x=1", "35443756c080d9b4"),
    ] {
        assert_eq!(audience.parse::<Audience>().unwrap().short_hash(), hash, "{audience}");
    }
}

#[test]
fn whatever_changes_the_pod_changes_the_fingerprint() {
    let other = |change: fn(&mut Grant)| {
        let mut grant = grant();
        change(&mut grant);
        text(&grant)
    };
    let with = |change: fn(&mut GrantedEndpoint)| {
        let mut endpoint = endpoint();
        change(&mut endpoint);
        text(&Grant {
            endpoint: Some(endpoint),
            ..grant()
        })
    };
    let texts = [
        text(&grant()),
        other(|grant| grant.role = "arn:aws:iam::111122223333:role/carts".parse().unwrap()),
        other(|grant| grant.audience = "other".parse().unwrap()),
        other(|grant| grant.source = TokenSource::Spiffe),
        other(|grant| grant.expiration = TokenExpiration::DAY),
        other(|grant| grant.region = None),
        other(|grant| grant.sts_regional_endpoints = false),
        other(|grant| grant.disables_instance_metadata = false),
        other(|grant| grant.session_name = None),
        other(|grant| grant.endpoint = Some(endpoint())),
        with(|endpoint| endpoint.regions.push("eu-west-1".parse().unwrap())),
        with(|endpoint| endpoint.chain.clear()),
        with(|endpoint| endpoint.chain[0].external_id = None),
        with(|endpoint| endpoint.chain[0].session_name = None),
        with(|endpoint| endpoint.duration = None),
        with(|endpoint| endpoint.policy.inline = None),
        with(|endpoint| endpoint.policy.arns.clear()),
        with(|endpoint| endpoint.gives_tokens = true),
        Fingerprint::of("carts", [("app", &grant())]).to_string(),
        Fingerprint::of("orders", [("web", &grant())]).to_string(),
    ];
    for (index, text) in texts.iter().enumerate() {
        assert!(!texts[..index].contains(text), "{index}");
    }
    assert_eq!(other(|grant| grant.policy = None), text(&grant()));
}

#[test]
fn only_a_text_of_this_version_is_a_fingerprint() {
    let fingerprint = Fingerprint::of("orders", [("app", &grant())]);
    assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    for other in [
        "",
        "0",
        "0011223344556677",
        "v1-0011223344556677",
        "v3-0011223344556677",
        "v2-11223344556677",
        "v2-+011223344556677",
        "v2-001122334455667A",
        "v2-00112233445566778",
    ] {
        assert_eq!(other.parse::<Fingerprint>(), Err(OtherVersion), "{other}");
    }
}

#[test]
fn who_gets_which_role_does_not_depend_on_the_order() {
    let both = Fingerprint::of_roles([("app", "a"), ("web", "b")]);
    assert_eq!(both, Fingerprint::of_roles([("web", "b"), ("app", "a")]));
    assert_ne!(both, Fingerprint::of_roles([("app", "b"), ("web", "a")]));
}
