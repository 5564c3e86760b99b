//! The signer of a request: who it is, and what its own policies say.

use std::sync::Arc;

use jiff::Timestamp;

use crate::account::Permissions;
use crate::aws_error::AwsError;
use crate::condition::Facts;
use crate::lock::lock;
use crate::names::UserName;
use crate::permissions::{Decisions, PolicyDecision, decide_both};
use crate::principal::{Principal, PrincipalNames};
use crate::session::Session;
use crate::sigv4::{Authorization, Signed};
use crate::state::AwsAccount;

/// The pseudo-region of the global endpoint, as Amazon's clients call it.
pub(crate) const GLOBAL: &str = "aws-global";

/// The holder of the credentials that a request was signed with.
pub(crate) struct Caller {
    /// The session's ARN, or the user's.
    pub(crate) arn: String,
    /// The role's or the user's ARN.
    pub(crate) identity: String,
    pub(crate) user_id: String,
    pub(crate) account: String,
    pub(crate) partition: String,
    /// The region that the signature names.
    pub(crate) region: String,
    /// `None` for a user with keys of its own.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) principal: Principal,
    /// The request context, without what the action adds to it.
    pub(crate) facts: Facts,
    permissions: Permissions,
}

impl Caller {
    /// The decisions of its own policies and of its session policies. What can't be decided allows nothing.
    pub(crate) fn decide(&self, action: &str, resource: &str, facts: &Facts) -> Decisions {
        let own = &self.permissions.policies;
        decide_both(own, &self.principal.policies, action, resource, facts).unwrap_or(Decisions {
            own: PolicyDecision::ImplicitDeny,
            session: Some(PolicyDecision::ImplicitDeny),
        })
    }

    /// Fails unless its policies allow the action.
    pub(crate) fn check_may(&self, action: &str, resource: &str, facts: &Facts) -> Result<(), AwsError> {
        match self.decide(action, resource, facts).combined() {
            PolicyDecision::Allowed => Ok(()),
            _ => Err(self.not_authorized(action, resource)),
        }
    }

    /// STS's words for a signed request that policies don't allow.
    pub(crate) fn not_authorized(&self, action: &str, resource: &str) -> AwsError {
        let message = format!(
            "User: {} is not authorized to perform: {action} on resource: {resource}",
            self.arn
        );
        AwsError::new(403, "AccessDenied", message)
    }
}

impl AwsAccount {
    /// Verifies the signature: with the credentials of a session, whose token must come along, or with a user's keys.
    pub(crate) fn caller(&self, request: &Signed<'_>) -> Result<Caller, AwsError> {
        let authorization = Authorization::parse(request.headers)?;
        self.check_region(authorization.region())?;
        let now = (self.clock)();
        let token = request.headers.get("x-amz-security-token");
        let session = lock(&self.sessions).find(&authorization.access_key_id);
        if let Some(session) = session {
            if !token.is_some_and(|token| session.has_token(token.as_bytes())) {
                return Err(invalid_credentials());
            }
            authorization.verify(request, &session.secret_access_key, now)?;
            session.check_expiry(now)?;
            return Ok(self.caller_of_session(session, authorization.region(), now));
        }
        let user = lock(&self.directory).user(&authorization.access_key_id);
        let user = user.filter(|_| token.is_none()).ok_or_else(invalid_credentials)?;
        authorization.verify(request, &user.secret_access_key, now)?;
        self.caller_of_user(user.arn, authorization.region(), now)
            .ok_or_else(AwsError::internal)
    }

    /// The region of the signature must be the endpoint's; that of the global endpoint is us-east-1 (STS endpoint rules in
    /// Amazon's clients).
    fn check_region(&self, region: &str) -> Result<(), AwsError> {
        let expected = match self.region.as_deref() {
            None => return Ok(()),
            Some(GLOBAL) => "us-east-1",
            Some(own) => own,
        };
        if region == expected {
            return Ok(());
        }
        let message = format!("Credential should be scoped to a valid region. Expected {expected}, got {region}");
        Err(AwsError::new(403, "SignatureDoesNotMatch", message))
    }

    fn caller_of_session(&self, session: Arc<Session>, region: &str, now: Timestamp) -> Caller {
        let names = PrincipalNames {
            arn: &session.role_arn,
            account: &session.account,
            user_id: &session.user_id,
            issued: Some(session.issued),
        };
        Caller {
            arn: session.arn.clone(),
            identity: session.role_arn.clone(),
            user_id: session.user_id.clone(),
            account: session.account.clone(),
            partition: session.partition.clone(),
            region: region.to_owned(),
            principal: session.principal.clone(),
            facts: session.principal.facts_of_request(&names, now),
            permissions: lock(&self.directory).permissions(&session.role_arn),
            session: Some(session),
        }
    }

    fn caller_of_user(&self, arn: String, region: &str, now: Timestamp) -> Option<Caller> {
        let name = UserName::parse(&arn)?;
        let permissions = lock(&self.directory).permissions(&arn);
        let principal = Principal::user(&name.name, &permissions.tags);
        let user_id = format!("AIDA{}", &crate::session::stable_id(&arn));
        let names = PrincipalNames {
            arn: &arn,
            account: &name.account,
            user_id: &user_id,
            issued: None,
        };
        Some(Caller {
            facts: principal.facts_of_request(&names, now),
            identity: arn.clone(),
            user_id,
            account: name.account,
            partition: name.partition,
            region: region.to_owned(),
            session: None,
            principal,
            permissions,
            arn,
        })
    }
}

fn invalid_credentials() -> AwsError {
    AwsError::new(
        403,
        "InvalidClientTokenId",
        "The security token included in the request is invalid.",
    )
}
