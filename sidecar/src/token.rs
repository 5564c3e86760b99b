//! The claims of a token: of a JWT-SVID, of one of tokenscope's issuer, or of one for a third party that AWS signed. Nothing is verified:
//! the agent is trusted by its socket, the issuer and AWS by their certificates, and the recipient verifies the token.
//!
//! Two parts are decoded from base64 and read by serde_json. A library for JWTs would do so too and verify besides; what it would add to
//! the program was not measured.
//!
//! What is wrong with a token is said here in words that fit each source. What to do about it differs, and is said by the errors of the source.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;

/// The longest token that is taken, in bytes: AssumeRoleWithWebIdentity takes 20,000 characters.
const LONGEST: usize = 20_000;

/// The algorithms of a JWT-SVID (SPIFFE JWT-SVID, section 2.1). Those with which tokenscope's issuer and AWS sign are among them.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];

/// A token. Its text is a secret, and never part of `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: Box<str>,
    /// The key that signed it.
    pub key_id: Option<Box<str>>,
    /// The SPIFFE ID, what the issuer's policy says, or what AWS says of the role.
    pub subject: Box<str>,
    /// The audiences.
    pub audiences: Vec<Box<str>>,
    /// The time of its signature, if it says so.
    pub issued_at: Option<Timestamp>,
    /// The time from which nobody takes it.
    pub expires_at: Timestamp,
}

