//! Registries as they are met outside: TLS with a private authority, client certificates, mirrors, proxies, credentials
//! from files and helpers, and images that come from and go to files of skopeo. All against Debian's docker-registry.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use coracle_integration::images::{self, Access, Registry};
use coracle_integration::{privilege, require_root, wait, web_image};

/// A registry with an image in it, and a home of the user's own.
struct Place {
    work: tempfile::TempDir,
    image: String,
}

fn place() -> Option<Place> {
    for program in ["docker-registry", "skopeo", "busybox", "openssl", "htpasswd", "zstd"] {
        if privilege::program(program).is_none() {
            privilege::record_skip(&privilege::test_name(), &format!("needs {program}"));
            return None;
        }
    }
    let work = tempfile::tempdir().unwrap();
    fs::create_dir(work.path().join("home")).unwrap();
    // Pushed without further ado; the registries of the tests serve the same directory in other ways.
    let registry = Registry::start(work.path()).unwrap();
    let image = registry.push_layout(&web_image::client(work.path()).unwrap(), "client").unwrap();
    let image = image.split_once('/').unwrap().1.to_owned();
    Some(Place { work, image })
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// A command of a user whose files are all in this place.
    fn ctl(&self, root: &str, arguments: &[&str]) -> Command {
        let program =
            std::env::var_os("CORACLECTL").map_or_else(|| "../target/debug/coraclectl".into(), PathBuf::from);
        let mut command = Command::new(program);
        command.arg("--root").arg(self.path(root)).args(arguments).stdin(Stdio::null());
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "REGISTRY_AUTH_FILE"]
        {
            command.env_remove(name);
        }
        command.env_remove("XDG_RUNTIME_DIR").env_remove("DOCKER_CONFIG").env("HOME", self.path("home"));
        command
    }

    fn hosts(&self, host: &str, text: &str) -> String {
        let directory = self.path("hosts").join(host);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("hosts.toml"), text).unwrap();
        self.path("hosts").to_str().unwrap().to_owned()
    }

    /// An authority, a server's certificate and a client's, as files.
    fn certificates(&self) -> Access {
        let script = "set -e; cd \"$0\"
            new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj /CN=$1; }
            sign() { openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out $1.pem -extfile $1.ext; }
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority
            printf 'subjectAltName=IP:127.0.0.1,DNS:registry.test\\nextendedKeyUsage=serverAuth\\n' > server.ext
            printf 'extendedKeyUsage=clientAuth\\n' > client.ext
            for one in server client; do new $one; sign $one; done";
        let made = Command::new("sh").args(["-c", script]).arg(self.work.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Access { certificate: Some((self.path("server.pem"), self.path("server.key"))), ..Access::default() }
    }
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fails(command: &mut Command, code: i32) -> String {
    let output: Output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    text
}

#[test]
fn a_private_authority_and_client_certificates() {
    require_root!();
    let Some(place) = place() else { return };
    let access = place.certificates();
    let registry = Registry::start_with(place.work.path(), &access).unwrap();
    let (address, image) = (&registry.address, format!("{}/{}", registry.address, place.image));
    let pull = |root: &str, hosts: &str| place.ctl(root, &["pull", "--hosts-dir", hosts, &image]);
    let unknown = place.hosts(address, &format!("server = \"https://{address}\"\n"));
    let refused = fails(&mut pull("s0", &unknown), 5);
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    let ca = place.path("ca.pem");
    let known = place.hosts(address, &format!("server = \"https://{address}\"\nca = {ca:?}\n"));
    succeeds(&mut pull("s1", &known));
    let careless = place.hosts(address, &format!("server = \"https://{address}\"\nskip_verify = true\n"));
    succeeds(&mut pull("s2", &careless));
    drop(registry);

    let access = Access { client_authority: Some(ca.clone()), ..access };
    let registry = Registry::start_with(place.work.path(), &access).unwrap();
    let (address, image) = (&registry.address, format!("{}/{}", registry.address, place.image));
    let anonymous = place.hosts(address, &format!("server = \"https://{address}\"\nca = {ca:?}\n"));
    fails(&mut place.ctl("s3", &["pull", "--hosts-dir", &anonymous, &image]), 5);
    let pair = [place.path("client.pem"), place.path("client.key")];
    let known =
        place.hosts(address, &format!("server = \"https://{address}\"\nca = {ca:?}\nclient = [{pair:?}]\n"));
    succeeds(&mut place.ctl("s3", &["pull", "--hosts-dir", &known, &image]));
}

