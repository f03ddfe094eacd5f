//! Pulls from a registry that misbehaves: each fault ends in the image or in a clear error, with nothing left under a
//! name, and the next pull works. Needs neither root nor a network.

#![allow(clippy::unwrap_used)]

#[path = "pull/simulator.rs"]
mod simulator;

use std::sync::Arc;
use std::time::Duration;

use coracle_image_store::layer::{BackEnd, Choice};
use coracle_image_store::store::{FsckOptions, GcOptions};
use coracle_image_store::{
    Credentials, ErrorKind, Event, Kind, Progress, PullOptions, Puller, Reference, Store, pull, registry,
};
use simulator::{Registry, TestImage};

const MIB: usize = 1 << 20;

struct Bench {
    registry: Registry,
    puller: Puller,
    _root: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(registry::Config::default()).await
    }

    async fn with(config: registry::Config) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path(), Choice::Only(BackEnd::Tree)).unwrap();
        let config = registry::Config { stall_timeout: Duration::from_millis(400), attempts: 3, ..config };
        Self {
            registry: Registry::start().await,
            puller: Puller::with_config(store, config).unwrap(),
            _root: root,
        }
    }

    fn name(&self) -> Reference {
        format!("{}/app:v1", self.registry.address).parse().unwrap()
    }

    async fn pull(&self) -> Result<pull::Pulled, Arc<pull::Error>> {
        self.puller.pull(&self.name(), &PullOptions::default()).await
    }

    fn store(&self) -> &Store {
        self.puller.store()
    }

    fn check(&self, image: &TestImage) {
        let found = self.store().image(&self.name().to_string()).unwrap();
        assert_eq!(found.record.id, image.id);
        assert_eq!(found.record.layers.len(), image.tars.len());
        self.check_clean();
    }

    fn check_clean(&self) {
        let report = self.store().fsck(FsckOptions::default()).unwrap();
        assert_eq!(report.findings, []);
        assert_eq!(report.leftovers, 0);
        assert!(std::fs::read_dir(self.store().root().join("leases")).unwrap().next().is_none());
    }

    fn check_nothing(&self) {
        assert!(self.store().images().unwrap().is_empty());
        assert!(self.store().layers().list().unwrap().is_empty());
        self.check_clean();
    }
}

#[tokio::test]
async fn a_pull_by_tag_and_by_digest() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[1000, 3 * MIB, 0]);
    let pulled = bench.pull().await.unwrap();
    assert_eq!((pulled.id, pulled.digest), (image.id, image.manifest));
    bench.check(&image);
    let before = bench.registry.requests("/blobs/").len();
    let by_digest: Reference = pulled.repo_digest.parse().unwrap();
    bench.puller.pull(&by_digest, &PullOptions::default()).await.unwrap();
    assert_eq!(
        bench.registry.requests("/blobs/").len(),
        before + 1,
        "only the configuration is fetched again"
    );
    bench.store().remove_image(&bench.name().to_string(), false).unwrap();
    bench.store().gc(&GcOptions::default()).unwrap();
    bench.check_nothing();
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_stopped() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[2 * MIB]);
    bench.registry.faults(|faults| faults.reset_blobs = (5, 300_000));
    bench.pull().await.unwrap();
    bench.check(&image);
    let ranges = bench.registry.requests("bytes=");
    assert_eq!(ranges.len(), 5);
    assert!(ranges.last().unwrap().contains("bytes=1500000-"), "{ranges:?}");
}

#[tokio::test]
async fn a_server_without_ranges_has_its_first_bytes_passed_over() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[2 * MIB]);
    bench.registry.faults(|faults| (faults.reset_blobs, faults.no_ranges) = ((1, 300_000), true));
    bench.pull().await.unwrap();
    bench.check(&image);
}

#[tokio::test]
async fn a_stalled_transfer_is_begun_anew_and_given_up_in_the_end() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[2 * MIB]);
    bench.registry.faults(|faults| faults.stall_blobs = (100, 0));
    let error = bench.pull().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(coracle_image_store::error::chain(&*error).contains("no data for"), "{error}");
    bench.check_nothing();
    bench.registry.faults(|faults| faults.stall_blobs = (1, 100_000));
    bench.pull().await.unwrap();
    bench.check(&image);
}

#[tokio::test]
async fn limits_and_outages_are_waited_for() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[1000]);
    bench.registry.faults(|faults| (faults.limit, faults.unavailable) = (1, 1));
    let began = std::time::Instant::now();
    bench.pull().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After was not obeyed");
    bench.check(&image);
}

#[tokio::test]
async fn lies_about_content_are_found() {
    for lie in ["corrupt", "longer", "digest", "huge"] {
        let bench = Bench::new().await;
        let image = bench.registry.push(&[MIB]);
        bench.registry.faults(|faults| match lie {
            "corrupt" => faults.corrupt_blobs = true,
            "longer" => faults.longer_blobs = true,
            "digest" => faults.wrong_digest = true,
            _ => faults.huge_manifest = Some(5 * MIB),
        });
        let error = bench.pull().await.unwrap_err();
        let expected = if lie == "huge" { ErrorKind::Exhausted } else { ErrorKind::Corrupt };
        assert_eq!(error.kind(), expected, "{lie}: {}", coracle_image_store::error::chain(&*error));
        bench.check_nothing();
        bench.registry.faults(|faults| *faults = simulator::Faults::default());
        bench.pull().await.unwrap();
        bench.check(&image);
    }
}

