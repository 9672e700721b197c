//! `Authorization`: what is taken for a bearer token, a token of ours, a JWT.

use proptest::prelude::*;
use regex::bytes::Regex;

use super::{bearer, jwt::Unverified, token::RANDOM_BYTES, *};
use crate::fields::near::{each_long, near};

/// Of `alg` RS256, from the issuer `https://id.example`, signed by nobody.
const JWT: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUifQ.c2ln";

fn ours() -> String {
    Token::new([9; RANDOM_BYTES]).reveal().to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn f159_a_bearer_token_is_what_rfc_6750_says(
        value in near(&[&format!("Bearer {}", ours()), &format!("bearer  {JWT}"), "BEARER a+b/c-._~==", "Basic dTpw"]),
    ) {
        let grammar = Regex::new(r"^[ \t]*(?i-u:bearer) +(?-u:[A-Za-z0-9._~+/-]+=*)[ \t]*$").unwrap();
        match bearer(&[&value]) {
            Ok(Some(token)) => {
                prop_assert!(grammar.is_match(&value), "{:?}", value);
                let written = value.trim_ascii_end();
                prop_assert!(written.ends_with(token.as_bytes()) && written[..written.len() - token.len()].ends_with(b" "));
            }
            Ok(None) => prop_assert!(false, "there was a header"),
            Err(denied) => {
                prop_assert!(!grammar.is_match(&value), "{:?}", value);
                prop_assert_eq!(denied.denial, Denial::CredentialsMalformed);
            }
        }
        prop_assert!(bearer(&[&value, &value]).is_err());
    }

    #[test]
    fn f159_a_token_of_ours_is_itself_alone(value in near(&[&ours()])) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        if let Some(token) = Token::parse(text) {
            let grammar = Regex::new("^lfp_[0-9A-Za-z]{12}_[0-9A-Za-z]{50}$").unwrap();
            prop_assert!(token.reveal() == text && grammar.is_match(&value));
            // Four edits do not make another with a checksum that fits.
            prop_assert_eq!(text, ours());
        }
    }

    #[test]
    fn f114_the_three_parts_of_a_jwt_are_base64url(value in near(&[JWT])) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        if let Ok(token) = Unverified::read(text) {
            let grammar = Regex::new(r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[^.]*$").unwrap();
            prop_assert!(grammar.is_match(&value), "{}", text);
            prop_assert!(text != JWT || token.issuer == "https://id.example");
        }
    }
}

#[test]
fn f159_64_kib_of_authorization_are_nobody() {
    assert!(Unverified::read(JWT).is_ok());
    each_long(&["Bearer ", "a", ".", "=", " ", "\t", "lfp_", "eyJ9."], |value| {
        for value in [value.clone(), [b"Bearer ", &value[..]].concat()] {
            assert!(bearer(&[&value]).is_err());
            let text = str::from_utf8(&value).unwrap();
            assert!(Token::parse(text).is_none() && Unverified::read(text).is_err());
        }
    });
}
