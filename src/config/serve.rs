//! `landfall serve`: the settings.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use crate::{
    config::{
        Name,
        producers::{Rates, Scope},
        spool::Spool,
        uploads::Uploads,
    },
    json::JsonPath,
};

/// Where and how the server listens. Without it nothing does.
#[derive(Clone, Debug)]
pub struct Serve {
    /// Where producers reach it. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Where health and metrics are: with the certificate of the server, if it has one, unless only this machine can
    /// reach it. Default 127.0.0.1:9090.
    pub admin_listen: SocketAddr,
    /// What producers call it, if something stands between; its path is before that of every route.
    pub public_url: Option<Url>,
    /// Its own certificate; plain HTTP without.
    pub tls: Option<ServeTls>,
    /// Bounds on what it takes on.
    pub limits: ServeLimits,
    /// How long it waits for clients.
    pub timeouts: ServeTimeouts,
    /// Where deliveries are kept until they are in the lake.
    pub spool: Spool,
    /// How files are taken that are larger than a request may be.
    pub uploads: Uploads,
    /// The file that who came is appended to; none for the program's own log alone.
    pub audit_log: Option<PathBuf>,
    /// How long requests under way may take to end when it is told to stop. Default 30 s.
    pub shutdown_grace: Duration,
    /// Rates by the name of the tier; `standard` is always there.
    pub tiers: Vec<(Name, Rates)>,
    /// Whose access tokens are taken.
    pub issuers: Vec<Issuer>,
}

/// The certificate of the server, and what it asks of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeTls {
    /// A PEM file with the certificate chain; read again when it changes.
    pub cert: PathBuf,
    /// A PEM file with its private key; read again when it changes.
    pub key: PathBuf,
    /// A PEM file of the authorities that sign clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// A PEM file of their revocation lists; read again when it changes.
    pub client_crl: Option<PathBuf>,
    /// Whether clients must have one.
    pub client_cert: ClientCert,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCert {
    /// One that is shown must be good; none need be. The default.
    Optional,
    /// There is no connection without one.
    Required,
}

/// Bounds on what the server takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeLimits {
    /// Connections at the same time. Default 4096.
    pub connections: u32,
    /// Requests at the same time, shared by all producers. Default 1024.
    pub requests_at_once: u32,
    /// Bytes of bodies in memory, shared by all producers. Default 256 MiB.
    pub bytes_at_once: u64,
    /// Bytes of one request's headers. Default 32 KiB.
    pub header_bytes_max: u64,
}

/// How long the server waits for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServeTimeouts {
    /// Until the headers of a request are there. Default 10 s.
    pub header: Duration,
    /// The longest pause in a body. Default 30 s.
    pub read: Duration,
    /// For one whole request. Default 5 min.
    pub request: Duration,
    /// With no request on a connection. Default 60 s.
    pub idle: Duration,
}

/// One whose access tokens are taken: OpenID Connect, or OAuth 2 with tokens by RFC 9068.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What it is called in the audit log.
    pub name: Name,
    /// What `iss` must be, to the letter; its keys are found from here unless `keys_url` says where.
    pub issuer: Url,
    /// `issuer` as it is written.
    pub issuer_text: String,
    /// One of these must be in `aud`.
    pub audience: Vec<String>,
    /// Where the keys are (JWK Set, RFC 7517); none for discovery.
    pub keys_url: Option<Url>,
    /// How tokens may be signed; only with public keys.
    pub algorithms: Vec<SigningAlgorithm>,
    /// The claim that says which producer it is.
    pub producer: JsonPath,
    /// Producers by what that claim holds; if empty it holds their name.
    pub producers: Vec<(String, Name)>,
    /// The claim that holds scopes; none to grant all of the producer.
    pub scopes: Option<JsonPath>,
    /// What a scope is called in that claim.
    pub scope_words: Vec<(String, Scope)>,
    /// Longest time from issue to expiry. Default 1 h.
    pub lifetime_max: Duration,
    /// How far clocks may differ, up to 60 s. Default 60 s.
    pub skew: Duration,
    /// How long keys are good that cannot be fetched again. Default 24 h.
    pub keys_ttl: Duration,
}

/// How a token is signed (RFC 7518, RFC 8037): with a private key, never with a shared one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SigningAlgorithm {
    /// RSA PKCS #1 with SHA-256.
    Rs256,
    /// RSA PKCS #1 with SHA-384.
    Rs384,
    /// RSA PKCS #1 with SHA-512.
    Rs512,
    /// RSA PSS with SHA-256.
    Ps256,
    /// RSA PSS with SHA-384.
    Ps384,
    /// RSA PSS with SHA-512.
    Ps512,
    /// P-256 with SHA-256.
    Es256,
    /// P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Serve {
    /// What [`Serve::listen`] is unless the file says otherwise.
    pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
    /// What [`Serve::admin_listen`] is unless the file says otherwise.
    pub const ADMIN_LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
    /// What [`Serve::shutdown_grace`] is unless the file says otherwise.
    pub const SHUTDOWN_GRACE_DEFAULT: Duration = Duration::from_secs(30);

    /// What stands before the path of a link: what producers call the server, without a slash behind, or nothing.
    pub fn base_url(&self) -> &str {
        let url = self.public_url.as_ref().map_or("", Url::as_str);
        url.trim_end_matches('/')
    }

    /// The certificate of the admin listener, if it has one. On this machine alone probes and agents go without.
    pub fn admin_tls(&self) -> Option<&ServeTls> {
        self.tls
            .as_ref()
            .filter(|_| !self.admin_listen.ip().is_loopback())
    }

    /// What stands before every path: empty, or with a slash in front and none behind.
    pub fn base_path(&self) -> &str {
        let path = self.public_url.as_ref().map_or("", Url::path);
        path.trim_end_matches('/')
    }
}

impl ServeLimits {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        connections: 4096,
        requests_at_once: 1024,
        bytes_at_once: 256 * 1024 * 1024,
        header_bytes_max: 32 * 1024,
    };
}

impl ServeTimeouts {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        header: Duration::from_secs(10),
        read: Duration::from_secs(30),
        request: Duration::from_secs(5 * 60),
        idle: Duration::from_secs(60),
    };
}

impl Issuer {
    /// What [`Issuer::lifetime_max`] is unless the file says otherwise.
    pub const LIFETIME_MAX_DEFAULT: Duration = Duration::from_secs(60 * 60);
    /// What [`Issuer::skew`] is unless the file says otherwise, and the most it can be.
    pub const SKEW_MAX: Duration = Duration::from_secs(60);
    /// What [`Issuer::keys_ttl`] is unless the file says otherwise.
    pub const KEYS_TTL_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
    /// What [`Issuer::algorithms`] is unless the file says otherwise.
    pub const ALGORITHMS_DEFAULT: [SigningAlgorithm; 4] = [
        SigningAlgorithm::Rs256,
        SigningAlgorithm::Ps256,
        SigningAlgorithm::Es256,
        SigningAlgorithm::EdDsa,
    ];
}

impl SigningAlgorithm {
    /// Every one, with its name in RFC 7518 and RFC 8037.
    pub const ALL: [(&'static str, Self); 9] = [
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("EdDSA", Self::EdDsa),
    ];

    /// Its name in `alg`.
    pub fn as_str(self) -> &'static str {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(name, algorithm)| (algorithm == self).then_some(name))
            .unwrap_or_default()
    }
}
