//! TLS from PEM files that may be replaced while serving.
//!
//! TLS 1.2 and 1.3 only; HTTP/2 and HTTP/1.1 by ALPN; client certificates optional or required.

mod addresses;
pub mod identity;

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};
use sha2::{Digest as _, Sha256};

use self::identity::Identity;
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    serve::shutdown::Shutdown,
};

/// Largest PEM file read, in bytes. A revocation list is the largest of them.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Which files make up the TLS side of a listener.
///
/// To replace one, write a new file and rename it over the old one: a list that ends early between two certificates
/// cannot be told from a shorter list.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The server's certificate and its intermediates, leaf first (PEM).
    pub certificates: PathBuf,
    /// The private key of the leaf (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub clients: Clients,
}

/// Whether clients show certificates.
#[derive(Clone, Debug)]
pub enum Clients {
    /// None are asked for.
    Anonymous,
    /// Asked for; a client without one is served without an identity, one with a bad one is refused.
    Optional(Authorities),
    /// Without a good certificate the handshake fails.
    Required(Authorities),
}

/// Who vouches for clients.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Certificates of the authorities (PEM).
    pub roots: PathBuf,
    /// Revocation lists (PEM), if any are kept. With lists, a client certificate whose issuer has none here is refused.
    /// A list past its next update still counts.
    pub revoked: Option<PathBuf>,
}

/// What a look at the files found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The same bytes as before.
    Unchanged,
    /// New bytes, and they are good: new connections use them.
    Swapped,
}

/// The TLS side of a listener: always a complete, working configuration.
pub struct Tls {
    options: TlsOptions,
    clock: Clock,
    current: RwLock<Arc<ServerConfig>>,
    /// Digest of the files looked at last, good or bad. Held while loading, so that loads never overlap.
    seen: Mutex<[u8; 32]>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `Config` naming the file if one cannot be read or parsed, or if the key is not the certificate's.
    pub fn open(options: TlsOptions, clock: Clock) -> Result<Self> {
        let files = Files::read(&options)?;
        let config = files.to_config(&options, &clock)?;
        Ok(Self {
            seen: Mutex::new(files.digest()),
            current: RwLock::new(Arc::new(config)),
            options,
            clock,
        })
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Who a client in this connection is, by the certificate the handshake verified; none if it showed none.
    pub(crate) fn identity(connection: &ServerConnection) -> Option<Identity> {
        connection.peer_certificates()?.first().and_then(Identity::of)
    }

    /// Looks at the files again and swaps them in if they are new and good together. Blocks on file reads.
    ///
    /// Connections that are open keep what they have. Tickets given before the swap are worth nothing after it, so a
    /// client that was revoked cannot resume.
    ///
    /// # Errors
    /// As [`Tls::open`]; then the old configuration stays. The same bad bytes are reported once only, and are
    /// [`Reload::Unchanged`] after that.
    pub fn reload(&self) -> Result<Reload> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&self.options)?;
        let digest = files.digest();
        if digest == *seen {
            return Ok(Reload::Unchanged);
        }
        *seen = digest;
        let config = Arc::new(files.to_config(&self.options, &self.clock)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(Reload::Swapped)
    }

    /// Looks at the files `every` so often until the shutdown. What it finds is logged; nothing bad is ever used.
    pub async fn watch(self: Arc<Self>, every: Duration, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.stopping() => return,
                () = tokio::time::sleep(every) => {}
            }
            let tls = self.clone();
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(Reload::Unchanged)) => {}
                Ok(Ok(Reload::Swapped)) => {
                    tracing::info!(certificates = %self.options.certificates.display(), "TLS files reloaded");
                }
                Ok(Err(error)) => {
                    tracing::error!(error = %error.chain(), "TLS files not reloaded, the old ones stay in use");
                }
                Err(panic) => tracing::error!(error = %panic, "TLS files not reloaded"),
            }
        }
    }
}

