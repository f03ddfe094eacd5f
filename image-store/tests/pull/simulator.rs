//! A registry on loopback that misbehaves as it is told: it stalls, resets, lies, limits, asks for tokens, redirects.
//!
//! Hand-written HTTP/1.1, one request a connection, so that it can break off at any byte.

use std::collections::{HashMap, HashSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use coracle_image_store::Digest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// How the registry misbehaves. Counters count down as the faults happen.
#[derive(Default)]
pub struct Faults {
    /// Break blob transfers off after so many bytes, that often.
    pub reset_blobs: (usize, u64),
    /// Stop sending blobs after so many bytes, and keep the connection, that often.
    pub stall_blobs: (usize, u64),
    /// Answer 429 with `Retry-After: 1`, that often.
    pub limit: usize,
    /// Answer 503, that often.
    pub unavailable: usize,
    /// Send blobs with their last byte changed.
    pub corrupt_blobs: bool,
    /// Send one byte more than the blob has.
    pub longer_blobs: bool,
    /// Say another Docker-Content-Digest than the manifest's.
    pub wrong_digest: bool,
    /// Send blobs at this many bytes a second over each connection.
    pub bytes_per_second: Option<u64>,
    /// Answer a Range with the whole blob.
    pub no_ranges: bool,
    /// Redirect blobs to this registry.
    pub redirect: Option<String>,
    /// Ask for a token, for this user and password where it is not empty.
    pub token: Option<(String, String)>,
    /// Ask for basic authentication.
    pub basic: Option<(String, String)>,
    /// Send manifests of this many bytes.
    pub huge_manifest: Option<usize>,
}

#[derive(Default)]
pub struct State {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifests: HashMap<String, (Vec<u8>, &'static str)>,
    pub faults: Faults,
    /// Requests as `METHOD path [range] [auth]`.
    pub log: Vec<String>,
    tokens: HashSet<String>,
}

#[derive(Clone)]
pub struct Registry {
    pub address: String,
    pub state: Arc<Mutex<State>>,
}

pub struct TestImage {
    pub tars: Vec<Vec<u8>>,
    pub manifest: Digest,
    pub id: Digest,
}

impl Registry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = Self { address, state: Arc::default() };
        let serving = registry.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = serving.clone();
                tokio::spawn(async move { registry.connection(stream).await });
            }
        });
        registry
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state.lock().unwrap().faults);
    }

    pub fn requests(&self, word: &str) -> Vec<String> {
        self.state.lock().unwrap().log.iter().filter(|line| line.contains(word)).cloned().collect()
    }

    /// Puts an image of gzip layers there, under `app:v1`.
    pub fn push(&self, sizes: &[usize]) -> TestImage {
        let tars: Vec<_> = sizes.iter().enumerate().map(|(i, size)| tar(i, *size)).collect();
        let config = serde_json::json!({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/f"]},
            "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|t| Digest::of(t)).collect::<Vec<_>>()}});
        let config = config.to_string().into_bytes();
        let mut state = self.state.lock().unwrap();
        let mut layers = Vec::new();
        for tar in &tars {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
            encoder.write_all(tar).unwrap();
            let blob = encoder.finish().unwrap();
            layers.push(serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(&blob), "size": blob.len()}));
            state.blobs.insert(Digest::of(&blob).to_string(), blob);
        }
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len()}});
        let manifest = manifest.to_string().into_bytes();
        let (id, digest) = (Digest::of(&config), Digest::of(&manifest));
        state.blobs.insert(id.to_string(), config);
        state.manifests.insert("v1".into(), (manifest.clone(), MANIFEST));
        state.manifests.insert(digest.to_string(), (manifest, MANIFEST));
        TestImage { tars, manifest: digest, id }
    }

    async fn connection(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let header = |name: &str| {
            let found = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
            found.map(|line| line[name.len() + 1..].trim().to_owned())
        };
        let (range, auth) = (header("range"), header("authorization"));
        let plan =
            self.state.lock().unwrap().answer(&self.address, &target, range.as_deref(), auth.as_deref());
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n",
            plan.status,
            plan.length.unwrap_or(plan.body.len()),
            plan.headers
        );
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        for piece in plan.body.chunks(64 << 10) {
            if let Some(pace) = plan.pace {
                // The pace is the behaviour that is simulated.
                tokio::time::sleep(std::time::Duration::from_secs_f64(piece.len() as f64 / pace as f64))
                    .await;
            }
            if stream.write_all(piece).await.is_err() {
                return;
            }
        }
        if plan.stall {
            let _ = stream.read_u8().await;
        }
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Default)]
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    length: Option<usize>,
    stall: bool,
    pace: Option<u64>,
}

fn plain(status: &'static str, headers: String) -> Answer {
    Answer { status, headers, ..Answer::default() }
}

