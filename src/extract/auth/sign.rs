//! Tokens signed here (RFC 7519), sent as they are or as the assertion of a token request (RFC 7523).

use std::{str::FromStr as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    config::{
        auth::Jwt,
        text::{Text, Vars},
    },
    error::{Error, ErrorKind, Result},
    extract::auth::{
        lifetime::use_for,
        tokens::{Issued, Times},
    },
};

/// `iat` and `nbf` lie this far back: clocks differ, and a token from the future is refused.
const BACKDATED: Duration = Duration::from_secs(10);

/// A signed token is replaced this long before it expires.
const EARLY: Duration = Duration::from_secs(60);

/// Signs the tokens of one credential.
pub(super) struct SignIssuer {
    jwt: Jwt,
    algorithm: Algorithm,
    vars: Vars,
}

impl SignIssuer {
    /// `vars` holds `config`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an algorithm that is not known.
    pub(super) fn new(jwt: &Jwt, vars: Vars) -> Result<Self> {
        let algorithm = Algorithm::from_str(&jwt.algorithm).map_err(|cause| {
            Error::new(ErrorKind::Config, "read JWT algorithm")
                .with("algorithm", &jwt.algorithm)
                .caused_by(cause)
        })?;
        Ok(Self {
            jwt: jwt.clone(),
            algorithm,
            vars,
        })
    }

    /// A new token, good from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the key does not fit the algorithm, or a template or reference cannot be rendered.
    pub(super) fn issue(&self, now: Timestamp) -> Result<Issued> {
        let lifetime = self.jwt.lifetime.saturating_sub(BACKDATED);
        let times = Times {
            lifetime,
            used: use_for(lifetime, EARLY),
        };
        Ok(Issued {
            text: self.sign(now)?,
            times: Some(times),
            secrets: Vec::new(),
        })
    }

    /// A token that is good from `now` on, with `iat`, `nbf` and `exp`.
    ///
    /// # Errors
    /// Those of [`Self::issue`].
    pub(super) fn sign(&self, now: Timestamp) -> Result<String> {
        let vars = self
            .vars
            .clone()
            .with("jwt", &json!({"id": Uuid::now_v7().to_string()}));
        let mut header = rendered(&self.jwt.headers, &vars)?;
        header.entry("typ").or_insert_with(|| Value::from("JWT"));
        header.insert("alg".to_owned(), Value::from(self.jwt.algorithm.clone()));
        let header: Header = serde_json::from_value(Value::Object(header)).map_err(|_| {
            Error::new(ErrorKind::Config, "write JWT header")
                .with("problem", "a registered field has a value of another type")
                .with(
                    "hint",
                    "typ, cty, kid and the like are texts, crit and x5c lists of texts",
                )
        })?;
        let issued = (now - BACKDATED).timestamp();
        let lifetime = i64::try_from(self.jwt.lifetime.as_secs()).unwrap_or(i64::MAX);
        let mut claims = rendered(&self.jwt.claims, &vars)?;
        claims.insert("iat".to_owned(), Value::from(issued));
        claims.insert("nbf".to_owned(), Value::from(issued));
        claims.insert("exp".to_owned(), Value::from(issued.saturating_add(lifetime)));
        jsonwebtoken::encode(&header, &claims, &self.key()?).map_err(|cause| {
            self.unusable("the key does not fit the algorithm")
                .caused_by(cause)
        })
    }

    /// The digest of key, claims and header.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a reference cannot be read.
    pub(super) fn inputs(&self) -> Result<[u8; 32]> {
        let mut digest = Sha256::new();
        digest.update(self.jwt.key.reveal()?);
        for (_, text) in self.jwt.claims.iter().chain(&self.jwt.headers) {
            for value in text.reveal_references()? {
                digest.update([0]);
                digest.update(value);
            }
        }
        Ok(digest.finalize().into())
    }

    pub(super) fn forget(&self) {
        self.jwt.key.forget();
    }

    fn key(&self) -> Result<EncodingKey> {
        let mut key = self.jwt.key.reveal()?.into_bytes();
        if self.jwt.key_base64 {
            key.retain(|byte| !byte.is_ascii_whitespace());
            // The cause would show a byte of the key.
            key = STANDARD
                .decode(&key)
                .map_err(|_| self.unusable("the key is not base64"))?;
        }
        let family = self.algorithm.family();
        if family == AlgorithmFamily::Hmac {
            return Ok(EncodingKey::from_secret(&key));
        }
        let pem = one_line_pem(key);
        let read = match family {
            AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
            AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
            _ => EncodingKey::from_ed_pem(&pem),
        };
        read.map_err(|cause| {
            self.unusable("the key is not a private key of this algorithm in PEM, unencrypted")
                .caused_by(cause)
        })
    }

