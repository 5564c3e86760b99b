//! Tokens by audience: each asked of tokenscope's issuer, one exchange at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::answer::HttpAnswer;
use super::token_memory::{NotGiven, TokenMemory};
use super::token_request::TokenRequest;
use crate::clock::Clock;
use crate::exchange::{Exchanger, IssuerSettings};
use crate::log::{Level, Log};
use crate::retry::Kind;
use crate::token::Token;

/// The longest exchange. Clients of the enforcer have no deadline that is written down; an SDK's is a few seconds.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(4);
/// The longest time that a request may wait for its answer, those before it included.
const PATIENCE: Duration = Duration::from_secs(8);
/// The most requests that wait of processes that don't say who they are.
const MOST_OF_ANYBODY: usize = 8;

/// Gives tokens.
pub(super) struct TokenGiver<C> {
    exchanger: Exchanger,
    clock: Arc<C>,
    log: Log,
    memory: Mutex<TokenMemory>,
    /// The places of processes that don't say who they are.
    pub(super) places: Semaphore,
}

impl<C: Clock> TokenGiver<C> {
    /// Nobody is asked yet.
    pub(super) fn new(issuer: IssuerSettings, containers: usize, clock: Arc<C>, log: Log) -> Self {
        Self {
            exchanger: Exchanger::new(issuer, EXCHANGE_DEADLINE),
            clock,
            log,
            memory: Mutex::new(TokenMemory::new(containers, Instant::now())),
            places: Semaphore::new(MOST_OF_ANYBODY),
        }
    }

    /// The answer to a request that is granted here. The issuer decides whether it is still.
    pub(super) async fn give(&self, request: &TokenRequest) -> HttpAnswer {
        let late = || unavailable("tokenscope's issuer has not answered yet: try again later");
        timeout(PATIENCE, self.answer(request)).await.unwrap_or_else(|_| late())
    }

    async fn answer(&self, request: &TokenRequest) -> HttpAnswer {
        // It is held during the exchange: whoever waits finds its token.
        let mut memory = self.memory.lock().await;
        if let Some(known) = memory.known(request, Instant::now(), self.clock.now()) {
            return match known {
                Ok(token) => HttpAnswer::token(token.secret()),
                Err(why) => not_given(&why),
            };
        }
        if !memory.may_ask(request.caller, Instant::now()) {
            let message = "too many tokens were asked for: try again in 10 s";
            return HttpAnswer::error("429 Too Many Requests", "TooManyRequests", message);
        }
        match self.exchange(request).await {
            Ok(token) => {
                let answer = HttpAnswer::token(token.secret());
                self.event(Level::Debug, "a token was given", request);
                memory.remember(request, token, Instant::now());
                answer
            }
            Err(why) => {
                self.event(Level::Warn, &why.message, request);
                let answer = not_given(&why);
                memory.failed(request, why, Instant::now());
                answer
            }
        }
    }

    async fn exchange(&self, request: &TokenRequest) -> Result<Token, NotGiven> {
        let exchanged = self
            .exchanger
            .token_for(&request.audience, Some(request.lifetime))
            .await;
        let token = exchanged.map_err(|error| NotGiven {
            is_refused: error.kind() == Kind::Rejected,
            message: error.to_string().into(),
        })?;
        let is_for_audience = matches!(&*token.audiences, [only] if **only == *request.audience.as_str());
        if !is_for_audience || token.expires_at <= self.clock.now() {
            return Err(NotGiven {
                is_refused: false,
                message: "the issuer's token is for another audience, or has ended: is the clock of this node wrong?"
                    .into(),
            });
        }
        Ok(token)
    }

    fn event(&self, level: Level, message: &str, request: &TokenRequest) {
        let fields = [("audience", request.audience.as_str())];
        self.log.event(self.clock.now(), level, message, &fields);
    }
}

fn not_given(why: &NotGiven) -> HttpAnswer {
    if why.is_refused {
        return HttpAnswer::error("400 Bad Request", "TokenRefused", &why.message);
    }
    unavailable(&why.message)
}

fn unavailable(message: &str) -> HttpAnswer {
    HttpAnswer::error("503 Service Unavailable", "ServiceUnavailable", message)
}