#[tokio::test]
async fn tokens_and_basic_authentication() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[1000]);
    let secret = || ("me".to_owned(), "pass:word".to_owned());
    let credentials =
        Credentials { username: "me".into(), password: "pass:word".into(), ..Credentials::default() };
    let with = |credentials: &Credentials| PullOptions {
        credentials: Some(credentials.clone()),
        ..PullOptions::default()
    };
    for faults in [
        simulator::Faults { token: Some(secret()), ..Default::default() },
        simulator::Faults { basic: Some(secret()), ..Default::default() },
    ] {
        bench.registry.faults(|current| *current = faults);
        assert_eq!(bench.pull().await.unwrap_err().kind(), ErrorKind::Denied);
        bench.puller.pull(&bench.name(), &with(&credentials)).await.unwrap();
    }
    bench.registry.faults(|faults| (faults.token, faults.basic) = (Some(Default::default()), None));
    bench.pull().await.unwrap();
    bench.check(&image);
}

#[tokio::test]
async fn another_host_never_sees_the_authorization() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[1000]);
    let other = Registry::start().await;
    let blobs = bench.registry.state.lock().unwrap().blobs.clone();
    other.state.lock().unwrap().blobs = blobs;
    bench.registry.faults(|faults| {
        (faults.redirect, faults.token) = (Some(other.address.clone()), Some(Default::default()))
    });
    bench.pull().await.unwrap();
    bench.check(&image);
    assert_eq!(other.requests("/blobs/").len(), 2);
    assert!(other.requests("Bearer").is_empty(), "{:?}", other.requests("Bearer"));
}

#[tokio::test]
async fn equal_pulls_join_and_different_ones_share_layers() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[3 * MIB, 1000]);
    let other = PullOptions { namespace: "other".into(), ..PullOptions::default() };
    let (a, b, name) = (bench.pull(), bench.pull(), bench.name());
    let (a, b, c) = tokio::join!(a, b, bench.puller.pull(&name, &other));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(bench.registry.requests("/manifests/").len(), 2, "two resolve, for three pulls");
    let configuration = image.id.to_string();
    let layers =
        bench.registry.requests("/blobs/").into_iter().filter(|line| !line.contains(&configuration)).count();
    assert_eq!(layers, 2, "each layer once");
    bench.check(&image);
}

#[tokio::test]
async fn a_dropped_pull_leaves_what_the_next_one_goes_on_with() {
    let bench = Bench::new().await;
    let image = bench.registry.push(&[10 * MIB]);
    bench.registry.faults(|faults| faults.stall_blobs = (1, 9 << 20));
    let (seen, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    let progress = Progress::to(move |event| {
        if matches!(event, Event::Unpacked { bytes, .. } if *bytes > 8 << 20) {
            let _ = seen.send(());
        }
    });
    let (name, options) = (bench.name(), PullOptions { progress, ..PullOptions::default() });
    tokio::select! {
        _ = bench.puller.pull(&name, &options) => panic!("it stalls"),
        _ = arrived.recv() => {}
    }
    assert!(bench.store().images().unwrap().is_empty() && bench.store().layers().list().unwrap().is_empty());
    bench.registry.state.lock().unwrap().log.clear();
    bench.pull().await.unwrap();
    bench.check(&image);
    let resumed = bench.registry.requests("bytes=");
    assert_eq!(resumed.len(), 1, "{resumed:?}");
    assert_eq!(std::fs::read_dir(bench.store().root().join("ingest")).unwrap().count(), 0);
}

async fn paced(parallel_ranges: usize) -> (Bench, TestImage, Duration) {
    let config = registry::Config {
        parallel_ranges,
        ranges_after: Duration::from_millis(300),
        ..registry::Config::default()
    };
    let bench = Bench::with(config).await;
    let image = bench.registry.push(&[24 * MIB]);
    bench.registry.faults(|faults| faults.bytes_per_second = Some(6 << 20));
    let began = std::time::Instant::now();
    bench.pull().await.unwrap();
    (bench, image, began.elapsed())
}

#[tokio::test]
async fn a_slow_connection_is_joined_by_others_and_a_fast_one_stays_alone() {
    let (bench, image, alone) = paced(1).await;
    bench.check(&image);
    assert_eq!(bench.registry.requests("bytes=").len(), 0);
    let (bench, image, together) = paced(4).await;
    bench.check(&image);
    let asked = bench.registry.requests("bytes=").len();
    assert!((10..=12).contains(&asked), "{asked} ranges of 2 MiB");
    eprintln!("24 MiB at 6 MiB/s a connection: one {alone:?}, four {together:?}");
    assert!(together * 3 < alone * 2, "one connection {alone:?}, four {together:?}");
    let bench = Bench::new().await;
    let image = bench.registry.push(&[24 * MIB]);
    bench.pull().await.unwrap();
    bench.check(&image);
    assert_eq!(bench.registry.requests("bytes=").len(), 0);
}

#[tokio::test]
async fn ranges_that_break_or_are_unknown_end_in_the_image_all_the_same() {
    for no_ranges in [false, true] {
        let config = registry::Config { ranges_after: Duration::ZERO, ..registry::Config::default() };
        let bench = Bench::with(config).await;
        let image = bench.registry.push(&[24 * MIB]);
        bench.registry.faults(|faults| (faults.reset_blobs, faults.no_ranges) = ((4, 1 << 20), no_ranges));
        bench.pull().await.unwrap();
        bench.check(&image);
    }
    let config = registry::Config { ranges_after: Duration::ZERO, ..registry::Config::default() };
    let bench = Bench::with(config).await;
    let image = bench.registry.push(&[24 * MIB]);
    bench.registry.faults(|faults| faults.corrupt_blobs = true);
    assert_eq!(bench.pull().await.unwrap_err().kind(), ErrorKind::Corrupt);
    bench.check_nothing();
    bench.registry.faults(|faults| faults.corrupt_blobs = false);
    bench.pull().await.unwrap();
    bench.check(&image);
}
