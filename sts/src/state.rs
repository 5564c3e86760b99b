//! What is remembered between requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use serde_json::Value;

use crate::account::AccountDirectory;
use crate::config::{CheckedProvider, CheckedRole, Provider, Role, checked_context};
use crate::config_error::StsConfigError;
use crate::issuer::Issuers;
use crate::lock::lock;
use crate::outbound::OutboundIssuers;
use crate::permissions::AssumedSession;
use crate::session::{Session, Sessions};

/// Tells the time; tests move it.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's clock.
pub fn system_clock() -> TimeSource {
    Arc::new(Timestamp::now)
}

/// The account as requests see it: its roles, its providers, the sessions that were issued.
pub(crate) struct AwsAccount {
    pub(crate) clock: TimeSource,
    pub(crate) issuers: Issuers,
    roles: Mutex<HashMap<String, Arc<CheckedRole>>>,
    pub(crate) providers: Mutex<Vec<Arc<CheckedProvider>>>,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) directory: Mutex<AccountDirectory>,
    pub(crate) outbound: OutboundIssuers,
    /// `None` = any.
    pub(crate) region: Option<String>,
}

impl AwsAccount {
    /// An account without roles and providers.
    pub(crate) fn new(issuers: Issuers, clock: TimeSource, region: Option<String>) -> Self {
        Self {
            clock,
            issuers,
            roles: Mutex::default(),
            providers: Mutex::default(),
            sessions: Mutex::default(),
            directory: Mutex::default(),
            outbound: OutboundIssuers::default(),
            region,
        }
    }

    /// Adds a role; it is an error if there is one of this ARN.
    pub(crate) fn add_role(&self, role: &Role) -> Result<(), StsConfigError> {
        let checked = role.check()?;
        let mut roles = lock(&self.roles);
        if roles.contains_key(&role.arn) {
            return Err(StsConfigError::EntityAlreadyExists(role.arn.clone()));
        }
        roles.insert(role.arn.clone(), Arc::new(checked));
        Ok(())
    }

    /// Adds a role or replaces the one of this ARN.
    pub(crate) fn set_role(&self, role: &Role) -> Result<(), StsConfigError> {
        let checked = role.check()?;
        lock(&self.roles).insert(role.arn.clone(), Arc::new(checked));
        Ok(())
    }

    /// Registers an identity provider; a URL can be there once in an account.
    pub(crate) fn add_provider(&self, provider: Provider) -> Result<(), StsConfigError> {
        let provider = provider.checked()?;
        let mut providers = lock(&self.providers);
        if providers.iter().any(|other| other.arn == provider.arn) {
            return Err(StsConfigError::EntityAlreadyExists(provider.arn));
        }
        providers.push(Arc::new(provider));
        Ok(())
    }

    /// Sets, changes or removes the context provider of a provider.
    pub(crate) fn update_context_provider(&self, arn: &str, document: Option<&Value>) -> Result<(), StsConfigError> {
        let context = document.map(checked_context).transpose()?;
        let mut providers = lock(&self.providers);
        let Some(provider) = providers.iter_mut().find(|provider| provider.arn == arn) else {
            return Err(StsConfigError::NoSuchEntity(arn.to_owned()));
        };
        *provider = Arc::new(CheckedProvider {
            context,
            ..CheckedProvider::clone(provider)
        });
        Ok(())
    }

    pub(crate) fn role(&self, arn: &str) -> Option<Arc<CheckedRole>> {
        lock(&self.roles).get(arn).cloned()
    }

    pub(crate) fn remember(&self, session: Session) {
        lock(&self.sessions).add(Arc::new(session));
    }

    /// The session of an access key id, for tests.
    pub(crate) fn session(&self, access_key_id: &str) -> Option<AssumedSession> {
        lock(&self.sessions)
            .find(access_key_id)
            .map(|session| AssumedSession::of(&session))
    }
}
