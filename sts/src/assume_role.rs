//! `AssumeRole`: by a user, or by a session, which makes a chain.

use std::collections::BTreeMap;

use crate::aws_error::AwsError;
use crate::caller::Caller;
use crate::condition::{Fact, Facts};
use crate::lock::lock;
use crate::names::AssumableRole;
use crate::packed_size::packed_policy_size;
use crate::permissions::PolicyDecision;
use crate::principal::{Principal, with_role_tags};
use crate::request::AssumeRoleRequest;
use crate::session::{Session, SessionGrant};
use crate::state::AwsAccount;
use crate::tags::{MAX_TAGS, has_key};
use crate::trust::{IamTrustPolicy, Naming, Presenter};
use crate::xml::{credentials, elements};

/// The longest session of a chain, in seconds (STS API reference, AssumeRole, DurationSeconds: "Role chaining limits your […]
/// role session to a maximum of one hour").
const LONGEST_IN_CHAIN: u32 = 3600;

/// Tags and source identity of the session that is asked for.
struct Attributes {
    /// Those of the request and those that were inherited.
    tags: BTreeMap<String, String>,
    /// Those that were inherited alone.
    inherited: BTreeMap<String, String>,
    transitive_tag_keys: Vec<String>,
    source_identity: Option<String>,
}

impl AwsAccount {
    /// The result's members as XML.
    pub(crate) fn assume_role(&self, caller: &Caller, request: &AssumeRoleRequest) -> Result<String, AwsError> {
        let denied = || caller.not_authorized("sts:AssumeRole", &request.role_arn);
        let role = self.role(&request.role_arn).ok_or_else(denied)?;
        let role_tags = lock(&self.directory).permissions(&request.role_arn).tags;
        let attributes = Attributes::of(caller, request)?;
        let facts = facts(caller, request, &attributes, &role_tags);
        authorize(caller, request, &role.trust, &attributes, &facts)?;
        let duration = duration(caller, request, role.max_session_duration)?;

        let packed = packed_policy_size(request.session_policies.packed(), &attributes.tags)?;
        let policies = lock(&self.directory).resolve(request.session_policies.clone());
        let grant = SessionGrant {
            role_arn: &request.role_arn,
            role: &request.role,
            session_name: &request.session_name,
            duration,
            packed_percent: packed.unwrap_or(0),
            minimum_token_size: request.minimum_token_size,
        };
        let principal = Principal::session(
            &attributes.tags,
            &attributes.transitive_tag_keys,
            attributes.source_identity.as_deref(),
            &role_tags,
            policies,
        );
        let session = Session::issue(&grant, (self.clock)(), principal).map_err(|_| AwsError::internal())?;
        tracing::info!(
            arn = session.arn, by = caller.arn, expires = %session.expires, tags = ?attributes.tags,
            session_policies = %request.session_policies.described(), "role assumed"
        );
        let source = attributes.source_identity.as_deref();
        let source = source.map_or_else(String::new, |source| elements(&[("SourceIdentity", source)]));
        let result = format!("{}{source}", credentials(&session, packed));
        self.remember(session);
        Ok(result)
    }
}

impl Attributes {
    /// Adds what the caller's session passes on: its transitive tags, which stay transitive, and its source identity.
    ///
    /// STS API reference, AssumeRole, Tags: "the new session inherits any transitive session tags from the calling session. If
    /// you pass a session tag with the same key as an inherited tag, the operation fails". The code of that failure, and that the
    /// sum of both is at most 50, are not yet seen by AWS.
    fn of(caller: &Caller, request: &AssumeRoleRequest) -> Result<Self, AwsError> {
        let mut transitive_tag_keys = request.transitive_tag_keys.clone();
        let mut inherited = BTreeMap::new();
        for key in &caller.principal.transitive_tag_keys {
            if has_key(&request.tags, key) {
                let message = format!("The session tag {key} conflicts with a transitive tag of the calling session.");
                return Err(AwsError::new(400, "InvalidParameterValue", message));
            }
            let folded = key.to_lowercase();
            let of_key = |(tag, _): &(&String, &String)| tag.to_lowercase() == folded;
            let own = caller.principal.tags.iter().filter(of_key);
            inherited.extend(own.map(|(tag, value)| (tag.clone(), value.clone())));
            transitive_tag_keys.push(key.clone());
        }
        let mut tags = request.tags.clone();
        tags.extend(inherited.clone());
        if tags.len() > MAX_TAGS {
            return Err(AwsError::validation(
                "more than 50 session tags, with those that are inherited",
            ));
        }
        Ok(Self {
            tags,
            inherited,
            transitive_tag_keys,
            source_identity: source_identity(caller, request)?,
        })
    }
}