#[test]
fn mirrors_are_tried_in_order_and_keep_the_name() {
    require_root!();
    let Some(place) = place() else { return };
    let registry = Registry::start(place.work.path()).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let image = format!("origin.test:5000/{}", place.image);
    let text = format!(
        "server = \"https://origin.test:5000\"\n[host.\"http://{closed}\"]\n[host.\"http://{}\"]\n",
        registry.address
    );
    let hosts = place.hosts("origin.test:5000", &text);
    let told = succeeds(&mut place.ctl("s0", &["pull", "--hosts-dir", &hosts, &image]));
    assert!(told.starts_with("origin.test:5000/client@sha256:"), "{told}");
    let conf = place.path("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"origin.test:5000\"\nlocation = \"origin.test:5000\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        registry.address
    );
    fs::write(&conf, text).unwrap();
    let mut command = place.ctl("s1", &["pull", "--hosts-dir", "/nonexistent", &image]);
    succeeds(command.env("CONTAINERS_REGISTRIES_CONF", &conf));
    drop(registry);
    let down = fails(&mut place.ctl("s2", &["pull", "--hosts-dir", &hosts, &image]), 5);
    assert!(down.contains("origin.test"), "{down}");
}

#[test]
fn credentials_come_from_files_and_helpers() {
    require_root!();
    let Some(place) = place() else { return };
    let users = Command::new("htpasswd").args(["-Bbn", "me", "pass:word"]).output().unwrap();
    fs::write(place.path("users"), users.stdout).unwrap();
    let access = Access { users: Some(place.path("users")), ..Access::default() };
    let registry = Registry::start_with(place.work.path(), &access).unwrap();
    let (address, image) = (&registry.address, format!("{}/{}", registry.address, place.image));
    let pull = |root: &str| place.ctl(root, &["pull", &image]);
    let refused = fails(&mut pull("s0"), 4);
    assert!(refused.contains("hint:"), "{refused}");
    succeeds(&mut place.ctl("s1", &["pull", "--creds", "me:pass:word", &image]));
    fails(&mut place.ctl("s0", &["pull", "--creds", "me:wrong", &image]), 4);

    // As `docker login` writes it: base64 of me:pass:word.
    let docker = place.path("home/.docker");
    fs::create_dir(&docker).unwrap();
    let auths = format!(r#"{{"auths": {{"{address}": {{"auth": "bWU6cGFzczp3b3Jk"}}}}}}"#);
    fs::write(docker.join("config.json"), &auths).unwrap();
    succeeds(&mut pull("s2"));
    fs::remove_file(docker.join("config.json")).unwrap();
    fails(&mut pull("s0"), 4);
    let file = place.path("auth.json");
    fs::write(&file, &auths).unwrap();
    succeeds(pull("s3").env("REGISTRY_AUTH_FILE", &file));

    let helpers = place.path("helpers");
    fs::create_dir(&helpers).unwrap();
    let helper = helpers.join("docker-credential-vault");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {address}' ] || {{ echo credentials not found; exit 1; }}\n\
         echo '{{\"ServerURL\": \"x\", \"Username\": \"me\", \"Secret\": \"pass:word\"}}'\n"
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
    for (root, config) in [
        ("s4", format!(r#"{{"credHelpers": {{"{address}": "vault"}}}}"#)),
        ("s5", r#"{"credsStore": "vault"}"#.to_owned()),
    ] {
        fs::write(docker.join("config.json"), config).unwrap();
        succeeds(pull(root).env("PATH", &path));
    }
    fs::write(docker.join("config.json"), r#"{"credsStore": "missing"}"#).unwrap();
    let failed = pull("s0").env("PATH", &path).output().unwrap();
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("docker-credential-missing"));
    assert!(registry.address.starts_with("127."));
}

/// A proxy that leads every name to one address, remembers what it was asked and counts the bytes that came back.
struct Proxy {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
    bytes: Arc<AtomicU64>,
}

impl Proxy {
    fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Self { address, asked: Arc::default(), bytes: Arc::default() };
        let (asked, bytes, target) = (Arc::clone(&proxy.asked), Arc::clone(&proxy.bytes), target.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (asked, bytes, target) = (Arc::clone(&asked), Arc::clone(&bytes), target.clone());
                std::thread::spawn(move || drop(relay(client, &target, &asked, &bytes)));
            }
        });
        proxy
    }
}

fn relay(
    mut client: TcpStream,
    target: &str,
    asked: &Mutex<Vec<String>>,
    bytes: &AtomicU64,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default().to_owned();
    let range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:")).unwrap_or_default();
    asked.lock().unwrap().push(format!("{line} {range}"));
    let mut server = TcpStream::connect(target)?;
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else {
        // One request a connection: the next one has a head of its own to be read.
        let (method, rest) = line.split_once(' ').unwrap_or_default();
        let path = rest.trim_start_matches("http://").split_once('/').map_or("", |(_, path)| path);
        let others = head.split_once("\r\n").map_or("", |(_, others)| others);
        write!(server, "{method} /{path}\r\nConnection: close\r\n{others}")?;
    }
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = server.read(&mut buffer)?;
        if length == 0 {
            return client.shutdown(Shutdown::Both);
        }
        bytes.fetch_add(length as u64, Ordering::Relaxed);
        client.write_all(&buffer[..length])?;
    }
}

#[test]
fn proxies_of_the_environment_are_used_and_spared() {
    require_root!();
    let Some(place) = place() else { return };
    let plain = Registry::start(place.work.path()).unwrap();
    let proxy = Proxy::start(&plain.address);
    let image = format!("registry.test/{}", place.image);
    let asked = |proxy: &Proxy| std::mem::take(&mut *proxy.asked.lock().unwrap());
    let mut command = place.ctl("s0", &["pull", "--insecure", "registry.test", &image]);
    succeeds(command.env("http_proxy", format!("http://{}", proxy.address)));
    let requests = asked(&proxy);
    assert!(requests[0].starts_with("GET http://registry.test/v2/client/manifests/v1 "), "{requests:?}");
    let direct = format!("{}/{}", plain.address, place.image);
    let mut command = place.ctl("s1", &["pull", &direct]);
    succeeds(
        command.env("http_proxy", format!("http://{}", proxy.address)).env("no_proxy", "127.0.0.1,localhost"),
    );
    assert_eq!(asked(&proxy), [""; 0]);
    drop(plain);

    let access = place.certificates();
    let secure = Registry::start_with(place.work.path(), &access).unwrap();
    let proxy = Proxy::start(&secure.address);
    let hosts = place.hosts(
        "registry.test",
        &format!("server = \"https://registry.test\"\nca = {:?}\n", place.path("ca.pem")),
    );
    let mut command = place.ctl("s2", &["pull", "--hosts-dir", &hosts, &image]);
    succeeds(command.env("https_proxy", format!("http://{}", proxy.address)));
    let requests = asked(&proxy);
    assert!(requests.iter().all(|line| line.starts_with("CONNECT registry.test:443 ")), "{requests:?}");
    assert!(!requests.is_empty());
}

#[test]
fn a_killed_pull_goes_on_where_it_stopped() {
    require_root!();
    let Some(place) = place() else { return };
    let registry = Registry::start(place.work.path()).unwrap();
    let noise = place.path("noise");
    fs::create_dir(&noise).unwrap();
    let mut content = vec![0; 24 << 20];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut content).unwrap();
    fs::write(noise.join("file"), content).unwrap();
    let layer = images::layer(place.work.path(), "noise-layer", &noise).unwrap();
    let archive = images::archive(place.work.path(), "noise-image", &[&layer]).unwrap();
    let pushed = registry.push(&archive, "noise", &[]).unwrap();
    let proxy = Proxy::start(&registry.address);
    let image = pushed.replace(&registry.address, "registry.test");
    let pull = || {
        let mut command = place.ctl("s0", &["pull", "--insecure", "registry.test", &image]);
        command.env("http_proxy", format!("http://{}", proxy.address)).stderr(Stdio::null());
        command
    };
    // Killed by a real SIGKILL, when two thirds are on the disk.
    let mut child = pull().stdout(Stdio::null()).spawn().unwrap();
    let kept = || {
        let entries = fs::read_dir(place.path("s0/ingest")).ok()?.flatten().next()?;
        entries.path().join("data").metadata().ok().map(|data| data.len())
    };
    let reached = wait::until(wait::PATIENCE, || kept().is_some_and(|length| length > 16 << 20));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(reached);
    let kept = kept();
    let Some(kept) = kept else { return };
    proxy.bytes.store(0, Ordering::Relaxed);
    proxy.asked.lock().unwrap().clear();
    succeeds(&mut pull());
    let (fetched, asked) = (proxy.bytes.load(Ordering::Relaxed), proxy.asked.lock().unwrap().join("\n"));
    assert!(asked.to_lowercase().contains(&format!("range: bytes={kept}-")), "{asked}");
    assert!(fetched < (25 << 20) - kept + (64 << 10), "{fetched} bytes fetched, {kept} were kept");
    assert!(succeeds(&mut place.ctl("s0", &["fsck", "--json"])).contains(r#""findings": []"#));
    assert_eq!(fs::read_dir(place.path("s0/ingest")).unwrap().count(), 0);
}

fn id_of(place: &Place, root: &str, name: &str) -> String {
    let told = succeeds(&mut place.ctl(root, &["inspect", name]));
    let value: serde_json::Value = serde_json::from_str(&told).unwrap();
    let value = if value.is_array() { value[0].clone() } else { value };
    value["id"].as_str().unwrap_or_default().to_owned()
}

fn skopeo(arguments: &[&str]) -> String {
    let mut command = Command::new("skopeo");
    succeeds(command.arg("--insecure-policy").args(arguments).stdin(Stdio::null()))
}

/// The digest of the configuration as skopeo sees it.
fn config_digest(place: &Place, image: &str) -> String {
    let config = place.path("config");
    fs::write(&config, skopeo(&["inspect", "--tls-verify=false", "--config", "--raw", image])).unwrap();
    let sum = Command::new("sha256sum").arg(config).output().unwrap();
    format!("sha256:{}", String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap())
}

#[test]
fn files_of_skopeo_are_imported_and_exports_are_read_by_it() {
    require_root!();
    let Some(place) = place() else { return };
    let registry = Registry::start(place.work.path()).unwrap();
    let remote = format!("docker://{}/{}", registry.address, place.image);
    let text = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let layers = [
        images::busybox_layer(place.work.path()).unwrap(),
        images::layer(place.work.path(), "etc", Path::new("/etc/apt")).unwrap(),
    ];
    let archive =
        images::archive(place.work.path(), "docker-image", &layers.iter().collect::<Vec<_>>()).unwrap();
    // A docker archive has no place for zstd: an image of gzip layers for it.
    let gzip = format!("docker://{}", registry.push(&archive, "gzip", &[]).unwrap());
    let name = "example.com/client:v1";
    let copies = [
        (&remote, format!("oci:{}:{name}", text("layout")), "layout"),
        (&remote, format!("oci-archive:{}:{name}", text("oci.tar")), "oci.tar"),
        (&gzip, format!("docker-archive:{}:{name}", text("docker.tar")), "docker.tar"),
    ];
    for (source, target, file) in &copies {
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", source, target]);
        let root = format!("store-{file}");
        assert_eq!(succeeds(&mut place.ctl(&root, &["import", "--quiet", &text(file)])), "");
        assert_eq!(id_of(&place, &root, name), config_digest(&place, source), "{file}");
        assert!(succeeds(&mut place.ctl(&root, &["fsck", "--json"])).contains(r#""findings": []"#), "{file}");
        let run = ["run", "--tty", "no", "--pull", "never", name, "sh", "-c", "echo works"];
        assert_eq!(succeeds(&mut place.ctl(&root, &run)), "works\n", "{file}");
    }
    let id = config_digest(&place, &gzip);
    for compression in ["gzip", "zstd"] {
        let packed = Command::new(compression).arg("-c").arg(place.path("docker.tar")).output().unwrap();
        fs::write(place.path("packed"), packed.stdout).unwrap();
        succeeds(&mut place.ctl(compression, &["import", &text("packed")]));
        assert_eq!(id_of(&place, compression, name), id);
    }

    let id = config_digest(&place, &remote);
    succeeds(&mut place.ctl("store-layout", &["export", name, &text("exported.tar")]));
    for (number, source) in [
        format!("oci-archive:{}:{name}", text("exported.tar")),
        format!("docker-archive:{}", text("exported.tar")),
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(
            skopeo(&["inspect", "--config", "--raw", source]),
            fs::read_to_string(place.path("config")).unwrap()
        );
        let target = format!("dir:{}", text(&format!("copy{number}")));
        skopeo(&["copy", "--quiet", source, &target]);
    }
    let piped = place.ctl("store-layout", &["export", "--quiet", &id, "-"]).output().unwrap();
    assert!(
        piped.stdout == fs::read(place.path("exported.tar")).unwrap(),
        "equal images make equal archives"
    );
    succeeds(&mut place.ctl("again", &["import", &text("exported.tar")]));
    assert_eq!(id_of(&place, "again", name), id);
    fails(&mut place.ctl("store-layout", &["export", "nothing:1", &text("none.tar")]), 3);
    assert!(!place.path("none.tar").exists());
}
