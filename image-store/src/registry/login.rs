//! Finds stored credentials: docker's `config.json`, the containers project's `auth.json`, and credential helpers.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Config, Error};
use crate::Credentials;
use crate::store::file;

const FILE_LIMIT: u64 = 4 << 20;
const HELPER_LIMIT: u64 = 1 << 20;
const HELPER_DEADLINE: Duration = Duration::from_secs(30);

#[derive(Deserialize, Default)]
struct LoginFile {
    #[serde(default)]
    auths: HashMap<String, LoginEntry>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: String,
}

#[derive(Deserialize, Default)]
struct LoginEntry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

enum Found {
    Here(Credentials),
    Helper(String),
}

/// The credentials that the files know for a repository at a host; empty ones when none does.
pub async fn look_up(config: &Config, host: &str, repository: &str) -> Result<Credentials, Error> {
    for path in &config.login_files {
        let Some(login) = load(path)? else { continue };
        let credentials = match find(&login, host, repository, path)? {
            Some(Found::Here(credentials)) => credentials,
            Some(Found::Helper(helper)) => ask_helper(&helper, &server_name(host)).await?,
            None => continue,
        };
        if !credentials.is_empty() {
            return Ok(credentials);
        }
    }
    Ok(Credentials::default())
}

fn load(path: &Path) -> Result<Option<LoginFile>, Error> {
    match file::read_bounded(path, FILE_LIMIT) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| Error::Config { path: path.to_owned(), what: error.to_string() }),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::Config { path: path.to_owned(), what: error.to_string() }),
    }
}

// The most specific entry wins: host/a/b, host/a, host; a helper for the host comes before stored passwords.
fn find(login: &LoginFile, host: &str, repository: &str, path: &Path) -> Result<Option<Found>, Error> {
    if let Some(helper) = login.helpers.get(host) {
        return Ok(Some(Found::Helper(helper.clone())));
    }
    let mut scope = format!("{host}/{repository}");
    loop {
        let entry = login.auths.iter().find(|(key, _)| same_place(key, &scope));
        if let Some((key, entry)) = entry {
            let credentials = stored(entry).ok_or_else(|| Error::Config {
                path: path.to_owned(),
                what: format!("the entry {key:?} does not decode"),
            })?;
            if !credentials.is_empty() {
                return Ok(Some(Found::Here(credentials)));
            }
        }
        match scope.rsplit_once('/') {
            Some((shorter, _)) => scope = shorter.to_owned(),
            None => break,
        }
    }
    Ok((!login.store.is_empty()).then(|| Found::Helper(login.store.clone())))
}

fn same_place(key: &str, scope: &str) -> bool {
    let bare = key.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    let canonical = |text: &str| match text {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    };
    canonical(bare) == canonical(scope)
}

fn stored(entry: &LoginEntry) -> Option<Credentials> {
    let mut credentials = Credentials {
        username: entry.username.clone(),
        password: entry.password.clone(),
        identity_token: entry.identity_token.clone(),
        registry_token: entry.registry_token.clone(),
    };
    if !entry.auth.is_empty() {
        (credentials.username, credentials.password) = decode_basic(&entry.auth)?;
    }
    Some(credentials)
}

/// Decodes the `auth` field of docker's configuration and of the CRI: base64 of `user:password`.
#[must_use]
pub fn decode_basic(auth: &str) -> Option<(String, String)> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

// Docker's helpers know Docker Hub by its oldest name.
fn server_name(host: &str) -> String {
    match host {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        other => other.to_owned(),
    }
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

async fn ask_helper(helper: &str, server: &str) -> Result<Credentials, Error> {
    let program = format!("docker-credential-{helper}");
    let failed = |what: String| Error::Helper { program: program.clone(), what };
    if helper.contains('/') {
        return Err(failed("a name is expected, not a path".into()));
    }
    let asked = tokio::time::timeout(HELPER_DEADLINE, run_helper(&program, server)).await;
    let (succeeded, output) = asked
        .map_err(|_| failed(format!("no answer for {} s", HELPER_DEADLINE.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&output);
    if !succeeded {
        // The protocol's words for "I know nothing": go on without.
        if text.contains("credentials not found") {
            return Ok(Credentials::default());
        }
        return Err(failed(text.trim().chars().take(200).collect()));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output).map_err(|error| failed(error.to_string()))?;
    Ok(match answer.username.as_str() {
        "<token>" => Credentials { identity_token: answer.secret, ..Credentials::default() },
        _ => Credentials { username: answer.username, password: answer.secret, ..Credentials::default() },
    })
}

async fn run_helper(program: &str, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(server.as_bytes()).await?;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_LIMIT).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?.success(), output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_entry_wins() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "dTpw"},
            "reg.example:5000": {"username": "wide", "password": "x"},
            "reg.example:5000/team": {"username": "team", "password": "x"}},
            "credHelpers": {"ecr.aws": "ecr-login"}}"#;
        let login: LoginFile = serde_json::from_str(text).unwrap();
        let user =
            |host: &str, repository: &str| match find(&login, host, repository, Path::new("/c")).unwrap() {
                Some(Found::Here(credentials)) => credentials.username,
                Some(Found::Helper(helper)) => format!("helper {helper}"),
                None => "none".into(),
            };
        assert_eq!(user("docker.io", "library/nginx"), "u");
        assert_eq!(user("reg.example:5000", "team/app"), "team");
        assert_eq!(user("reg.example:5000", "teams/app"), "wide");
        assert_eq!(user("ecr.aws", "x"), "helper ecr-login");
        assert_eq!(user("quay.io", "x"), "none");
        assert_eq!(decode_basic("dTpw"), Some(("u".into(), "p".into())));
        assert_eq!(decode_basic("???"), None);
    }
}
