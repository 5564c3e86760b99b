//! Boundaries of tokens for third parties.

use tokenscope_core::Signer;
use tokenscope_core::outbound::{AwsToken, OutboundSource, OutboundToken};

use super::*;

const CLAUDE: &str = "https://api.anthropic.com";

fn giving() -> Policy {
    let token = OutboundToken {
        name: "claude".parse().unwrap(),
        audience: CLAUDE.parse().unwrap(),
        source: OutboundSource::ServiceAccount,
        expiration: TokenExpiration::HOUR,
        variables: Vec::new(),
    };
    let mut policy = inside("orders");
    policy.audiences.default = Some(Audience::sts());
    policy.audiences.allowed = vec![Audience::sts()];
    policy.outbound = [token].into();
    policy
}

#[test]
fn an_audience_that_the_boundary_does_not_name_is_outside() {
    let bounded = |outbound: Option<&[&str]>, audiences: &[&str]| {
        let parse = |names: &[&str]| -> Vec<Audience> { names.iter().map(|name| name.parse().unwrap()).collect() };
        set(
            [giving()],
            [Boundary {
                audiences: parse(audiences),
                outbound_audiences: outbound.map(parse),
                ..boundary("core")
            }],
        )
    };
    assert!(is_granted(&bounded(None, &[])), "nothing is bounded");
    assert!(is_granted(&bounded(Some(&[CLAUDE]), &["sts.amazonaws.com"])));
    for (outbound, allowed) in [
        (
            Some(&["https://api.openai.com/v1"][..]),
            "it allows https://api.openai.com/v1",
        ),
        (Some(&[][..]), "no tokens for third parties"),
    ] {
        let refusal = refused(&bounded(outbound, &[]));
        assert!(
            refusal.contains("spec.outboundTokens[0].audience to be https://api.anthropic.com")
                && refusal.contains(allowed),
            "{refusal}"
        );
    }
    // A boundary from before there were such tokens means the audiences of all tokens.
    assert!(refused(&bounded(None, &["sts.amazonaws.com"])).contains("no tokens for third parties"));
}

#[test]
fn where_third_parties_are_listed_a_policy_of_the_issuer_lists_the_audiences_that_pods_may_name() {
    let set_of = |outbound: Option<&[&str]>, source, allowed: &[&str]| {
        let parse = |names: &[&str]| -> Vec<Audience> { names.iter().map(|name| name.parse().unwrap()).collect() };
        let mut policy = inside("orders");
        policy.token.source = source;
        policy.audiences.allowed = parse(allowed);
        let bounded = Boundary {
            outbound_audiences: outbound.map(parse),
            ..boundary("core")
        };
        set([policy], [bounded])
    };
    let settings = Settings {
        issuer: Some("https://tokens.example.com".into()),
        ..Settings::default()
    };
    let granted = |set: &PolicySet| matches!(decided(set, "shop/orders", &settings), Decision::Granted(_));
    for outbound in [&[][..], &[CLAUDE][..]] {
        let open = set_of(Some(outbound), TokenSource::Issuer, &[]);
        let Decision::Denied(denied) = decided(&open, "shop/orders", &settings) else {
            panic!("{open:?}")
        };
        let text = denied.to_string();
        assert!(
            text.contains("spec.audiences.allowed to be left out, which means any")
                && text.contains("list them in the policy's spec.audiences.allowed"),
            "{text}"
        );
        assert!(granted(&set_of(
            Some(outbound),
            TokenSource::Issuer,
            &["sts.amazonaws.com"]
        )));
        assert!(granted(&set_of(Some(outbound), TokenSource::ServiceAccount, &[])));
    }
    assert!(granted(&set_of(None, TokenSource::Issuer, &[])), "nothing is bounded");
}

#[test]
fn lifetime_and_signer_count_for_tokens_for_third_parties_too() {
    let short = Boundary {
        max_expiration: TokenExpiration::from_seconds(900).ok(),
        ..boundary("core")
    };
    let mut policy = giving();
    policy.token.expiration = TokenExpiration::from_seconds(900).unwrap();
    let refusal = refused(&set([policy], [short]));
    assert!(
        refusal.contains("spec.outboundTokens[0].expirationSeconds to be 3600"),
        "{refusal}"
    );
    let issued_only = Boundary {
        sources: vec![TokenSource::Spiffe.into()],
        ..boundary("core")
    };
    let mut policy = giving();
    policy.token.source = TokenSource::Spiffe;
    let refusal = refused(&set([policy], [issued_only]));
    assert!(
        refusal.contains("spec.outboundTokens[0].source to be ServiceAccount"),
        "{refusal}"
    );
}

#[test]
fn a_token_that_aws_signs_is_bounded_as_all_others_and_needs_aws_among_the_sources() {
    let of_aws = || {
        let mut policy = giving();
        let mut token = policy.outbound[0].clone();
        token.source = OutboundSource::Aws(AwsToken::default());
        policy.outbound = [token].into();
        policy
    };
    let bounded = |sources: &[Signer], audience: &str| {
        set(
            [of_aws()],
            [Boundary {
                sources: sources.to_vec(),
                outbound_audiences: Some(vec![audience.parse().unwrap()]),
                ..boundary("core")
            }],
        )
    };
    let own = Signer::from(TokenSource::ServiceAccount);
    assert!(is_granted(&bounded(&[], CLAUDE)));
    assert!(is_granted(&bounded(&[own, Signer::Aws], CLAUDE)));
    let refusal = refused(&bounded(&[own], CLAUDE));
    assert!(
        refusal.contains("spec.outboundTokens[0].source to be AWS: it allows ServiceAccount"),
        "{refusal}"
    );
    let refusal = refused(&bounded(&[own, Signer::Aws], "https://api.openai.com/v1"));
    assert!(
        refusal.contains("spec.outboundTokens[0].audience to be https://api.anthropic.com"),
        "{refusal}"
    );
}
