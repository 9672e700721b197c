//! How requests prove who sends them, without what proves it.

use crate::config::{
    auth::{Auth, ClientAuth, Credential, Grant, Jwt, OAuth2, Session, SessionToken, TokenEncoding},
    explain::{
        lines::{Lines, list, names, show_slot, show_text},
        stream::explain_request,
    },
    read::values::show_duration,
};

/// Adds `auth` under `name`: its kind on one line, and what belongs to it on others below.
pub(super) fn explain_auth(lines: &mut Lines, name: &str, auth: &Auth) {
    match auth {
        Auth::None => lines.set(name, "none"),
        Auth::ApiKeyHeader { name: header, value } => {
            lines.set(name, format!("api_key in header {header}: {value}"));
        }
        Auth::ApiKeyQuery { name: param, value } => {
            lines.set(name, format!("api_key in parameter {param}: {value}"));
        }
        Auth::ApiKeyBody { field, value } => {
            lines.set(
                name,
                format!("api_key in body field {}: {value}", field.join(".")),
            );
        }
        Auth::Basic { username, password } => lines.set(name, format!("basic {username}:{password}")),
        Auth::Bearer { scheme, token } => lines.set(name, format!("bearer, {scheme} {token}")),
        Auth::OAuth2(oauth2) => {
            lines.set(name, grant(&oauth2.grant));
            lines.within(name, |lines| explain_oauth2(lines, oauth2));
        }
        Auth::Jwt { jwt, send } => {
            lines.set(name, "jwt");
            lines.within(name, |lines| {
                explain_jwt(lines, jwt);
                explain_send(lines, send);
            });
        }
        Auth::Session(session) => {
            lines.set(name, "session");
            lines.within(name, |lines| explain_session(lines, session));
        }
        Auth::Select { by, among } => {
            lines.set(name, format!("selected by {}", show_text(by)));
            for (choice, auth) in among {
                lines.within(name, |lines| explain_auth(lines, choice, auth));
            }
        }
        Auth::Pool(members) => {
            lines.set(name, format!("pool of {}", members.len()));
            for (number, member) in (1..).zip(members) {
                lines.within(name, |lines| explain_auth(lines, &format!("{number}"), member));
            }
        }
    }
}

fn grant(grant: &Grant) -> &'static str {
    match grant {
        Grant::ClientCredentials => "oauth2_client_credentials",
        Grant::RefreshToken(_) => "oauth2_refresh_token",
        Grant::Password { .. } => "oauth2_password",
        Grant::JwtBearer(_) => "oauth2_jwt_bearer",
    }
}

fn explain_oauth2(lines: &mut Lines, oauth2: &OAuth2) {
    lines.set("token_url", &oauth2.token_url);
    lines.optional("client_id", oauth2.client_id.as_ref());
    lines.optional("client_secret", oauth2.client_secret.as_ref());
    let client_auth = match oauth2.client_auth {
        ClientAuth::Body => "body",
        ClientAuth::Basic => "basic",
    };
    lines.choose("client_auth", client_auth, oauth2.client_auth == ClientAuth::Body);
    match &oauth2.grant {
        Grant::ClientCredentials => {}
        Grant::RefreshToken(token) => lines.set("refresh_token", token),
        Grant::Password { username, password } => {
            lines.set("username", username);
            lines.set("password", password);
        }
        Grant::JwtBearer(jwt) => lines.within("assertion", |lines| explain_jwt(lines, jwt)),
    }
    lines.choose("scopes", list(&oauth2.scopes), oauth2.scopes.is_empty());
    lines.choose("params", names(&oauth2.params), oauth2.params.is_empty());
    for (name, written) in &oauth2.names {
        lines.set(&format!("names.{name}"), written);
    }
    lines.choose("headers", names(&oauth2.headers), oauth2.headers.is_empty());
    let encoding = match oauth2.encoding {
        TokenEncoding::Form => "form",
        TokenEncoding::Json => "json",
        TokenEncoding::Query => "query",
    };
    lines.choose("encoding", encoding, oauth2.encoding == TokenEncoding::Form);
    for (name, path, default) in [
        ("access_token_path", &oauth2.access_token, "$.access_token"),
        ("expires_path", &oauth2.expires, "$.expires_in"),
        ("refresh_token_path", &oauth2.refresh_token, "$.refresh_token"),
    ] {
        lines.value(name, path.to_string(), default.to_owned());
    }
    lines.wait(
        "lifetime_default",
        oauth2.lifetime_default,
        OAuth2::LIFETIME_DEFAULT,
    );
    lines.wait(
        "refresh_early",
        oauth2.refresh_early,
        OAuth2::REFRESH_EARLY_DEFAULT,
    );
    explain_send(lines, &oauth2.send);
}

fn explain_jwt(lines: &mut Lines, jwt: &Jwt) {
    lines.set("algorithm", &jwt.algorithm);
    lines.set("key", &jwt.key);
    lines.value("key_base64", jwt.key_base64, false);
    lines.choose("jwt_headers", names(&jwt.headers), jwt.headers.is_empty());
    lines.choose("claims", names(&jwt.claims), jwt.claims.is_empty());
    lines.wait("lifetime", jwt.lifetime, Jwt::LIFETIME_DEFAULT);
}

fn explain_session(lines: &mut Lines, session: &Session) {
    lines.within("login", |lines| explain_request(lines, &session.login));
    if !matches!(session.login_auth, Auth::None) {
        explain_auth(lines, "login_auth", &session.login_auth);
    }
    let token = match &session.token {
        SessionToken::Body(path) => path.to_string(),
        SessionToken::Header(name) => format!("header:{name}"),
        SessionToken::Cookie(name) => format!("cookie:{name}"),
    };
    lines.set("token", token);
    lines.optional("lifetime", session.lifetime.map(show_duration));
    explain_send(lines, &session.send);
}

fn explain_send(lines: &mut Lines, send: &Credential) {
    let text = match send.scheme.as_str() {
        "" => format!("to {}", show_slot(&send.to)),
        scheme => format!("{scheme} TOKEN to {}", show_slot(&send.to)),
    };
    lines.choose("send", text, *send == Credential::bearer());
}
