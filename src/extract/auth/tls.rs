//! Certificates of our own: a client certificate (mTLS) and further roots of trust.

use std::{fs, path::Path};

use reqwest::{Certificate, ClientBuilder, Identity};

use crate::{
    config::auth::Tls,
    error::{Error, ErrorKind, Result},
};

/// `builder` with the certificates of `tls`. Roots are trusted besides those of the machine.
///
/// The files are read now; a client built earlier keeps the certificates it has.
///
/// # Errors
/// [`ErrorKind::Config`] naming the file that cannot be read or holds no certificate or no key.
pub fn configure(builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder> {
    let mut configured = builder;
    if let Some(path) = &tls.client_cert {
        let mut pem = read(path)?;
        if let Some(key) = &tls.client_key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|cause| {
            unusable("read client certificate", path)
                .with(
                    "hint",
                    "the file holds the certificate chain and its unencrypted private key in PEM; name the key's \
                     own file in client_key",
                )
                .caused_by(cause)
        })?;
        configured = configured.identity(identity);
    }
    if let Some(path) = &tls.ca {
        let roots = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|cause| unusable("read trusted certificates", path).caused_by(cause))?;
        if roots.is_empty() {
            return Err(unusable("read trusted certificates", path)
                .with("problem", "no certificate in PEM is in the file"));
        }
        configured = configured.tls_certs_merge(roots);
    }
    Ok(configured)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|cause| unusable("read certificate file", path).caused_by(cause))
}

fn unusable(attempt: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Config, attempt).with("path", path.display())
}
