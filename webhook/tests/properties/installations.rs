//! Installations and their policies at random.

use std::sync::Arc;

use proptest::prelude::*;
use tokenscope_core::delivery::{Delivery, RoleHop, SessionPolicy};
use tokenscope_core::outbound::{AwsToken, OutboundSource, OutboundToken, OutboundValue, OutboundVariable};
use tokenscope_core::pod::outbound_volume;
use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};
use tokenscope_core::sidecar::WorkloadApi;
use tokenscope_core::{Audience, Boundary, Enforcement, Policy, Selector, Settings, TokenExpiration, TokenSource};

use super::fixtures::{DOCUMENT, OTHER_ROLE, ROLE, ReviewFixture, delivery, policy, region, run_issuer};

/// Has the policy deliver by a sidecar or a config file, with a chain or without.
fn deliver(policy: &mut Policy, served: bool, chain: bool) {
    region(policy);
    policy.delivery = delivery(served);
    let hop = RoleHop {
        role: OTHER_ROLE.parse().unwrap(),
        external_id: None,
        session_name: None,
    };
    policy.aws.role_chain.extend(chain.then_some(hop));
}

/// Tokens for third parties, as far as a policy can give them: one of each signer, and that of AWS under two names.
fn outbound(policy: &Policy, wanted: [bool; 3]) -> Vec<OutboundToken> {
    let [cluster, issuer, aws] = wanted;
    let is_served = matches!(policy.delivery, Delivery::Endpoint(_));
    let variable = |name: &str, value: OutboundValue| OutboundVariable {
        name: name.parse().unwrap(),
        value,
    };
    let token = |name: &str, source: OutboundSource, variables: Vec<OutboundVariable>| OutboundToken {
        name: name.parse().unwrap(),
        audience: PARTY.parse().unwrap(),
        source,
        expiration: TokenExpiration::from_seconds(900).unwrap(),
        variables,
    };
    let mut tokens = Vec::new();
    if cluster {
        let file = variable("ANTHROPIC_IDENTITY_TOKEN_FILE", OutboundValue::File);
        tokens.push(token("cluster", OutboundSource::ServiceAccount, vec![file]));
    }
    if issuer && policy.token.source == TokenSource::Issuer {
        let text = OutboundValue::Text("fdrl_$(HOME)".into());
        let text = variable("ANTHROPIC_FEDERATION_RULE_ID", text);
        tokens.push(token("issuer", OutboundSource::Issuer, vec![text]));
    }
    if aws && is_served {
        let audience = variable("MY_AUDIENCE", OutboundValue::Audience);
        let of_aws = || OutboundSource::Aws(AwsToken::default());
        tokens.push(token("aws", of_aws(), vec![audience]));
        tokens.push(token("again", of_aws(), Vec::new()));
    }
    tokens
}

/// The volumes of all these tokens of container `app-1`.
pub(crate) fn outbound_volumes() -> Vec<String> {
    let policy = Choices {
        served: true,
        source: SOURCES - 1,
        ..Choices::default()
    };
    let tokens = outbound(&policy.policy(), [true; 3]);
    tokens.iter().map(|token| outbound_volume(token, "app-1")).collect()
}

/// The policies of a session: none, a document, a managed policy, both.
fn session_policy(number: u8) -> SessionPolicy {
    let arn = "arn:aws:iam::aws:policy/ReadOnlyAccess".parse().unwrap();
    SessionPolicy {
        inline: (number % 2 == 1).then(|| DOCUMENT.parse().unwrap()),
        arns: (number > 1).then_some(arn).into_iter().collect(),
    }
}

/// A boundary around the policy's namespace whose sessions have this policy at the most. It allows all else.
fn boundary(session_policy: SessionPolicy, outbound_audiences: Option<Vec<Audience>>) -> Boundary {
    Boundary {
        name: "teams".into(),
        namespace_selector: Selector::default(),
        roles: vec!["arn:aws:iam::111122223333:role/*".parse().unwrap()],
        audiences: Vec::new(),
        max_expiration: None,
        sources: Vec::new(),
        claims: None,
        outbound_audiences,
        session_policy: Some(session_policy),
    }
}