/// IAM User Guide, "Monitor and control actions taken with assumed roles": the value "persists when a role is used to assume
/// another role" and "cannot be changed". The code of the refusal is not yet seen by AWS.
fn source_identity(caller: &Caller, request: &AssumeRoleRequest) -> Result<Option<String>, AwsError> {
    match (
        caller.principal.source_identity.as_ref(),
        request.source_identity.as_ref(),
    ) {
        (Some(set), Some(asked)) if set != asked => {
            let message = "The source identity of the calling session can't be changed.";
            Err(AwsError::new(403, "AccessDenied", message))
        }
        (set, asked) => Ok(asked.or(set).cloned()),
    }
}

/// The request context: the caller's, and the keys of the request (IAM User Guide, "IAM and AWS STS condition context keys").
///
/// Not yet seen by AWS: that inherited tags are among `aws:RequestTag`, `aws:TagKeys` and `sts:TransitiveTagKeys`, and an
/// inherited source identity is `sts:SourceIdentity`.
fn facts(
    caller: &Caller,
    request: &AssumeRoleRequest,
    attributes: &Attributes,
    role_tags: &BTreeMap<String, String>,
) -> Facts {
    let mut facts = caller.facts.clone();
    facts.set("sts:ExternalId", Fact::optional(request.external_id.as_deref()));
    facts.set("sts:RoleSessionName", Fact::One(request.session_name.clone()));
    facts.set(
        "sts:SourceIdentity",
        Fact::optional(attributes.source_identity.as_deref()),
    );
    facts.set("sts:TransitiveTagKeys", Fact::many(&attributes.transitive_tag_keys));
    facts.set("aws:RequestedRegion", Fact::One(caller.region.clone()));
    facts.set_request_tags(&attributes.tags);
    // "In role chaining, the value of a transitive tag overrides the role matching the ResourceTag value before the evaluation of
    // the role trust policy" ("Pass session tags in AWS STS").
    for (key, value) in with_role_tags(&attributes.inherited, role_tags) {
        for prefix in ["aws:ResourceTag/", "iam:ResourceTag/"] {
            facts.set(&format!("{prefix}{key}"), Fact::One(value.clone()));
        }
    }
    facts
}

/// Fails unless both sides allow the role, its tags and its source identity.
///
/// `sts:TagSession` is needed for inherited tags as for passed ones (public reports of EKS Pod Identity's transitive tags).
fn authorize(
    caller: &Caller,
    request: &AssumeRoleRequest,
    trust: &IamTrustPolicy,
    attributes: &Attributes,
    facts: &Facts,
) -> Result<(), AwsError> {
    let tags = (!attributes.tags.is_empty()).then_some("sts:TagSession");
    let source = attributes.source_identity.is_some().then_some("sts:SetSourceIdentity");
    for action in [Some("sts:AssumeRole"), tags, source].into_iter().flatten() {
        // "Permissions for sts:SetSourceIdentity are required in both the permissions policy of the principal who is assuming the
        // role and in the role trust policy of the target role" ("Monitor and control actions taken with assumed roles").
        let both = action == "sts:SetSourceIdentity" || !same_account(caller, &request.role);
        if !may(caller, request, trust, action, both, facts) {
            return Err(caller.not_authorized(action, &request.role_arn));
        }
    }
    Ok(())
}

/// IAM User Guide, "Policy evaluation logic" and "Cross-account policy evaluation logic": across accounts both policies must
/// allow it. In one account the trust policy is enough where it names the role, the user or the session, though session
/// policies narrow what it grants to a role; where it names the account, the principal's own policies must allow it.
fn may(
    caller: &Caller,
    request: &AssumeRoleRequest,
    trust: &IamTrustPolicy,
    action: &str,
    both: bool,
    facts: &Facts,
) -> bool {
    if caller.partition != request.role.partition {
        return false;
    }
    let decisions = caller.decide(action, &request.role_arn, facts);
    let presenter = Presenter::Aws {
        partition: &caller.partition,
        account: &caller.account,
        identity: &caller.identity,
        caller: &caller.arn,
    };
    match trust.grants(action, presenter, facts) {
        None => false,
        Some(_) if decisions.combined() == PolicyDecision::ExplicitDeny => false,
        Some(Naming::Session) if !both => true,
        Some(Naming::Identity) if !both => matches!(decisions.session, None | Some(PolicyDecision::Allowed)),
        Some(_) => decisions.combined() == PolicyDecision::Allowed,
    }
}

fn same_account(caller: &Caller, role: &AssumableRole) -> bool {
    caller.account == role.account
}

/// The seconds of the session: an hour unless the request says otherwise.
fn duration(caller: &Caller, request: &AssumeRoleRequest, longest: u32) -> Result<u32, AwsError> {
    let duration = request.duration.unwrap_or(3600);
    if caller.session.is_some() && duration > LONGEST_IN_CHAIN {
        let message =
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.";
        return Err(AwsError::validation(message));
    }
    if duration > longest {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(AwsError::validation(message));
    }
    Ok(duration)
}
