//! The credentials that were issued, in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};

use crate::aws_error::AwsError;
use crate::names::AssumableRole;
use crate::principal::Principal;

/// Sessions remembered; the oldest goes first. Expired ones stay until then, so that their use is answered with
/// `ExpiredToken` instead of `InvalidClientTokenId`.
const MAX_SESSIONS: usize = 10_000;
/// A session token without tags and policies, in bytes.
const BARE_TOKEN: usize = 256;
/// The largest session token, in bytes: `minimumSessionTokenSizeType` goes no further. Not yet seen by AWS.
pub(crate) const MAX_TOKEN: usize = 4096;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// One assumed role. No Debug: it holds the secrets.
pub(crate) struct Session {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) token: String,
    /// The time that policies compare `aws:TokenIssueTime` with; whole seconds.
    pub(crate) issued: Timestamp,
    pub(crate) expires: Timestamp,
    /// The holder of the credentials.
    pub(crate) principal: Principal,
    pub(crate) role_arn: String,
    /// `arn:<partition>:sts::<account>:assumed-role/<role>/<session>`
    pub(crate) arn: String,
    /// `AROA…:<session>`
    pub(crate) user_id: String,
    pub(crate) account: String,
    pub(crate) partition: String,
}

/// The terms of a new session.
pub(crate) struct SessionGrant<'a> {
    pub(crate) role_arn: &'a str,
    pub(crate) role: &'a AssumableRole,
    pub(crate) session_name: &'a str,
    /// Seconds.
    pub(crate) duration: u32,
    /// Percent of the space for session policies and tags.
    pub(crate) packed_percent: usize,
    /// `MinimumSessionTokenSize`.
    pub(crate) minimum_token_size: usize,
}

impl Session {
    /// New random credentials.
    pub(crate) fn issue(grant: &SessionGrant<'_>, now: Timestamp, principal: Principal) -> Result<Self, Unspecified> {
        let role = grant.role;
        // The id of a role is stable, as in AWS.
        let role_id = stable_id(grant.role_arn);
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let duration = SignedDuration::from_secs(i64::from(grant.duration));
        Ok(Self {
            access_key_id: format!("ASIA{}", base32(&random::<16>()?)),
            secret_access_key: STANDARD.encode(random::<30>()?),
            token: session_token(grant.packed_percent, grant.minimum_token_size)?,
            issued: now,
            principal,
            role_arn: grant.role_arn.to_owned(),
            expires: now.saturating_add(duration).unwrap_or(Timestamp::MAX),
            arn: format!(
                "arn:{}:sts::{}:assumed-role/{}/{}",
                role.partition, role.account, role.name, grant.session_name
            ),
            user_id: format!("AROA{role_id}:{}", grant.session_name),
            account: role.account.clone(),
            partition: role.partition.clone(),
        })
    }

    pub(crate) fn has_token(&self, token: &[u8]) -> bool {
        verify_slices_are_equal(self.token.as_bytes(), token).is_ok()
    }

    /// `SessionTokenUtilization`: percent of the largest session token.
    pub(crate) fn token_utilization(&self) -> usize {
        (self.token.len() * 100).div_ceil(MAX_TOKEN)
    }

    pub(crate) fn check_expiry(&self, now: Timestamp) -> Result<(), AwsError> {
        if now < self.expires {
            return Ok(());
        }
        Err(AwsError::new(
            403,
            "ExpiredToken",
            "The security token included in the request is expired",
        ))
    }
}

#[derive(Default)]
pub(crate) struct Sessions {
    by_key: HashMap<String, Arc<Session>>,
    oldest_first: VecDeque<String>,
}

impl Sessions {
    pub(crate) fn add(&mut self, session: Arc<Session>) {
        if self.oldest_first.len() >= MAX_SESSIONS
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        self.oldest_first.push_back(session.access_key_id.clone());
        self.by_key.insert(session.access_key_id.clone(), session);
    }

