//! How requests prove who sends them: the settings.

use std::{path::PathBuf, time::Duration};

use url::Url;

use crate::{
    config::{
        request::{Request, TokenSlot},
        secret::Secret,
        text::Text,
    },
    json::JsonPath,
};

/// How requests prove who sends them.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Not at all.
    None,
    /// A key in a header.
    ApiKeyHeader {
        /// The header.
        name: String,
        /// The key.
        value: Secret,
    },
    /// A key in the query string. It is masked wherever the URL is written down.
    ApiKeyQuery {
        /// The query parameter.
        name: String,
        /// The key.
        value: Secret,
    },
    /// A key in the JSON or form body.
    ApiKeyBody {
        /// The field, outermost name first.
        field: Vec<String>,
        /// The key.
        value: Secret,
    },
    /// RFC 7617.
    Basic {
        /// The user, or the key of APIs that leave the password empty.
        username: Secret,
        /// May be empty.
        password: Secret,
    },
    /// RFC 6750; some APIs want another word than `Bearer`.
    Bearer {
        /// The word before the token.
        scheme: String,
        /// The token.
        token: Secret,
    },
    /// RFC 6749: an access token fetched from a token endpoint and renewed before it expires.
    OAuth2(Box<OAuth2>),
    /// A token signed here (RFC 7519), sent as it is.
    Jwt {
        /// What is signed, and how.
        jwt: Box<Jwt>,
        /// Where it is sent.
        send: Credential,
    },
    /// A token fetched by a login request.
    Session(Box<Session>),
    /// One of several, chosen by a value of `config`.
    Select {
        /// Renders to one of the names.
        by: Text,
        /// The choices by name; at least one.
        among: Vec<(String, Auth)>,
    },
    /// Several credentials used side by side, each within its own budget. Some providers forbid it.
    Pool(Vec<Auth>),
}

/// Where a fetched or signed token is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The place in the request; by default the header `authorization`.
    pub to: TokenSlot,
    /// The word before the token, by default `Bearer`; empty for none.
    pub scheme: String,
}

/// The settings of RFC 6749 grants.
#[derive(Clone, Debug)]
pub struct OAuth2 {
    /// What the token is asked for with.
    pub grant: Grant,
    /// The token endpoint. May be of another origin than the API.
    pub token_url: Url,
    /// The client id; absent for a JWT bearer grant without client authentication.
    pub client_id: Option<Secret>,
    /// The client secret.
    pub client_secret: Option<Secret>,
    /// How the client proves itself.
    pub client_auth: ClientAuth,
    /// Asked for, joined with spaces; empty asks for none.
    pub scopes: Vec<String>,
    /// Further fields, such as `audience`. One named like a field of the grant replaces it.
    pub params: Vec<(String, Secret)>,
    /// Names of the grant's fields that the endpoint wants spelled in another way: `client_id` as `clientId`.
    pub names: Vec<(String, String)>,
    /// Further headers of the token request.
    pub headers: Vec<(String, Secret)>,
    /// Whether the token request is a form or JSON.
    pub encoding: TokenEncoding,
    /// Where the answer holds the access token. Default `$.access_token`.
    pub access_token: JsonPath,
    /// Where the answer holds the lifetime in seconds or the moment of expiry. Default `$.expires_in`.
    pub expires: JsonPath,
    /// Where the answer holds a new refresh token. Default `$.refresh_token`.
    pub refresh_token: JsonPath,
    /// Lifetime of a token whose answer says none or an odd one. Default 5 min.
    pub lifetime_default: Duration,
    /// A token is renewed this long before it expires, but never in the first half of its life. Default 60 s.
    pub refresh_early: Duration,
    /// Where the access token is sent.
    pub send: Credential,
}

/// What an access token is asked for with.
#[derive(Clone, Debug)]
pub enum Grant {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 6. A rotated token is kept durably in [`Project::credentials_dir`](crate::config::Project::credentials_dir).
    RefreshToken(Secret),
    /// RFC 6749 section 4.3.
    Password {
        /// The user.
        username: Secret,
        /// The password.
        password: Secret,
    },
    /// RFC 7523: a signed assertion.
    JwtBearer(Box<Jwt>),
}

/// How an OAuth 2 client proves itself at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_id` and `client_secret` as fields of the body. The default.
    Body,
    /// HTTP Basic.
    Basic,
}

/// How the fields of a token request are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEncoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 has it. The default.
    Form,
    /// A JSON object.
    Json,
    /// Parameters of the URL, without a body. Servers and proxies write URLs down.
    Query,
}

/// A token signed here (RFC 7519).
#[derive(Clone, Debug)]
pub struct Jwt {
    /// `HS256`, `HS384`, `HS512`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384` or `EdDSA`.
    pub algorithm: String,
    /// The secret of HS algorithms, else a private key in PEM.
    pub key: Secret,
    /// Whether `key` is written in base64.
    pub key_base64: bool,
    /// `kid`, `typ`, `cty` and others for the token's header.
    pub headers: Vec<(String, Text)>,
    /// `iss`, `sub`, `aud` and others; `iat`, `nbf` and `exp` are set by us. `{{ jwt.id }}` is new in each token.
    pub claims: Vec<(String, Text)>,
    /// From issue to expiry. Default 20 min.
    pub lifetime: Duration,
}

/// A token fetched by a login request.
#[derive(Clone, Debug)]
pub struct Session {
    /// The login; its path is joined to the base URL.
    pub login: Request,
    /// Credentials of the login request itself; basic, API key or bearer.
    pub login_auth: Auth,
    /// Where the answer holds the token.
    pub token: SessionToken,
    /// How long a token is good for; none: until it is refused.
    pub lifetime: Option<Duration>,
    /// Where it is sent.
    pub send: Credential,
}

/// Where the answer of a login holds the token.
#[derive(Clone, Debug)]
pub enum SessionToken {
    /// In the JSON body.
    Body(JsonPath),
    /// In a response header, by lowercase name.
    Header(String),
    /// In a cookie of this name.
    Cookie(String),
}

/// TLS beyond the trust of the machine.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// A PEM file with the client's certificate chain and its private key (mTLS).
    pub client_cert: Option<PathBuf>,
    /// A PEM file with the private key, if it is not in `client_cert`.
    pub client_key: Option<PathBuf>,
    /// A PEM file of certificates trusted besides those of the machine.
    pub ca: Option<PathBuf>,
}

impl Credential {
    /// `Authorization: Bearer TOKEN`.
    pub fn bearer() -> Self {
        Self {
            to: TokenSlot::Header("authorization".to_owned()),
            scheme: "Bearer".to_owned(),
        }
    }
}
