//! Who comes in, what it may do there, and how fast.

use axum::http::{HeaderName, HeaderValue, header};

use crate::{
    config::{
        Name, StreamName,
        producers::{San, Scope},
    },
    receive::{
        producer::{
            Caller, Credentials,
            audit::{AuditEvent, Occasion},
            bucket,
            denial::{Denied, Told},
            limit::{Admission, Ask, Permit, Reason, Refusal, STEP_BYTES, Who},
        },
        spool::{
            acknowledger::Acknowledger,
            level::{Level, Pressure, REFUSE_PERCENT, SLOW_PERCENT},
        },
    },
    serve::{
        app::App,
        call::Call,
        problem::{Problem, code::Code},
        tls::identity::{Identity, SubjectName},
        unusual::Spike,
    },
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl App {
    /// Who sends `call`; none where nobody is asked.
    ///
    /// # Errors
    /// 401, or 503 if it cannot be found out now.
    pub(crate) async fn authenticate(&self, call: &Call) -> Result<Option<Caller>, Problem> {
        if self.is_open {
            return Ok(None);
        }
        let values = call.headers.get_all(header::AUTHORIZATION);
        let values: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
        let names = certificate_names(call);
        let credentials = Credentials {
            authorization: &values,
            certificate: names.as_deref(),
        };
        let known = self.producers.authenticate(&credentials).await;
        known.map(Some).map_err(|denied| self.denied(call, None, &denied))
    }

    /// Whether `caller` may do what `scope` names, with `stream` if one is meant.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn may(
        &self,
        call: &Call,
        caller: Option<&Caller>,
        scope: Scope,
        stream: Option<&StreamName>,
    ) -> Result<(), Problem> {
        let Some(caller) = caller else { return Ok(()) };
        let known = stream.filter(|stream| self.pushed(stream).is_some());
        caller
            .may(scope, stream)
            .map_err(|denied| self.denied(call, known, &denied))?;
        let event = AuditEvent::granted(&self.occasion(call, Some(scope), known), caller);
        self.audit.tell(&event);
        Ok(())
    }

    fn occasion<'a>(
        &self,
        call: &'a Call,
        scope: Option<Scope>,
        stream: Option<&'a StreamName>,
    ) -> Occasion<'a> {
        Occasion {
            at: self.clock.now(),
            request_id: call.request_id.as_str(),
            scope,
            stream,
            remote: call.peer.as_ref().map(|peer| peer.address.ip()),
            certificate: identity(call).map(|identity| identity.fingerprint.as_str()),
        }
    }

    /// Says who was turned away where it is written down, and to whoever it was.
    pub(crate) fn denied(&self, call: &Call, stream: Option<&StreamName>, denied: &Denied) -> Problem {
        let event = AuditEvent::denied(&self.occasion(call, denied.scope, stream), denied);
        self.metrics.denied(&event);
        self.audit.tell(&event);
        let code = match denied.denial.told() {
            Told::Unauthenticated => Code::Unauthenticated,
            Told::Expired => Code::CredentialsExpired,
            Told::Forbidden => Code::Forbidden,
            Told::Unavailable => Code::Unavailable,
        };
        let mut problem = Problem::new(code, denied.denial.detail());
        if let Some(challenge) = denied
            .challenge()
            .and_then(|text| HeaderValue::try_from(text).ok())
        {
            problem = problem.with_header(header::WWW_AUTHENTICATE, challenge);
        }
        match denied.retry_after {
            Some(wait) => problem.retry_after(wait),
            None => problem,
        }
    }

    /// Takes what `call` needs of the rates of `who`, for a body of `bytes` at most, and has its answer tell what is
    /// left. What a known producer says its body has is taken at once, so that it is refused before it is sent; what
    /// anybody else says is not believed, and is taken as it comes.
    ///
    /// # Errors
    /// 429 for what the producer did itself, 503 for what the server cannot take.
    pub(crate) fn admit(
        &self,
        call: &mut Call,
        who: Who<'_>,
        stream: Option<&StreamName>,
        bytes: u64,
    ) -> Result<(), Problem> {
        if let Some(spike) = self.unusual.came(who, self.clock.steady()) {
            let Spike { requests, usual } = spike;
            let producer = match who {
                Who::Producer(name) => Some(name),
                Who::Sender(_) => None,
            };
            let detail = format!("{requests} requests within 10 s, where {usual:.1} are usual");
            self.notice(call, stream, producer, "spike", detail);
        }
        let first = match (who, call.body_bytes_declared()) {
            (Who::Producer(_), Some(_)) => bytes,
            _ => bytes.min(STEP_BYTES),
        };
        let ask = Ask {
            who,
            stream,
            bytes,
            first,
        };
        let pressure = pressure(&self.acknowledger.level());
        let (standing, refusal) = match self.limiter.admit(&ask, self.clock.steady(), pressure) {
            Admission::Granted(permit, standing) => {
                call.permit = Some(permit);
                (standing, None)
            }
            Admission::Refused(refusal) => (refusal.standing.clone(), Some(refusal)),
        };
        if !standing.0.is_empty() {
            call.tell(RATE_LIMIT_POLICY, &standing.policy());
            call.tell(RATE_LIMIT, &standing.limit());
        }
        refusal.map_or(Ok(()), |refusal| Err(self.refused(&refusal)))
    }

    /// Writes down that something is not as it was before.
    pub(crate) fn notice(
        &self,
        call: &Call,
        stream: Option<&StreamName>,
        producer: Option<&Name>,
        class: &'static str,
        detail: String,
    ) {
        self.metrics.unusual(class);
        let occasion = self.occasion(call, None, stream);
        self.audit
            .tell(&AuditEvent::unusual(&occasion, producer, class, detail));
    }

    /// Takes what is needed for the body under `permit` to go on, of which `bytes` came.
    ///
    /// # Errors
    /// As [`App::admit`].
    pub(crate) fn go_on(&self, permit: &mut Permit, bytes: u64) -> Result<(), Problem> {
        let pressure = pressure(&self.acknowledger.level());
        let reached = permit.reach(bytes, self.clock.steady(), pressure);
        reached.map_err(|refusal| self.refused(&refusal))
    }

    fn refused(&self, refusal: &Refusal) -> Problem {
        self.metrics.refused(refusal.reason.as_str());
        let (code, detail) = match refusal.reason {
            Reason::AtOnce => (
                Code::ConcurrencyLimited,
                "as many requests are under way as may be",
            ),
            Reason::Bytes => (Code::RateLimited, "the bytes of the window are sent"),
            Reason::Requests => (Code::RateLimited, "the requests of the window are sent"),
            Reason::Pressure => (
                Code::RateLimited,
                "less is granted than usual: much waits for the lake",
            ),
            Reason::Capacity => (Code::Overloaded, "the server has as much under way as it can"),
            Reason::Unknown => (Code::Forbidden, "no rates are declared for the producer"),
        };
        Problem::new(code, detail).retry_after(refusal.retry_after)
    }

    /// Whether more can be kept now.
    ///
    /// # Errors
    /// 507 if nothing more fits, 503 before that.
    pub(crate) fn has_room(&self) -> Result<(), Problem> {
        match (self.acknowledger.level().pressure(), &self.acknowledger) {
            (Pressure::Calm | Pressure::Slow, _) => Ok(()),
            (Pressure::Full, Acknowledger::Spool(_)) => {
                self.metrics.refused("spool_full");
                Err(Problem::new(
                    Code::StorageFull,
                    "the spool is full: too much waits for the lake",
                ))
            }
            (Pressure::Refuse | Pressure::Full, _) => {
                self.metrics.refused("backlog");
                Err(Problem::new(Code::BacklogFull, "too much waits for the lake"))
            }
        }
    }
}

/// How full what stands behind is, for what producers are granted.
fn pressure(level: &Level) -> bucket::Pressure {
    let part = |percent: u64| percent as f64 / 100.0;
    bucket::Pressure::between(
        level.bytes,
        level.bytes_max,
        part(SLOW_PERCENT),
        part(REFUSE_PERCENT),
    )
}

/// Who the certificate of the connection speaks for, if one was shown.
fn identity(call: &Call) -> Option<&Identity> {
    call.peer.as_ref()?.identity.as_deref()
}

fn certificate_names(call: &Call) -> Option<Vec<San>> {
    let names = identity(call)?.names.iter().map(|name| match name {
        SubjectName::Dns(name) => San::Dns(name.clone()),
        SubjectName::Uri(uri) => San::Uri(uri.clone()),
        SubjectName::Email(address) => San::Email(address.clone()),
        SubjectName::Ip(address) => San::Ip(*address),
    });
    Some(names.collect())
}
