//! The tokens that are known, found by their id.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::Mutex;

use crate::{
    clock::{Clock, Timestamp},
    config::{
        Name,
        producers::{Producer, TokenHash, TokenId, TokenProof},
        secret::Secret,
    },
    error::{Error, ErrorKind, Result},
    receive::producer::{
        denial::{Denial, Denied, Via},
        token::Token,
    },
};

/// Tokens that are kept elsewhere are read again after this long: one that is taken back ends within it.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// … and sooner for an id that is not known: it may be new. Not more often, as anyone can name one.
const READ_AGAIN_MIN: Duration = Duration::from_millis(100);

/// Every token of every producer.
pub struct Tokens {
    written: HashMap<TokenId, Known>,
    references: Arc<Vec<Reference>>,
    read: RwLock<Arc<Read>>,
    turn: Mutex<()>,
    clock: Clock,
}

/// A token, without what it is.
#[derive(Clone, Debug)]
pub struct Known {
    /// The number of its producer.
    pub producer: usize,
    /// Its name among those of the producer.
    pub name: Name,
    hash: TokenHash,
    expires: Option<Timestamp>,
}

struct Reference {
    producer: usize,
    name: Name,
    secret: Secret,
    expires: Option<Timestamp>,
}

struct Read {
    tokens: HashMap<TokenId, Known>,
    at: Timestamp,
}

impl Tokens {
    /// The tokens of `producers`; those that are kept elsewhere are read once, to know that they can be.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if one cannot be read, is not a token, or has the id of another.
    pub fn new(producers: &[Producer], clock: Clock) -> Result<Self> {
        let mut written = HashMap::new();
        let mut references = Vec::new();
        for (number, producer) in producers.iter().enumerate() {
            for token in &producer.tokens {
                match &token.proof {
                    TokenProof::Hash(hash) => {
                        let known = Known {
                            producer: number,
                            name: token.name.clone(),
                            hash: hash.clone(),
                            expires: token.expires,
                        };
                        written.insert(hash.id.clone(), known);
                    }
                    TokenProof::Reference(secret) => references.push(Reference {
                        producer: number,
                        name: token.name.clone(),
                        secret: secret.clone(),
                        expires: token.expires,
                    }),
                }
            }
        }
        let mut tokens = HashMap::new();
        for reference in &references {
            let at_fault = |error: Error| {
                let producer = producers
                    .get(reference.producer)
                    .map(|producer| producer.name.as_str());
                Error::new(ErrorKind::Config, "read token of producer")
                    .with("producer", producer.unwrap_or_default())
                    .with("token", &reference.name)
                    .caused_by(error)
            };
            let known = reference.read().map_err(at_fault)?;
            let id = known.hash.id.clone();
            if written.contains_key(&id) || tokens.insert(id, known).is_some() {
                let twice = Error::new(ErrorKind::Config, "tell tokens apart")
                    .with("problem", "two have the same id");
                return Err(at_fault(twice));
            }
        }
        let read = Read {
            tokens,
            at: clock.steady(),
        };
        Ok(Self {
            written,
            references: Arc::new(references),
            read: RwLock::new(Arc::new(read)),
            turn: Mutex::new(()),
            clock,
        })
    }

    /// The token of ours that `shown` is.
    ///
    /// # Errors
    /// [`Denial::TokenUnknown`], [`Denial::TokenWrong`] or [`Denial::TokenExpired`], which only its owner can meet.
    pub async fn find(&self, shown: &Token) -> Result<Known, Denied> {
        let id = &shown.hash().id;
        let denied = |denial| Denied {
            credential: Some(id.to_string()),
            ..Denied::new(denial, Via::Token)
        };
        let known = match self.written.get(id) {
            Some(known) => Some(known.clone()),
            None => self.referenced(id).await,
        };
        let known = known.ok_or_else(|| denied(Denial::TokenUnknown))?;
        if !shown.is(&known.hash) {
            return Err(denied(Denial::TokenWrong));
        }
        if known.expires.is_some_and(|expires| expires <= self.clock.now()) {
            return Err(denied(Denial::TokenExpired));
        }
        Ok(known)
    }

    async fn referenced(&self, id: &TokenId) -> Option<Known> {
        if self.references.is_empty() {
            return None;
        }
        let read = self.last();
        let patience = |read: &Read| match read.tokens.contains_key(id) {
            true => READ_AGAIN_AFTER,
            false => READ_AGAIN_MIN,
        };
        if self.age(&read) < patience(&read) {
            return read.tokens.get(id).cloned();
        }
        let _turn = match (self.turn.try_lock(), read.tokens.get(id)) {
            (Ok(turn), _) => turn,
            // Somebody reads them now, and whoever prints them may be slow: what was good a moment ago is good for now.
            (Err(_), Some(known)) => return Some(known.clone()),
            (Err(_), None) => self.turn.lock().await,
        };
        let read = self.last();
        // Somebody may have read them while this one waited.
        if self.age(&read) < patience(&read) {
            return read.tokens.get(id).cloned();
        }
        let at = self.clock.steady();
        let references = Arc::clone(&self.references);
        // A program that prints a token may take its time.
        let tokens = tokio::task::spawn_blocking(move || {
            let known = references.iter().filter_map(|reference| match reference.read() {
                Ok(known) => Some((known.hash.id.clone(), known)),
                Err(error) => {
                    tracing::warn!(token = %reference.name, error = %error.chain(), "token not read");
                    None
                }
            });
            known.collect::<HashMap<_, _>>()
        });
        let tokens = tokens.await.ok()?;
        let found = tokens.get(id).cloned();
        *self.read.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Read { tokens, at });
        found
    }

    fn last(&self) -> Arc<Read> {
        Arc::clone(&self.read.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn age(&self, read: &Read) -> Duration {
        (self.clock.steady() - read.at).to_std().unwrap_or_default()
    }
}

impl Reference {
    fn read(&self) -> Result<Known> {
        let text = self.secret.reveal()?;
        // The text is not repeated: it may be a secret of another kind.
        let token = Token::parse(text.trim()).ok_or_else(|| {
            Error::new(ErrorKind::Config, "read token").with("problem", "not a token made by this program")
        })?;
        Ok(Known {
            producer: self.producer,
            name: self.name.clone(),
            hash: token.hash().clone(),
            expires: self.expires,
        })
    }
}
