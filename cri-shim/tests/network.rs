//! The embedded network on a real kernel, inside a network namespace made by the test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_cri::network::{Attachment, Embedded, EmbeddedConfig, HostPort, Network, PodRef, netns};
use nix::sched::{CloneFlags, setns, unshare};

/// Runs `test` in new network and mount namespaces; says so where that is not allowed.
fn in_private_host(name: &'static str, test: fn(&Path)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP {name}: needs root");
        if let Ok(file) = std::env::var("CORACLE_SKIPS") {
            let mut file =
                std::fs::OpenOptions::new().append(true).create(true).open(file).expect("skip list");
            writeln!(file, "SKIP {name}: needs root").expect("skip list");
        }
        return;
    }
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().to_owned();
    let outcome = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
        let private = nix::mount::MsFlags::MS_PRIVATE | nix::mount::MsFlags::MS_REC;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("make / private");
        // A namespace of its own has its own sysctls; the mount of /proc/sys may be read-only outside.
        nix::mount::mount(Some("proc"), "/proc", Some("proc"), nix::mount::MsFlags::empty(), None::<&str>)
            .expect("mount /proc");
        test(&path);
    })
    .join();
    assert!(outcome.is_ok(), "the test failed inside its namespaces");
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime").block_on(work)
}

fn pod(directory: &Path, id: &str, ports: Vec<HostPort>) -> PodRef {
    let netns = netns::path_of(directory, id);
    netns::create(&netns).expect("namespace");
    PodRef { id: id.into(), name: id.into(), namespace: "test".into(), uid: "u".into(), netns, ports }
}

/// Answers every connection to port 80 inside the namespace with `answer`.
fn serve(netns: &Path, answer: &'static str) {
    let (ready, wait) = std::sync::mpsc::channel();
    let netns: PathBuf = netns.into();
    std::thread::spawn(move || {
        let file = std::fs::File::open(&netns).expect("open namespace");
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter namespace");
        let listener = TcpListener::bind("0.0.0.0:80").expect("bind");
        ready.send(()).expect("ready");
        for stream in listener.incoming() {
            let _ = stream.expect("accept").write_all(answer.as_bytes());
        }
    });
    wait.recv_timeout(Duration::from_secs(5)).expect("server");
}

fn ask(ip: &str, port: u16) -> Result<String, std::io::Error> {
    let address = SocketAddr::new(ip.parse().expect("ip"), port);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn ask_from(netns: &Path, ip: String, port: u16) -> Result<String, std::io::Error> {
    let netns: PathBuf = netns.into();
    std::thread::spawn(move || {
        let file = std::fs::File::open(&netns).expect("open namespace");
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("enter namespace");
        ask(&ip, port)
    })
    .join()
    .expect("thread")
}

#[test]
fn pods_reach_each_other_and_are_reached_through_host_ports() {
    in_private_host("pods_reach_each_other_and_are_reached_through_host_ports", |directory| {
        run(async {
            let network =
                Network::Embedded(Embedded::open(&EmbeddedConfig::default(), directory).expect("open"));
            // The namespace made by the test has no loopback yet.
            std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip");
            let port =
                |host_port| HostPort { protocol: "tcp".into(), host_ip: None, host_port, container_port: 80 };
            let one = pod(directory, "1111111111111111", vec![port(8081)]);
            let two = pod(directory, "2222222222222222", vec![port(8082)]);
            let a = network.attach(&one, &Attachment::default()).await.expect("attach one");
            let b = network.attach(&two, &Attachment::default()).await.expect("attach two");
            assert_eq!(
                network.attach(&one, &Attachment::default()).await.expect("again"),
                a,
                "attaching twice is one attachment"
            );
            let ip = |ips: &[IpAddr]| ips[0].to_string();
            assert_eq!((ip(&a.ips).as_str(), ip(&b.ips).as_str()), ("10.89.0.2", "10.89.0.3"));
            serve(&one.netns, "one");
            serve(&two.netns, "two");

            assert_eq!(ask(&ip(&a.ips), 80).expect("host to pod"), "one");
            assert_eq!(ask_from(&one.netns, ip(&b.ips), 80).expect("pod to pod"), "two");
            assert_eq!(ask("127.0.0.1", 8082).expect("host port over loopback"), "two");
            assert_eq!(ask("10.89.0.1", 8081).expect("host port over an address of the host"), "one");
            assert_eq!(ask_from(&one.netns, "10.89.0.1".into(), 8081).expect("hairpin"), "one");

            network.detach(&one, &a).await.expect("detach");
            network.detach(&one, &a).await.expect("detach again");
            netns::remove(&one.netns).expect("unpin");
            assert!(ask("127.0.0.1", 8081).is_err(), "the port of a pod that is gone leads nowhere");
            assert_eq!(ask("127.0.0.1", 8082).expect("the other pod is untouched"), "two");
            network.detach(&two, &b).await.expect("detach two");
            netns::remove(&two.netns).expect("unpin two");
            let leases: Vec<_> =
                std::fs::read_dir(directory.join("network/leases")).expect("leases").collect();
            assert_eq!(leases.len(), 1, "only the hint is left: {leases:?}");
        });
    });
}

#[test]
fn a_namespace_is_pinned_and_unpinned() {
    in_private_host("a_namespace_is_pinned_and_unpinned", |directory| {
        let path = netns::path_of(directory, "x");
        netns::create(&path).expect("create");
        netns::create(&path).expect("again");
        assert!(netns::is_pinned(&path));
        netns::remove(&path).expect("remove");
        assert!(!path.exists());
        netns::remove(&path).expect("remove again");
        // What a reboot leaves: the file without its mount.
        std::fs::File::create(&path).expect("stale file");
        assert!(!netns::is_pinned(&path));
        netns::create(&path).expect("create over a stale file");
        assert!(netns::is_pinned(&path));
        netns::remove(&path).expect("remove");
    });
}
