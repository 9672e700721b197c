//! Fetches the public documents of an issuer: small, quickly or not at all.

use std::time::Duration;

use reqwest::{Client, StatusCode, redirect::Policy};
use serde::Deserialize;
use url::Url;

use crate::{
    config::serve::Issuer,
    error::{Error, ErrorKind, Result},
    receive::producer::keys::KeySet,
};

/// Largest document, in bytes. Those of large providers have about 20 KiB.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For a whole document. Somebody waits for it with a request.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);

/// Sent as `User-Agent`.
const USER_AGENT: &str = concat!("landfall/", env!("CARGO_PKG_VERSION"));

/// Where the document that names everything else is, below the issuer (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Fetches documents. Asks no proxy and follows no redirect: whoever could send one elsewhere could send keys of their own.
#[derive(Clone, Debug)]
pub struct Fetcher(Client);

impl Fetcher {
    /// A fetcher for `issuers`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the machine has no certificates to trust and an issuer needs them.
    pub fn new(issuers: &[Issuer]) -> Result<Self> {
        let mut urls = issuers
            .iter()
            .flat_map(|issuer| [Some(&issuer.issuer), issuer.keys_url.as_ref()]);
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_max_idle_per_host(1);
        let plain = urls.all(|url| url.is_none_or(|url| url.scheme() == "http"));
        // Without TLS a machine that trusts nobody may still ask itself.
        let builder = if plain {
            builder.tls_certs_only([])
        } else {
            builder
        };
        let client = builder.build().map_err(|source| {
            Error::new(ErrorKind::Unavailable, "prepare to ask issuers for their keys").caused_by(source)
        })?;
        Ok(Self(client))
    }

    /// The keys of `issuer`, found by its discovery document unless the project says where they are.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they cannot be had, [`ErrorKind::Refused`] if the document is that of another issuer
    /// or leads to where nobody vouches for what is read.
    pub async fn keys(&self, issuer: &Issuer) -> Result<KeySet> {
        let url = match &issuer.keys_url {
            Some(url) => url.clone(),
            None => self.discover(issuer).await?,
        };
        KeySet::parse(&self.document(&url).await?)
    }

    async fn discover(&self, issuer: &Issuer) -> Result<Url> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let refused = |problem| {
            Error::new(ErrorKind::Refused, "read discovery document")
                .with("issuer", &issuer.issuer)
                .with("problem", problem)
        };
        let text = format!("{}{DISCOVERY}", issuer.issuer.as_str().trim_end_matches('/'));
        let url = Url::parse(&text).map_err(|_| refused("the issuer has no place for it"))?;
        let discovery: Discovery = serde_json::from_slice(&self.document(&url).await?)
            .map_err(|_| refused("not a discovery document"))?;
        // Section 4.3: to the letter, or it is somebody else's.
        if discovery.issuer != issuer.issuer_text {
            return Err(refused("it names another issuer"));
        }
        let keys = Url::parse(&discovery.jwks_uri).map_err(|_| refused("jwks_uri is not a URL"))?;
        // An issuer on this machine may stay on it; any other is held to https.
        let vouched = keys.scheme() == "https"
            || keys.scheme() == "http"
                && issuer.issuer.scheme() == "http"
                && keys.host() == issuer.issuer.host();
        if vouched {
            Ok(keys)
        } else {
            Err(refused("jwks_uri is not https"))
        }
    }

    async fn document(&self, url: &Url) -> Result<Vec<u8>> {
        let failed = || Error::new(ErrorKind::Unavailable, "ask issuer").with("url", url);
        let mut response = self
            .0
            .get(url.clone())
            .header("accept", "application/json")
            .send()
            .await
            .map_err(|source| failed().caused_by(source.without_url()))?;
        if response.status() != StatusCode::OK {
            return Err(failed().with("status", response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        // Ends with the body, or with the first part too much.
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|source| failed().caused_by(source.without_url()))?
        {
            if bytes.len() + part.len() > DOCUMENT_BYTES_MAX {
                let error = Error::new(ErrorKind::Limit, "read document of the issuer").with("url", url);
                return Err(error.with("document_bytes_max", DOCUMENT_BYTES_MAX));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }
}