/// The bytes of all files, read in one go.
struct Files {
    certificates: Vec<u8>,
    key: Vec<u8>,
    roots: Vec<u8>,
    revoked: Vec<u8>,
}

impl Files {
    fn read(options: &TlsOptions) -> Result<Self> {
        let authorities = match &options.clients {
            Clients::Anonymous => None,
            Clients::Optional(authorities) | Clients::Required(authorities) => Some(authorities),
        };
        let revoked = authorities.and_then(|authorities| authorities.revoked.as_deref());
        Ok(Self {
            certificates: read(&options.certificates)?,
            key: read(&options.key)?,
            roots: authorities.map_or(Ok(Vec::new()), |authorities| read(&authorities.roots))?,
            revoked: revoked.map_or(Ok(Vec::new()), read)?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for file in [&self.certificates, &self.key, &self.roots, &self.revoked] {
            digest.update((file.len() as u64).to_le_bytes());
            digest.update(file);
        }
        digest.finalize().into()
    }

    fn to_config(&self, options: &TlsOptions, clock: &Clock) -> Result<ServerConfig> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = self.to_certified_key(options, &provider)?;
        let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(Now(clock.clone())))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|source| Error::new(ErrorKind::Internal, "choose TLS versions").caused_by(source))?;
        let builder = match &options.clients {
            Clients::Anonymous => builder.with_no_client_auth(),
            Clients::Optional(authorities) => {
                builder.with_client_cert_verifier(self.to_verifier(authorities, Absent::Served, provider)?)
            }
            Clients::Required(authorities) => {
                builder.with_client_cert_verifier(self.to_verifier(authorities, Absent::Refused, provider)?)
            }
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn to_certified_key(&self, options: &TlsOptions, provider: &CryptoProvider) -> Result<CertifiedKey> {
        let chain: Vec<CertificateDer<'static>> = all(&self.certificates, &options.certificates)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| broken(&options.key).caused_by(source))?;
        // Fails for a key that does not belong to the leaf: between two renames the files are of two generations.
        CertifiedKey::from_der(chain, key, provider).map_err(|source| {
            Error::new(ErrorKind::Config, "use TLS certificate with its key")
                .with("certificates", options.certificates.display())
                .with("key", options.key.display())
                .caused_by(source)
        })
    }

    fn to_verifier(
        &self,
        authorities: &Authorities,
        absent: Absent,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>> {
        let mut roots = RootCertStore::empty();
        for root in all::<CertificateDer<'static>>(&self.roots, &authorities.roots)? {
            roots
                .add(root)
                .map_err(|source| broken(&authorities.roots).caused_by(source))?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        if let Some(path) = &authorities.revoked {
            let lists: Vec<CertificateRevocationListDer<'static>> = all(&self.revoked, path)?;
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        if absent == Absent::Served {
            builder = builder.allow_unauthenticated();
        }
        builder
            .build()
            .map_err(|source| broken(&authorities.roots).caused_by(source))
    }
}

/// What becomes of a client without a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Served,
    Refused,
}

/// Certificates are valid by the program's clock.
#[derive(Clone)]
struct Now(Clock);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| {
        Error::new(ErrorKind::Config, "read TLS file")
            .with("path", path.display())
            .caused_by(source)
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(broken(path).with("bytes_max", FILE_BYTES_MAX));
    }
    Ok(bytes)
}

/// Every PEM section of this kind, at least one.
fn all<T: PemObject>(bytes: &[u8], path: &Path) -> Result<Vec<T>> {
    let found: std::result::Result<Vec<T>, _> = T::pem_slice_iter(bytes).collect();
    let found = found.map_err(|source| broken(path).caused_by(source))?;
    if found.is_empty() {
        return Err(broken(path).with("hint", "it has no PEM section of the kind expected here"));
    }
    Ok(found)
}

fn broken(path: &Path) -> Error {
    Error::new(ErrorKind::Config, "parse TLS file").with("path", path.display())
}

#[cfg(test)]
pub(in crate::serve) mod tests;