    pub(crate) fn find(&self, access_key_id: &str) -> Option<Arc<Session>> {
        self.by_key.get(access_key_id).cloned()
    }
}

/// Bytes of a session token whose policies and tags take this much of their space.
pub(crate) fn token_size(packed_percent: usize) -> usize {
    BARE_TOKEN + (MAX_TOKEN - BARE_TOKEN) * packed_percent / 100
}

/// A random text in the size that AWS would give it: STS service model of November 2026, `MinimumSessionTokenSize`,
/// `SessionTokenSize`. That a token without tags and policies has 256 bytes, and grows with the space that they take, is an
/// estimate, not yet seen by AWS.
fn session_token(packed_percent: usize, minimum: usize) -> Result<String, Unspecified> {
    let size = token_size(packed_percent).max(minimum);
    let mut bytes = vec![0; size.div_ceil(4) * 3];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(STANDARD.encode(bytes))
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Unspecified> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

/// The part behind AROA and AIDA in the id of a role or user.
pub(crate) fn stable_id(arn: &str) -> String {
    base32(&digest(&SHA256, arn.as_bytes()).as_ref()[..17])
}

/// One character for the low five bits of each byte.
fn base32(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| char::from(BASE32[usize::from(byte & 31)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(now: i64) -> Session {
        session_of_size(now, 0)
    }

    fn session_of_size(now: i64, minimum_token_size: usize) -> Session {
        let arn = "arn:aws-cn:iam::111122223333:role/shop/orders";
        let now = Timestamp::from_second(now).unwrap();
        let grant = SessionGrant {
            role_arn: arn,
            role: &AssumableRole::parse(arn).unwrap(),
            session_name: "pod-1",
            duration: 900,
            packed_percent: 0,
            minimum_token_size,
        };
        Session::issue(&grant, now, Principal::default()).unwrap()
    }

    #[test]
    fn credentials_look_like_those_of_aws_and_are_never_the_same() {
        let (one, other) = (session(0), session(0));
        assert_eq!(one.arn, "arn:aws-cn:sts::111122223333:assumed-role/orders/pod-1");
        assert!(one.access_key_id.starts_with("ASIA") && one.access_key_id.len() == 20);
        assert_eq!((one.secret_access_key.len(), one.token.len()), (40, 256));
        assert!(one.user_id.starts_with("AROA") && one.user_id.len() == 21 + ":pod-1".len());
        assert_eq!(one.user_id, other.user_id);
        assert!(one.access_key_id != other.access_key_id && one.secret_access_key != other.secret_access_key);
        assert!(one.has_token(one.token.as_bytes()) && !one.has_token(other.token.as_bytes()));
    }

    #[test]
    fn a_session_ends_with_the_second_of_its_expiry() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(session(1000).check_expiry(at(1899)), Ok(()));
        assert_eq!(session(1000).check_expiry(at(1900)).unwrap_err().code, "ExpiredToken");
    }

    #[test]
    fn a_token_is_at_least_as_long_as_asked_for() {
        let session = session_of_size(0, 4096);
        assert_eq!((session.token.len(), session.token_utilization()), (4096, 100));
        assert_eq!(session_of_size(0, 1).token_utilization(), 7);
    }

    #[test]
    fn only_so_many_sessions_are_remembered() {
        let mut sessions = Sessions::default();
        let first = Arc::new(session(0));
        sessions.add(first.clone());
        for _ in 1..MAX_SESSIONS {
            sessions.add(Arc::new(session(0)));
        }
        assert!(sessions.find(&first.access_key_id).is_some());
        sessions.add(Arc::new(session(0)));
        assert!(sessions.find(&first.access_key_id).is_none());
        assert_eq!(
            (sessions.by_key.len(), sessions.oldest_first.len()),
            (MAX_SESSIONS, MAX_SESSIONS)
        );
    }
}
