//! The token in use, and one flight at a time to get the next.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::OwnedMutexGuard;
use tracing::{debug, warn};

use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    extract::auth::{
        Renewal, endpoint::Endpoint, oauth::OAuthIssuer, session::SessionIssuer, sign::SignIssuer,
    },
};

/// Tokens remembered as secrets after newer ones replaced them: answers to older requests may still repeat them.
const SECRETS_KEPT_MAX: usize = 16;

/// A token refused sooner than this after it was fetched counts as refused fresh.
const FRESH: Duration = Duration::from_secs(60);

/// Tokens refused fresh, one after the other, before the refusal is believed: another new one would fare no better.
const FRESH_REFUSED_MAX: u32 = 10;

/// When an early renewal fails and the token still holds, it is used this much longer before the next try.
const POSTPONED: Duration = Duration::from_secs(10);

/// Where tokens come from.
pub(super) enum Issuer {
    /// A token endpoint.
    OAuth(Box<OAuthIssuer>),
    /// A login.
    Session(Box<SessionIssuer>),
    /// Our own key.
    Sign(Box<SignIssuer>),
}

/// A token as it was issued.
pub(super) struct Issued {
    /// The token.
    pub(super) text: String,
    /// How long it is good for, and how long it is used; none: until it is refused.
    pub(super) times: Option<Times>,
    /// Whatever else came with it and must not be written down.
    pub(super) secrets: Vec<String>,
}

/// Durations from the moment a token is issued.
#[derive(Clone, Copy)]
pub(super) struct Times {
    /// The token is good for this long.
    pub(super) lifetime: Duration,
    /// It is used for this long, then renewed.
    pub(super) used: Duration,
}

/// The tokens of one credential.
pub(super) struct Tokens {
    shared: Arc<Shared>,
    /// Held by whoever fetches.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Shared {
    issuer: Issuer,
    clock: Clock,
    /// The credential, for logs and errors.
    name: String,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    /// Counts tokens; the number of the one in use.
    number: u64,
    /// Counts flights, with or without a token at their end.
    flights: u64,
    /// How the last flight failed; none if it did not.
    failed: Option<Failed>,
    /// Tokens refused fresh in a row.
    fresh_refused: u32,
    secrets: VecDeque<String>,
}

#[derive(Clone)]
struct Token {
    text: String,
    /// The secrets it was issued for.
    inputs: [u8; 32],
    issued_at: Timestamp,
    renew_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

struct Failed {
    error: Arc<Error>,
    /// The secrets that were refused; none if they could not be read.
    inputs: Option<[u8; 32]>,
}

impl Issuer {
    async fn issue(&self, now: Timestamp) -> Result<Issued> {
        match self {
            Self::OAuth(oauth) => oauth.issue().await,
            Self::Session(session) => session.issue().await,
            Self::Sign(sign) => sign.issue(now),
        }
    }

    /// The digest of every secret a token is asked for with.
    fn inputs(&self) -> Result<[u8; 32]> {
        match self {
            Self::OAuth(oauth) => oauth.inputs(),
            Self::Session(session) => session.inputs(),
            Self::Sign(sign) => sign.inputs(),
        }
    }

    /// Where tokens are asked for, unless they are made here.
    pub(super) fn endpoint(&mut self) -> Option<&mut Endpoint> {
        match self {
            Self::OAuth(oauth) => Some(oauth.endpoint()),
            Self::Session(session) => Some(session.endpoint()),
            Self::Sign(_) => None,
        }
    }

    fn forget(&self) {
        match self {
            Self::OAuth(oauth) => oauth.forget(),
            Self::Session(session) => session.forget(),
            Self::Sign(sign) => sign.forget(),
        }
    }
}

impl Tokens {
    pub(super) fn new(issuer: Issuer, clock: Clock, name: &str) -> Self {
        Self {
            shared: Arc::new(Shared {
                issuer,
                clock,
                name: name.to_owned(),
                held: Mutex::default(),
            }),
            turn: Arc::default(),
        }
    }

