//! A budget in Redis.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{AsyncConnectionConfig, Client, Script, aio::MultiplexedConnection};

use crate::{
    config::{rate::WindowKind, secret::Secret},
    error::{Error, ErrorKind, Result},
    extract::limit::{
        ledger::{Ask, LATE_MAX, PACE_MAX, RIVALS_LAST, TURN_WAIT, Verdict},
        rules::{Rule, micros},
        shared::Note,
    },
};

/// The longest wait for a connection.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// The longest wait for an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(1);

/// A budget in Redis: one script call per ask, on the server's clock.
pub(super) struct RedisStore {
    url: Secret,
    key: String,
    script: Script,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    /// The budget's birth as last read.
    seen: Mutex<String>,
}

impl RedisStore {
    pub(super) fn new(url: Secret, key: String) -> Self {
        Self {
            url,
            key,
            script: Script::new(include_str!("take.lua")),
            connection: tokio::sync::Mutex::new(None),
            seen: Mutex::default(),
        }
    }

    /// As [`Ledger::take`](super::ledger::Ledger::take), in Redis. Without an ask the note is all.
    pub(super) async fn take(&self, rules: &[Rule], ask: Option<&Ask>, note: Note) -> Result<Verdict> {
        let mut kept = self.connection.lock().await;
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let mut call = self.script.prepare_invoke();
        // The braces keep the keys together on a cluster.
        call.key(format!("landfall:{{{}}}", self.key));
        call.key(format!("landfall:{{{}}}:pause", self.key));
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pause_ms = note.pause.map_or(0, |pause| pause.as_micros().div_ceil(1000));
        call.arg(ask.map_or(0, |ask| ask.member).to_string())
            .arg(ask.map_or(0, |ask| ask.want.max(1)))
            .arg(u8::from(ask.is_some_and(|ask| ask.contended)))
            .arg(seen)
            .arg(format!("{:016x}", rand::random::<u64>()))
            .arg(u64::try_from(pause_ms).unwrap_or(u64::MAX))
            .arg(u8::from(note.spent))
            .arg(micros(LATE_MAX))
            .arg(micros(TURN_WAIT))
            .arg(micros(PACE_MAX))
            .arg(micros(RIVALS_LAST));
        for demand in ask.iter().flat_map(|ask| ask.demands.iter()) {
            let rule = &rules[demand.rate];
            call.key(format!("landfall:{{{}}}:{:016x}", self.key, rule.id));
            call.arg(match rule.kind {
                WindowKind::Moving => "moving",
                WindowKind::Fixed => "fixed",
            })
            .arg(rule.requests)
            .arg(rule.per)
            .arg(demand.weight);
        }
        let answer: Result<(u32, u64, u64, String), _> = call.invoke_async(&mut connection).await;
        let (count, first, wait, born) = answer.map_err(|cause| self.unavailable(cause))?;
        // A connection that failed is not kept.
        *kept = Some(connection);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = born;
        let wait = Duration::from_micros(wait);
        Ok(match count {
            0 => Verdict::Wait(wait),
            _ => Verdict::Granted {
                count,
                first,
                next: wait,
            },
        })
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = Client::open(self.url.reveal()?).map_err(|cause| self.unavailable(cause))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WAIT_MAX))
            .set_response_timeout(Some(ANSWER_WAIT_MAX));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|cause| self.unavailable(cause))
    }

    fn unavailable(&self, cause: redis::RedisError) -> Error {
        // The cause says what failed and never the URL, which may hold a password.
        Error::new(ErrorKind::Unavailable, "ask Redis for the rate limit")
            .with("url", &self.url)
            .caused_by(cause)
    }
}