    fn unusable(&self, problem: &'static str) -> Error {
        Error::new(ErrorKind::Config, "sign JWT")
            .with("algorithm", &self.jwt.algorithm)
            .with("key", &self.jwt.key)
            .with("problem", problem)
    }
}

fn rendered(texts: &[(String, Text)], vars: &Vars) -> Result<Map<String, Value>> {
    let pairs = texts
        .iter()
        .map(|(name, text)| Ok((name.clone(), text.render_json(vars)?)));
    pairs.collect()
}

/// A PEM as it is; one whose line ends were written as `\n`, as environment variables often have it, with real ones.
fn one_line_pem(pem: Vec<u8>) -> Vec<u8> {
    if pem.contains(&b'\n') {
        return pem;
    }
    String::from_utf8_lossy(&pem).replace("\\n", "\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::config::{parse_timestamp, secret::Secret};

    /// PKCS #8 of the P-256 key in RFC 6979 appendix A.2.5.
    const EC_DER: &str = "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420\
        c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721a14403420004\
        60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
        7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    /// PKCS #8 of the Ed25519 key in RFC 8032 section 7.1, test 1.
    const ED_DER: &str = "302e020100300506032b657004220420\
        9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";

    fn pem(hex: &str) -> String {
        let der: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        let label = "PRIVATE KEY";
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            STANDARD.encode(der)
        )
    }

    fn now() -> Timestamp {
        parse_timestamp("2024-05-01T12:00:10Z").unwrap()
    }

    fn jwt(algorithm: &str, key: &str) -> Jwt {
        let text = |text: &str| Text::parse(text).unwrap();
        Jwt {
            algorithm: algorithm.to_owned(),
            key: Secret::literal(key),
            key_base64: false,
            headers: vec![("kid".to_owned(), text("{{ config.kid }}"))],
            claims: vec![
                ("iss".to_owned(), text("app-{{ config.app }}")),
                ("n".to_owned(), text("{{ config.app }}")),
                ("jti".to_owned(), text("{{ jwt.id }}")),
            ],
            lifetime: Duration::from_secs(1200),
        }
    }

    fn signer(jwt: &Jwt) -> SignIssuer {
        let vars = Vars::default().with("config", &json!({"app": 7, "kid": "k1"}));
        SignIssuer::new(jwt, vars).unwrap()
    }

    fn part(token: &str, number: usize) -> Value {
        let part = token.split('.').nth(number).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn r051_a_signed_token_holds_its_claims_and_times() {
        let signer = signer(&jwt("HS256", "s3cr3t"));
        let token = signer.sign(now()).unwrap();
        assert_eq!(
            part(&token, 0),
            json!({"typ": "JWT", "alg": "HS256", "kid": "k1"})
        );
        let claims = part(&token, 1);
        let issued = parse_timestamp("2024-05-01T12:00:00Z").unwrap().timestamp();
        assert_eq!(claims["iss"], "app-7");
        assert_eq!(claims["n"], 7);
        assert_eq!(claims["iat"], issued);
        assert_eq!(claims["nbf"], issued);
        assert_eq!(claims["exp"], issued + 1200);
        let another = part(&signer.sign(now()).unwrap(), 1);
        assert_ne!(claims["jti"], another["jti"]);
    }

    #[test]
    fn r051_a_key_in_base64_signs_the_same() {
        let mut encoded = jwt("HS256", "czNjcjN0");
        encoded.key_base64 = true;
        encoded.claims.pop();
        let mut plain = jwt("HS256", "s3cr3t");
        plain.claims.pop();
        let sign = |jwt| signer(jwt).sign(now()).unwrap();
        assert_eq!(sign(&encoded), sign(&plain));
    }

    #[test]
    fn r051_each_family_of_keys_signs() {
        for (algorithm, pem) in [("ES256", pem(EC_DER)), ("EdDSA", pem(ED_DER))] {
            let token = signer(&jwt(algorithm, &pem)).sign(now()).unwrap();
            assert_eq!(part(&token, 0)["alg"], algorithm);
            let one_line = pem.trim_end().replace('\n', "\\n");
            signer(&jwt(algorithm, &one_line)).sign(now()).unwrap();
        }
    }

    #[test]
    fn r054_a_key_that_does_not_fit_is_refused_unseen() {
        for algorithm in ["RS256", "PS512", "ES384", "EdDSA"] {
            let error = signer(&jwt(algorithm, "hunter2")).sign(now()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!error.chain().contains("hunter2"), "{error}");
        }
        let mut encoded = jwt("HS512", "not base64!");
        encoded.key_base64 = true;
        let error = signer(&encoded).sign(now()).unwrap_err();
        assert!(!error.chain().contains("not base64!"), "{error}");
        assert!(SignIssuer::new(&jwt("none", ""), Vars::default()).is_err());
    }
}
