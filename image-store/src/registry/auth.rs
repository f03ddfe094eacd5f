//! Credentials for a registry, and how a challenge (`WWW-Authenticate`, RFC 9110) is answered.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::transport::{self, Transport};

/// Validity of a token that states none, as the distribution project's specification says.
const DEFAULT_EXPIRY: u64 = 60;
const TOKEN_LIMIT: u64 = 1 << 20;

/// What a caller knows about itself at a registry. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For basic authentication, also at the token service.
    pub username: String,
    /// The password that goes with it.
    pub password: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token, sent to the registry as it is.
    pub registry_token: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.username.is_empty() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }

    /// A digest for comparing callers without keeping their secrets.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.username, &self.password, &self.identity_token, &self.registry_token] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case.
    pub scheme: String,
    /// Names in lower case.
    pub parameters: HashMap<String, String>,
}

/// What is sent with a request.
#[derive(Clone)]
pub enum Authorization {
    /// Username and password.
    Basic(String, String),
    /// A token, until it expires.
    Bearer(String, Option<Instant>),
}

impl Authorization {
    /// Whether it can still be sent.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        !matches!(self, Self::Bearer(_, Some(until)) if *until <= Instant::now())
    }
}

/// Parses the challenges of one header; what cannot be understood ends the list.
#[must_use]
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, after) = split_token(rest);
        if word.is_empty() {
            break;
        }
        let after = after.trim_start();
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let (value, after) = parameter_value(value.trim_start());
                challenge.parameters.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: HashMap::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    challenges
}

fn split_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Answers challenges: a bearer token from the service that they name, else basic authentication, else nothing.
pub(super) async fn answer(
    http: &Transport,
    challenges: &[Challenge],
    credentials: &Credentials,
    scope: &str,
    secure: bool,
) -> Result<Option<Authorization>, Error> {
    if let Some(bearer) =
        challenges.iter().find(|c| c.scheme == "bearer" && c.parameters.contains_key("realm"))
    {
        return token(http, bearer, credentials, scope, secure).await.map(Some);
    }
    let basic = challenges.iter().any(|c| c.scheme == "basic") && !credentials.username.is_empty();
    Ok(basic.then(|| Authorization::Basic(credentials.username.clone(), credentials.password.clone())))
}

async fn token(
    http: &Transport,
    challenge: &Challenge,
    credentials: &Credentials,
    scope: &str,
    secure: bool,
) -> Result<Authorization, Error> {
    let realm = challenge.parameters.get("realm").cloned().unwrap_or_default();
    let failed = |what: String| Error::Token { realm: super::error::without_query(&realm), what };
    let mut url = reqwest::Url::parse(&realm).map_err(|error| failed(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failed("not an HTTP address".into()));
    }
    // A registry reached over TLS must not have the password sent in the clear.
    if secure && url.scheme() == "http" && !credentials.is_empty() {
        return Err(failed("refused: the registry has TLS, its token service has not".into()));
    }
    let scope = challenge.parameters.get("scope").map_or(scope, String::as_str);
    let service = challenge.parameters.get("service").map_or("", String::as_str);
    let request = if credentials.identity_token.is_empty() {
        url.query_pairs_mut()
            .extend_pairs([("service", service), ("scope", scope)].iter().filter(|p| !p.1.is_empty()));
        let request = http.plain().get(url);
        match credentials.username.as_str() {
            "" => request,
            username => request.basic_auth(username, Some(&credentials.password)),
        }
    } else {
        let form = form(&[
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", "coracle"),
            ("scope", scope),
            ("refresh_token", &credentials.identity_token),
        ]);
        http.plain().post(url).header("content-type", "application/x-www-form-urlencoded").body(form)
    };
    let response = http.send(request, &realm).await?;
    if !response.status().is_success() {
        return Err(transport::status_error(&realm, response).await);
    }
    let body = http.body(response, &realm, TOKEN_LIMIT).await?;
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| failed("the answer holds no token".into()))?;
    // Used up a little early: it must still be valid when it arrives.
    let seconds = answer.expires_in.filter(|s| *s > 0).unwrap_or(DEFAULT_EXPIRY).clamp(10, 24 * 3600);
    Ok(Authorization::Bearer(token, Some(Instant::now() + Duration::from_secs(seconds * 9 / 10))))
}

fn form(pairs: &[(&str, &str)]) -> String {
    // The query encoding of URLs is that of forms.
    let mut url = reqwest::Url::parse("http://form/").ok();
    if let Some(url) = &mut url {
        url.query_pairs_mut().extend_pairs(pairs);
    }
    url.and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        let docker = parse_challenges(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull""#,
        );
        assert_eq!(docker[0].scheme, "bearer");
        assert_eq!(docker[0].parameters["scope"], "repository:library/nginx:pull");
        let both = parse_challenges(r#"Basic realm="a \"b\", c", Bearer realm=x,error="y""#);
        assert_eq!(both.len(), 2);
        assert_eq!(both[0].parameters["realm"], r#"a "b", c"#);
        assert_eq!(both[1].parameters["error"], "y");
        for odd in ["", ",,", "=", "Bearer realm=\"", "é", "Negotiate abc==", "a=b"] {
            let _ = parse_challenges(odd);
        }
        assert_eq!(parse_challenges("Basic")[0].scheme, "basic");
    }
}