/// What an installation has for a policy's source.
fn install_source(fixture: &mut ReviewFixture, source: u8) {
    if source > 2 {
        run_issuer(fixture);
    }
    if source == 5 {
        fixture.settings.sidecar.issuer_authorities = Some("others".into());
    }
    if source == 2 {
        fixture.settings.sidecar.workload_api = WorkloadApi::HostPath {
            path: "/run/spire/agent-sockets".into(),
        };
        fixture.settings.sidecar.image = "another".into();
    }
}

/// How far an installation stands in for the EKS webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Eks {
    /// Not at all.
    #[default]
    No,
    /// Its annotations count, and its names are used.
    Compatible,
    /// The same, and the annotation of the service account names a role.
    Asked,
    /// The same, and the service account is listed for EKS Pod Identity.
    Associated,
}

impl Eks {
    const ALL: [Self; 4] = [Self::No, Self::Compatible, Self::Asked, Self::Associated];

    /// Sets up the installation, which keeps its other settings.
    fn set_up(self, fixture: &mut ReviewFixture) {
        if self == Self::No {
            return;
        }
        let settings = Settings::eks_compatible();
        fixture.settings.eks_compatible = settings.eks_compatible;
        fixture.settings.default_token_expiration = settings.default_token_expiration;
        if self != Self::Compatible {
            let annotations = [
                ("eks.amazonaws.com/role-arn", ROLE),
                ("eks.amazonaws.com/token-expiration", "3600"),
                ("eks.amazonaws.com/sts-regional-endpoints", "true"),
            ];
            fixture
                .service_account
                .extend(annotations.map(|(key, value)| (key, value.to_owned())));
        }
        if self == Self::Associated {
            let file = r#"{"identities": [{"namespace": "shop", "serviceAccount": "orders"}]}"#;
            let configured = PodIdentity::parse(file, PodIdentityAgent::default()).unwrap();
            fixture.settings.pod_identity = Some(configured.into());
        }
    }
}