    /// The token to use now and its number, fetched first if there is none or its time has come.
    pub(super) async fn get(&self) -> Result<(String, u64)> {
        let flights = self.shared.held().flights;
        if let Some(token) = self.shared.current()? {
            return Ok(token);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if let Some(token) = self.shared.current()? {
            return Ok(token);
        }
        self.shared.check_failure(flights)?;
        self.fly(turn).await
    }

    /// What to do about token `number`, which the server refused.
    pub(super) async fn renew(&self, number: u64) -> Result<Renewal> {
        let flights = self.shared.held().flights;
        if self.shared.held().number != number {
            return Ok(Renewal::Newer);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if self.shared.held().number != number {
            return Ok(Renewal::Newer);
        }
        self.shared.check_failure(flights)?;
        if !self.shared.drop_refused() {
            return Ok(Renewal::Impossible);
        }
        self.shared.issuer.forget();
        self.fly(turn).await?;
        Ok(Renewal::Renewed)
    }

    pub(super) fn secrets(&self) -> Vec<String> {
        self.shared.held().secrets.iter().cloned().collect()
    }

    /// Fetches a token, to the end even if nobody waits for it any more: a token endpoint may have taken the refresh
    /// token back already, and the new one must be kept.
    async fn fly(&self, turn: OwnedMutexGuard<()>) -> Result<(String, u64)> {
        let shared = Arc::clone(&self.shared);
        let flight = tokio::spawn(async move {
            let _turn = turn;
            shared.fly().await
        });
        flight.await.map_err(|cause| {
            Error::new(ErrorKind::Internal, "get token")
                .with("credential", &self.shared.name)
                .caused_by(cause)
        })?
    }
}

impl Shared {
    async fn fly(&self) -> Result<(String, u64)> {
        // The life of a token begins no later than its request.
        let now = self.clock.now();
        match self.issuer.inputs() {
            Ok(inputs) => match self.issuer.issue(now).await {
                Ok(issued) => Ok(self.landed(issued, inputs, now)),
                Err(error) => self.failed(error, Some(inputs)),
            },
            Err(error) => self.failed(error, None),
        }
    }

    fn landed(&self, issued: Issued, inputs: [u8; 32], now: Timestamp) -> (String, u64) {
        let mut held = self.held();
        held.flights += 1;
        held.number += 1;
        held.failed = None;
        for secret in issued.secrets.into_iter().chain([issued.text.clone()]) {
            if !held.secrets.contains(&secret) {
                held.secrets.push_back(secret);
            }
        }
        let surplus = held.secrets.len().saturating_sub(SECRETS_KEPT_MAX);
        held.secrets.drain(..surplus);
        held.token = Some(Token {
            text: issued.text.clone(),
            inputs,
            issued_at: now,
            renew_at: issued.times.map(|times| now + times.used),
            expires_at: issued.times.map(|times| now + times.lifetime),
        });
        debug!(
            credential = self.name,
            number = held.number,
            used_s = issued.times.map(|times| times.used.as_secs()),
            "token issued"
        );
        (issued.text, held.number)
    }

    /// The token that still holds although its renewal failed, or the failure.
    fn failed(&self, error: Error, inputs: Option<[u8; 32]>) -> Result<(String, u64)> {
        let now = self.clock.now();
        let kind = error.kind();
        let failed = Failed {
            error: Arc::new(error),
            inputs,
        };
        let mut held = self.held();
        held.flights += 1;
        let number = held.number;
        let answer = match &mut held.token {
            Some(token)
                if kind == ErrorKind::Unavailable && token.expires_at.is_some_and(|until| now < until) =>
            {
                warn!(
                    credential = self.name,
                    reason = failed.error.chain(),
                    "token could not be renewed early, the present one is used on"
                );
                token.renew_at = token.expires_at.map(|until| until.min(now + POSTPONED));
                Ok((token.text.clone(), number))
            }
            _ => Err(self.again(&failed)),
        };
        held.failed = Some(failed);
        answer
    }

    /// The token in use, if its time has not come.
    fn current(&self) -> Result<Option<(String, u64)>> {
        let (token, number) = {
            let held = self.held();
            (held.token.clone(), held.number)
        };
        let now = self.clock.now();
        let Some(token) = token.filter(|token| token.renew_at.is_none_or(|at| now < at)) else {
            return Ok(None);
        };
        // Signing costs no request, so a changed key counts at once.
        if let Issuer::Sign(sign) = &self.issuer
            && sign.inputs()? != token.inputs
        {
            return Ok(None);
        }
        Ok(Some((token.text, number)))
    }

    /// Fails like the flight that was waited for since the count stood at `flights`, and like a refusal of the very
    /// same secrets: asking again would only be noise, and some servers lock accounts over it.
    ///
    /// # Errors
    /// The failure of that flight.
    fn check_failure(&self, flights: u64) -> Result<()> {
        let (refused, error) = {
            let held = self.held();
            let Some(failed) = &held.failed else {
                return Ok(());
            };
            let error = self.again(failed);
            if held.flights != flights {
                return Err(error);
            }
            (failed.inputs, error)
        };
        let same = refused.is_some() && self.issuer.inputs().ok() == refused;
        if error.kind() == ErrorKind::Refused && same {
            return Err(error);
        }
        Ok(())
    }

    /// Takes the refused token out of use; `false` if so many were refused fresh that the next would be too.
    fn drop_refused(&self) -> bool {
        let now = self.clock.now();
        let mut held = self.held();
        let Some(token) = &held.token else { return true };
        let age = (now - token.issued_at).to_std().unwrap_or(Duration::ZERO);
        held.fresh_refused = if age < FRESH { held.fresh_refused + 1 } else { 0 };
        if held.fresh_refused > FRESH_REFUSED_MAX {
            warn!(
                credential = self.name,
                refused = held.fresh_refused,
                "the server refuses one fresh token after the other"
            );
            return false;
        }
        held.token = None;
        true
    }

    fn again(&self, failed: &Failed) -> Error {
        Error::new(failed.error.kind(), "get token")
            .with("credential", &self.name)
            .caused_by(Arc::clone(&failed.error))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