impl Token {
    /// Reads header and claims of a JWS in compact form.
    ///
    /// Fails where the SPIFFE JWT-SVID standard has a validator refuse, signature apart: without `sub`, `aud` or `exp`, or
    /// with another algorithm than it allows. Fails without `iss` too, which the standard leaves open and AWS does not; AWS and tokenscope's issuer
    /// always write it.
    pub fn parse(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > LONGEST {
            return Err(InvalidToken::TooLong { length: text.len() });
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidToken::Shape);
        };
        if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(InvalidToken::Part("signature"));
        }
        let header = object(header).ok_or(InvalidToken::Part("header"))?;
        let claims = object(claims).ok_or(InvalidToken::Part("claims"))?;

        if !header["alg"].as_str().is_some_and(|name| ALGORITHMS.contains(&name)) {
            return Err(InvalidToken::Algorithm);
        }
        let subject = claims["sub"].as_str().filter(|subject| !subject.is_empty());
        let audiences: Vec<Box<str>> = match &claims["aud"] {
            Value::String(audience) => vec![audience.as_str().into()],
            Value::Array(audiences) => audiences.iter().filter_map(Value::as_str).map(Into::into).collect(),
            _ => Vec::new(),
        };
        if audiences.is_empty() {
            return Err(InvalidToken::Claim("aud"));
        }
        if claims["iss"].as_str().is_none_or(str::is_empty) {
            return Err(InvalidToken::Issuer);
        }
        let issued_at = match &claims["iat"] {
            Value::Null => None,
            date => Some(numeric_date(date).ok_or(InvalidToken::Claim("iat"))?),
        };
        Ok(Self {
            text: text.into(),
            key_id: header["kid"].as_str().map(Into::into),
            subject: subject.ok_or(InvalidToken::Claim("sub"))?.into(),
            audiences,
            issued_at,
            expires_at: numeric_date(&claims["exp"]).ok_or(InvalidToken::Claim("exp"))?,
        })
    }

    /// The token itself, to be written to its file and nowhere else.
    pub fn secret(&self) -> &str {
        &self.text
    }

    /// The trust domain's SPIFFE ID, under which its keys are published.
    pub fn trust_domain_id(&self) -> &str {
        let scheme = self.subject.find("://").map_or(0, |at| at + 3);
        let end = self.subject[scheme..]
            .find('/')
            .map_or(self.subject.len(), |at| scheme + at);
        &self.subject[..end]
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Token")
            .field("subject", &self.subject)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The reason why a text is no token. It never holds any part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// AWS would not take it, and nobody is known who writes such a one.
    #[error("it has {length} bytes, and at most {LONGEST} are taken")]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Not three parts.
    #[error("it is no JWS in compact form: that has three parts with dots between")]
    Shape,
    /// A part is not what it should be.
    #[error("its {0} can't be decoded")]
    Part(&'static str),
    /// None, or one by which whoever the token is for can't know who signed it.
    #[error("its alg is none of {}", ALGORITHMS.join(", "))]
    Algorithm,
    /// Nobody is named as its issuer, so whoever the token is for can't find the keys.
    #[error("it has no claim iss")]
    Issuer,
    /// Missing, or of another type.
    #[error("its claim {0} is missing or can't be read")]
    Claim(&'static str),
}

fn object(part: &str) -> Option<Value> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

/// Seconds since 1970, whole or not (RFC 7519, section 2).
fn numeric_date(value: &Value) -> Option<Timestamp> {
    Timestamp::from_second(value.as_f64()?.floor() as i64).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A token with these claims, and a signature that nobody made.
    pub(crate) fn token_with(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!(
            "{}.{}.{}",
            part(header),
            part(claims),
            URL_SAFE_NO_PAD.encode("signature")
        )
    }

    /// A usual token.
    pub(crate) fn token(key_id: &str, issued_at: i64, expires_at: i64) -> Token {
        let text = token_with(
            &json!({"alg": "ES256", "kid": key_id, "typ": "JWT"}),
            &json!({"iss": "https://issuer.example.org", "sub": "spiffe://example.org/app", "aud": ["sts.amazonaws.com"], "iat": issued_at, "exp": expires_at}),
        );
        Token::parse(&text).unwrap()
    }

    #[test]
    fn a_token_of_spire_is_read() {
        let token = token("k1", 1_700_000_000, 1_700_000_300);

        assert_eq!(token.key_id.as_deref(), Some("k1"));
        assert_eq!(&*token.subject, "spiffe://example.org/app");
        assert_eq!(token.trust_domain_id(), "spiffe://example.org");
        assert_eq!(token.audiences, ["sts.amazonaws.com".into()]);
        assert_eq!(token.issued_at.unwrap().as_second(), 1_700_000_000);
        assert_eq!(token.expires_at.as_second(), 1_700_000_300);
    }

    #[test]
    fn one_audience_may_stand_alone_and_dates_may_have_fractions_and_exponents() {
        let text = token_with(
            &json!({"alg": "RS256"}),
            &json!({"iss": "https://a", "sub": "spiffe://a/b", "aud": "x", "iat": 1.7e9, "exp": 1_700_000_300.9}),
        );
        let token = Token::parse(&text).unwrap();

        assert_eq!(token.audiences, ["x".into()]);
        assert_eq!(token.issued_at.unwrap().as_second(), 1_700_000_000);
        assert_eq!(token.expires_at.as_second(), 1_700_000_300);
        assert_eq!(token.key_id, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let header = json!({"alg": "ES256"});
        let claims = json!({"iss": "https://a", "sub": "spiffe://a/b", "aud": ["x"], "exp": 1});
        let without = |name: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().unwrap().remove(name);
            Token::parse(&token_with(&header, &claims)).unwrap_err()
        };
        assert_eq!(without("sub"), InvalidToken::Claim("sub"));
        assert_eq!(without("aud"), InvalidToken::Claim("aud"));
        assert_eq!(without("exp"), InvalidToken::Claim("exp"));

        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            Token::parse(&token_with(&header, &claims)).map(|_| ())
        };
        assert_eq!(with("iat", json!("now")), Err(InvalidToken::Claim("iat")));
        assert_eq!(with("exp", json!(1e300)), Err(InvalidToken::Claim("exp")));
        assert_eq!(with("aud", json!([])), Err(InvalidToken::Claim("aud")));
        assert_eq!(with("sub", json!("")), Err(InvalidToken::Claim("sub")));
    }

    /// SPIRE signs such tokens where its `jwt_issuer` is not set, and AWS refuses them.
    #[test]
    fn a_token_that_names_no_issuer_is_refused() {
        for issuer in [json!(null), json!(""), json!(1), json!(["https://a"])] {
            let claims = json!({"iss": issuer, "sub": "spiffe://a/b", "aud": ["x"], "exp": 1});
            let text = token_with(&json!({"alg": "ES256"}), &claims);
            assert_eq!(Token::parse(&text), Err(InvalidToken::Issuer), "{claims}");
        }
    }

    #[test]
    fn unsigned_tokens_and_those_with_a_shared_secret_are_refused() {
        let claims = json!({"iss": "https://a", "sub": "spiffe://a/b", "aud": ["x"], "exp": 1});
        for algorithm in ["none", "HS256", ""] {
            let text = token_with(&json!({"alg": algorithm}), &claims);
            assert_eq!(Token::parse(&text), Err(InvalidToken::Algorithm), "{algorithm}");
        }
        assert_eq!(Token::parse("a.b"), Err(InvalidToken::Shape));
        assert_eq!(Token::parse("a.b.c.d"), Err(InvalidToken::Shape));
        assert_eq!(Token::parse("e30.e30."), Err(InvalidToken::Part("signature")));
        assert_eq!(Token::parse("[].e30.AA"), Err(InvalidToken::Part("header")));
        let long = "a".repeat(LONGEST + 1);
        assert_eq!(Token::parse(&long), Err(InvalidToken::TooLong { length: LONGEST + 1 }));
    }

    /// A token of tokenscope's issuer or of AWS has the same readers.
    #[test]
    fn what_is_wrong_with_a_token_is_said_without_the_name_of_a_source() {
        let long = InvalidToken::TooLong { length: 20_001 };
        for why in [long, InvalidToken::Algorithm, InvalidToken::Issuer, InvalidToken::Shape] {
            let said = why.to_string();
            for source in ["SPIFFE", "SPIRE", "SVID", "AWS"] {
                assert!(!said.contains(source), "{said}");
            }
        }
        assert_eq!(long.to_string(), "it has 20001 bytes, and at most 20000 are taken");
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let token = token("k1", 1, 2);
        let shown = format!("{token:?}");

        assert!(shown.contains("spiffe://example.org/app"), "{shown}");
        for part in token.secret().split('.') {
            assert!(!shown.contains(part), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = Token::parse(&text);
        }

        #[test]
        fn no_json_makes_it_panic(header in r#"\{("(alg|kid)":("ES256"|1|null|\[\]),?){0,2}\}"#, claims in r#"\{("(sub|aud|exp|iat)":("a"|-?[0-9]{1,25}|1e400|null|\[1,"a"\]|\{\}),?){0,4}\}"#) {
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let _ = Token::parse(&format!("{}.{}.AA", part(&header), part(&claims)));
        }
    }
}