/// The configuration of EKS Pod Identity with no service account.
pub(crate) fn nobody_is_listed() -> Arc<PodIdentity> {
    Arc::new(PodIdentity::parse(r#"{"identities": []}"#, PodIdentityAgent::default()).unwrap())
}

/// What an installation and its policy are like.
#[derive(Clone, Copy, Debug, Default)]
struct Choices {
    with_region: bool,
    account: bool,
    regional: bool,
    by_default: bool,
    session: bool,
    by_file: bool,
    served: bool,
    chain: bool,
    gives_tokens: bool,
    /// Tokens of the cluster, the issuer and AWS.
    outbound: [bool; 3],
    session_policy: u8,
    bounded: Bounded,
    enforcement: u8,
    source: u8,
    eks: Eks,
}

/// What bounds an installation's policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Bounded {
    /// Nothing.
    #[default]
    No,
    /// A boundary of its own session policy and audience, which it is inside of where its sessions are narrowed.
    Inside,
    /// A boundary of another session policy.
    Outside,
}

impl Bounded {
    /// The boundary, for policies with this session policy.
    fn boundary(self, session_policy: SessionPolicy) -> Option<Boundary> {
        match self {
            Self::No => None,
            Self::Inside if session_policy.is_empty() => None,
            Self::Inside => Some(boundary(session_policy, Some(vec![PARTY.parse().unwrap()]))),
            Self::Outside => {
                let arn = "arn:aws:iam::aws:policy/job-function/Billing".parse().unwrap();
                let other = SessionPolicy {
                    inline: None,
                    arns: vec![arn],
                };
                Some(boundary(other, None))
            }
        }
    }
}

/// The number of different [`Choices::source`].
const SOURCES: u8 = 6;

/// The number of different [`Choices::session_policy`].
const SESSION_POLICIES: u8 = 4;

/// The audience of tokens for third parties.
pub(crate) const PARTY: &str = "https://api.anthropic.com/$(HOME)";

impl Choices {
    fn policy(self) -> Policy {
        let mut made = policy("orders");
        self.change(&mut made);
        made
    }

    fn change(self, policy: &mut Policy) {
        if self.with_region {
            region(policy);
        }
        if self.by_default {
            policy.roles.default = Some(OTHER_ROLE.parse().unwrap());
        }
        if self.session {
            policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
        }
        if self.by_file || self.served {
            deliver(policy, self.served, self.chain);
        }
        if let Delivery::Endpoint(endpoint) = &mut policy.delivery {
            endpoint.policy = session_policy(self.session_policy);
            endpoint.gives_tokens = self.gives_tokens;
        }
        policy.token.source = match self.source {
            0 => TokenSource::ServiceAccount,
            1..4 => TokenSource::Spiffe,
            _ => TokenSource::Issuer,
        };
        policy.outbound = outbound(policy, self.outbound).into();
    }

    fn fixture(self) -> ReviewFixture {
        let mut fixture = ReviewFixture::with_policy(|policy| self.change(policy));
        if let Some(boundary) = self.bounded.boundary(session_policy(self.session_policy)) {
            fixture.policies.insert_boundary(boundary.into());
        }
        install_source(&mut fixture, self.source);
        fixture.settings.sts_regional_endpoints = self.regional;
        fixture.settings.enforcement = match self.enforcement {
            0 => Enforcement::Enforce,
            1 => Enforcement::Warn,
            _ => Enforcement::Audit,
        };
        if self.account {
            fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
        }
        self.eks.set_up(&mut fixture);
        fixture
    }
}

pub(crate) fn any_fixture() -> impl Strategy<Value = ReviewFixture> {
    let eks = prop::sample::select(&Eks::ALL[..]);
    // Most installations have no boundary: where a policy is beyond one, nothing is granted.
    let bounded = prop_oneof![8 => Just(Bounded::No), 2 => Just(Bounded::Inside), 1 => Just(Bounded::Outside)];
    let narrowed = (0..SESSION_POLICIES, bounded);
    let numbers = (0..3u8, 0..SOURCES, eks);
    (any::<[bool; 9]>(), any::<[bool; 3]>(), narrowed, numbers).prop_map(|(flags, outbound, narrowed, numbers)| {
        let ((session_policy, bounded), (enforcement, source, eks)) = (narrowed, numbers);
        let [
            with_region,
            account,
            regional,
            by_default,
            session,
            by_file,
            served,
            chain,
            gives_tokens,
        ] = flags;
        let choices = Choices {
            with_region,
            account,
            regional,
            by_default,
            session,
            by_file,
            served,
            chain,
            gives_tokens,
            outbound,
            session_policy,
            bounded,
            enforcement,
            source,
            eks,
        };
        choices.fixture()
    })
}

/// One for each source, delivery, and role that is asked for or given by default; the same with tokens for third parties, narrowed sessions
/// and a boundary of these; and one for each way to stand in for the EKS webhook.
pub(crate) fn fixtures() -> Vec<ReviewFixture> {
    let deliveries = [(false, false), (true, false), (false, true)];
    let of_source = |source| {
        let of_delivery = move |(by_file, served)| {
            [false, true].map(|by_default| Choices {
                by_default,
                by_file,
                served,
                source,
                ..Choices::default()
            })
        };
        deliveries.into_iter().flat_map(of_delivery)
    };
    let of_eks = Eks::ALL.into_iter().skip(1).flat_map(|eks| {
        [0, 1].map(|source| Choices {
            source,
            eks,
            ..Choices::default()
        })
    });
    let plain: Vec<_> = (0..SOURCES).flat_map(of_source).collect();
    let asking = plain.iter().filter(|choices| !choices.by_default);
    let more = asking.map(|choices| Choices {
        outbound: [true; 3],
        session_policy: SESSION_POLICIES - 1,
        // A policy that the other boundary refuses grants nothing, whatever its tokens are.
        bounded: if choices.served { Bounded::Inside } else { Bounded::No },
        ..*choices
    });
    let choices = plain.iter().copied().chain(of_eks).chain(more);
    choices.map(Choices::fixture).collect()
}
