//! The verifiers of webhooks, opened again every few seconds so that a secret that is replaced counts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use crate::{
    clock::{Clock, Timestamp},
    config::{Project, StreamName, route::targets, webhook::Webhook},
    error::Error,
    receive::signature::Verifier,
    serve::problem::{Problem, code::Code},
};

/// Secrets are read again after this long: one that is taken back ends within it.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The verifiers of all streams that take webhooks.
pub(crate) struct Hooks {
    by_stream: HashMap<StreamName, Hook>,
    clock: Clock,
}

struct Hook {
    webhook: Webhook,
    opened: Mutex<Option<(Timestamp, Arc<Verifier>)>>,
}

impl Hooks {
    /// Those of `project`. No secret is read yet.
    pub(crate) fn new(project: &Project, clock: Clock) -> Self {
        let hooks = project.streams().filter_map(|(_, stream)| {
            let hook = Hook {
                webhook: stream.webhook.clone()?,
                opened: Mutex::new(None),
            };
            Some((stream.name.clone(), hook))
        });
        Self {
            by_stream: hooks.collect(),
            clock,
        }
    }

    /// Where an event of type `kind` goes that came to `stream`; never nowhere.
    pub(crate) fn targets(&self, stream: &StreamName, kind: Option<&str>) -> Vec<StreamName> {
        let routes = self
            .by_stream
            .get(stream)
            .map_or(&[][..], |hook| &hook.webhook.routes);
        let targets = targets(routes, &stream.stream, kind);
        let named = targets.into_iter().map(|name| StreamName {
            source: stream.source.clone(),
            stream: name.clone(),
        });
        named.collect()
    }

    /// The verifier of `stream`; none if it takes no webhooks.
    ///
    /// # Errors
    /// 503 if none of its secrets can be read: the sender will come again.
    pub(crate) async fn verifier(&self, stream: &StreamName) -> Result<Option<Arc<Verifier>>, Problem> {
        let Some(hook) = self.by_stream.get(stream) else {
            return Ok(None);
        };
        let mut opened = hook.opened.lock().await;
        let now = self.clock.steady();
        if let Some((at, verifier)) = opened.as_ref()
            && (now - *at).to_std().unwrap_or_default() < READ_AGAIN_AFTER
        {
            return Ok(Some(Arc::clone(verifier)));
        }
        let webhook = hook.webhook.clone();
        // Some secrets are printed by programs.
        let verifier = tokio::task::spawn_blocking(move || Verifier::open(&webhook)).await;
        let verifier = match verifier {
            Ok(Ok(verifier)) => Arc::new(verifier),
            Ok(Err(error)) => return Err(unread(stream, &error)),
            Err(_panic) => return Err(Problem::new(Code::Internal, "the log has the cause")),
        };
        for error in verifier.unread() {
            tracing::warn!(%stream, error = error.chain(), "webhook secret not read");
        }
        *opened = Some((now, Arc::clone(&verifier)));
        Ok(Some(verifier))
    }
}

fn unread(stream: &StreamName, error: &Error) -> Problem {
    tracing::error!(%stream, error = error.chain(), "webhook not opened");
    Problem::new(Code::Unavailable, "the signature cannot be checked now")
}
