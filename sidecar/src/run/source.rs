//! The source of tokens: the one place that knows of more than one.

use std::sync::Arc;

use tokenscope_core::Audience;

use crate::config::{SourceSettings, WorkloadApiSettings};
#[cfg(feature = "issuer")]
use crate::exchange::{self, Exchanger};
use crate::fetch_error::{FetchError, TokenProvider};
use crate::token::Token;
use crate::workload_api::{Client, DEADLINE};

/// A client of the source of tokens.
pub(super) enum TokenClient {
    WorkloadApi(Arc<SpiffeAgent>),
    #[cfg(feature = "issuer")]
    Issuer(Exchanger),
}

/// The SPIFFE agent, and what is wanted of it.
pub(super) struct SpiffeAgent {
    pub(super) client: Client,
    pub(super) settings: WorkloadApiSettings,
}

impl TokenClient {
    /// Nobody is asked yet. `None` where no token is kept.
    #[cfg_attr(
        not(feature = "endpoint"),
        expect(clippy::unnecessary_wraps, reason = "without the endpoint there is a source always")
    )]
    pub(super) fn new(source: &SourceSettings) -> Option<Self> {
        Some(match source {
            SourceSettings::WorkloadApi(settings) => Self::WorkloadApi(Arc::new(SpiffeAgent {
                client: Client::new(settings.socket.clone(), DEADLINE),
                settings: settings.clone(),
            })),
            #[cfg(feature = "issuer")]
            SourceSettings::Issuer(settings) => Self::Issuer(Exchanger::new(settings.clone(), exchange::DEADLINE)),
            #[cfg(feature = "endpoint")]
            SourceSettings::Kubelet => return None,
        })
    }

    /// True if what it grants may end before the token does, and is asked for again because of it.
    pub(super) fn can_withdraw(&self) -> bool {
        match self {
            Self::WorkloadApi(_) => false,
            #[cfg(feature = "issuer")]
            Self::Issuer(_) => true,
        }
    }

    /// The SPIFFE agent, if tokens come from there.
    #[cfg_attr(
        not(feature = "issuer"),
        expect(clippy::unnecessary_wraps, reason = "without the issuer there is an agent always")
    )]
    pub(super) fn agent(&self) -> Option<&Arc<SpiffeAgent>> {
        match self {
            Self::WorkloadApi(agent) => Some(agent),
            #[cfg(feature = "issuer")]
            Self::Issuer(_) => None,
        }
    }

    /// Its name in messages.
    pub(super) fn provider(&self) -> TokenProvider {
        match self {
            Self::WorkloadApi(_) => TokenProvider::Agent,
            #[cfg(feature = "issuer")]
            Self::Issuer(_) => TokenProvider::Issuer,
        }
    }

    /// A token that was asked for with this audience. Whether it has it, and until when it is valid, is for the caller to see.
    pub(super) async fn token(&self, audience: &Audience) -> Result<Token, FetchError> {
        match self {
            Self::WorkloadApi(agent) => agent.token(audience).await,
            #[cfg(feature = "issuer")]
            Self::Issuer(exchanger) => Ok(exchanger.token(audience).await?),
        }
    }
}

impl SpiffeAgent {
    async fn token(&self, audience: &Audience) -> Result<Token, FetchError> {
        let wanted = &self.settings.wanted;
        let id = wanted.spiffe_id.as_ref().map_or("", |id| id.as_str());
        let svids = self.client.jwt_svids(audience.as_str(), id).await?;
        let svid = wanted.choose(&svids)?;
        let token = Token::parse(&svid.svid).map_err(FetchError::InvalidToken)?;
        if *token.subject != *svid.spiffe_id {
            return Err(FetchError::Malformed(
                "the token is of another identity than the answer says",
            ));
        }
        Ok(token)
    }
}