impl State {
    fn answer(&mut self, address: &str, target: &str, range: Option<&str>, auth: Option<&str>) -> Answer {
        self.log.push(format!("{target} {} {}", range.unwrap_or("-"), auth.unwrap_or("-")));
        let path = target.split('?').next().unwrap_or_default();
        if path == "/token" {
            return self.token(auth);
        }
        if let Some(refusal) = self.refuse(address, auth) {
            return refusal;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/manifests/") { self.manifest(name) } else { self.blob(path, name, range) }
    }

    fn token(&mut self, auth: Option<&str>) -> Answer {
        let (user, password) = self.faults.token.clone().unwrap_or_default();
        if !user.is_empty() && auth != Some(&basic(&user, &password)) {
            return plain("401 Unauthorized", String::new());
        }
        let token = format!("t{}", self.tokens.len());
        self.tokens.insert(format!("Bearer {token}"));
        Answer {
            status: "200 OK",
            body: format!(r#"{{"token":"{token}"}}"#).into_bytes(),
            ..Answer::default()
        }
    }

    fn refuse(&mut self, address: &str, auth: Option<&str>) -> Option<Answer> {
        if self.faults.limit > 0 {
            self.faults.limit -= 1;
            return Some(plain("429 Too Many Requests", "retry-after: 1\r\n".into()));
        }
        if self.faults.unavailable > 0 {
            self.faults.unavailable -= 1;
            return Some(plain("503 Service Unavailable", String::new()));
        }
        if self.faults.token.is_some() && !auth.is_some_and(|auth| self.tokens.contains(auth)) {
            let challenge = format!(
                "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"sim\",scope=\"repository:app:pull\"\r\n"
            );
            return Some(plain("401 Unauthorized", challenge));
        }
        let (user, password) = self.faults.basic.as_ref()?;
        (auth != Some(&basic(user, password)))
            .then(|| plain("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n".into()))
    }

    fn manifest(&self, name: &str) -> Answer {
        if let Some(size) = self.faults.huge_manifest {
            return Answer { status: "200 OK", body: vec![b' '; size], ..Answer::default() };
        }
        let Some((body, media_type)) = self.manifests.get(name) else {
            return plain("404 Not Found", String::new());
        };
        let said = if self.faults.wrong_digest { Digest::of(b"another") } else { Digest::of(body) };
        let headers = format!("content-type: {media_type}\r\ndocker-content-digest: {said}\r\n");
        Answer { status: "200 OK", headers, body: body.clone(), ..Answer::default() }
    }

    fn blob(&mut self, path: &str, name: &str, range: Option<&str>) -> Answer {
        if let Some(other) = &self.faults.redirect {
            return plain(
                "307 Temporary Redirect",
                format!("location: http://{other}{path}?signature=s3cret\r\n"),
            );
        }
        let Some(whole) = self.blobs.get(name) else { return plain("404 Not Found", String::new()) };
        let mut whole = whole.clone();
        let is_layer = whole.starts_with(&[0x1f, 0x8b]);
        if self.faults.corrupt_blobs && is_layer {
            let middle = whole.len() / 2;
            whole[middle] ^= 1;
        }
        if self.faults.longer_blobs && is_layer {
            whole.push(0);
        }
        let range = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
        let range = range.filter(|_| !self.faults.no_ranges);
        let from = range.and_then(|(from, _)| from.parse::<usize>().ok());
        let last = range.and_then(|(_, last)| last.parse::<usize>().ok());
        let total = whole.len();
        whole.truncate(last.map_or(total, |last| last + 1));
        let end = whole.len();
        let mut body = whole.split_off(from.unwrap_or(0).min(end));
        let length = Some(body.len());
        let (status, headers) = match from {
            Some(from) => {
                ("206 Partial Content", format!("content-range: bytes {from}-{}/{total}\r\n", end - 1))
            }
            None => ("200 OK", String::new()),
        };
        let mut stall = false;
        if is_layer && self.faults.reset_blobs.0 > 0 {
            self.faults.reset_blobs.0 -= 1;
            body.truncate(self.faults.reset_blobs.1 as usize);
        } else if is_layer && self.faults.stall_blobs.0 > 0 {
            self.faults.stall_blobs.0 -= 1;
            body.truncate(self.faults.stall_blobs.1 as usize);
            stall = true;
        }
        let pace = self.faults.bytes_per_second.filter(|_| is_layer);
        Answer { status, headers, body, length, stall, pace }
    }
}

fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// A tar of one file, different for each number.
fn tar(number: usize, size: usize) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..2].copy_from_slice(&[b'f', b'0' + number as u8]);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    let mut state = number as u64 + 1;
    tar.extend((0..size).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    }));
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}
