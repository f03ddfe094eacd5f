//! `coraclectl` against a daemon: a Pod manifest from its start to its removal, as a person goes through it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use coracle_integration::cri::Service;
use coracle_integration::{require_pods, runtime, wait};
use serde_json::Value;

/// Two containers: one writes and waits for SIGTERM, the other ends by itself.
const MANIFEST: &str = "
apiVersion: v1
kind: Pod
metadata: {name: demo, labels: {app: demo}}
spec:
  containers:
  - name: main
    image: example.com/busybox:v1
    imagePullPolicy: Never
    env: [{name: GREETING, value: hello}]
    command: [sh, -c, \"trap 'exit 0' TERM; echo $GREETING; echo warned >&2; sleep 1000 & wait\"]
  - name: brief
    image: example.com/busybox:v1
    imagePullPolicy: Never
    command: [sh, -c, exit 3]
";

/// The command on this daemon, beside it: the streaming server listens on the loopback of the daemon's network.
fn ctl(service: &Service, words: &[&str]) -> Command {
    let mut command = service.inside(&runtime::built("coraclectl"));
    command.arg("--socket").arg(service.socket()).arg("--root").arg(service.path("root")).args(words);
    command.stdin(Stdio::null());
    command
}

fn run(service: &Service, words: &[&str]) -> Output {
    ctl(service, words).output().expect("coraclectl")
}

/// What it prints; it must succeed.
fn read(service: &Service, words: &[&str]) -> String {
    let output = run(service, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {}: {errors}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn json(service: &Service, words: &[&str]) -> Value {
    serde_json::from_str(&read(service, words)).expect("JSON")
}

fn start_demo(service: &Service) {
    let manifest = service.path("demo.yaml");
    std::fs::write(&manifest, MANIFEST).expect("manifest");
    let (logs, manifest) = (service.path("logs"), manifest.to_string_lossy().into_owned());
    read(service, &["run-pod", "--logs", &logs.to_string_lossy(), &manifest]);
}

fn service() -> Service {
    let mut service = Service::prepare("");
    service.import_busybox().expect("image");
    service.launch(&[]);
    service
}

#[test]
fn a_manifest_becomes_a_pod_that_is_listed_read_and_removed() {
    require_pods!();
    let service = service();
    start_demo(&service);

    let pods = json(&service, &["pods", "--format", "json"]);
    assert_eq!((&pods[0]["name"], &pods[0]["ready"]), (&Value::from("demo"), &Value::from(true)));
    assert_eq!(pods[0]["labels"]["app"], "demo");
    assert!(pods[0]["ips"][0].is_string(), "{pods}");

    // `brief` ends by itself, and only -a shows it then.
    let ended = wait::until(wait::PATIENCE, || {
        let all = json(&service, &["ps", "-a", "--format", "json"]);
        let brief = all.as_array().into_iter().flatten().find(|one| one["name"] == "brief").cloned();
        brief.is_some_and(|one| one["state"] == "exited" && one["exitCode"] == 3)
    });
    assert!(ended, "{}", read(&service, &["ps", "-a"]));
    assert_eq!(read(&service, &["ps", "-q"]).lines().count(), 1);

    let logged = wait::until(wait::PATIENCE, || {
        let output = run(&service, &["logs", "demo/main"]);
        (output.stdout.as_slice(), output.stderr.as_slice()) == (b"hello\n", b"warned\n")
    });
    assert!(logged, "{:?}", run(&service, &["logs", "demo/main"]));

    let stats = json(&service, &["stats", "--format", "json"]);
    assert_eq!((&stats[0]["pod"], &stats[0]["name"]), (&Value::from("demo"), &Value::from("main")));
    assert!(stats[0]["memoryBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert!(read(&service, &["stats", "--pod", "demo"]).contains("main"));

    // What runs is only removed by force; what is removed is gone.
    assert!(!run(&service, &["rm", "demo"]).status.success());
    read(&service, &["rm", "--force", "demo"]);
    assert_eq!(read(&service, &["pods", "-q"]), "");
    assert_eq!(run(&service, &["stop", "demo"]).status.code(), Some(3));
}

#[test]
fn exec_hands_on_streams_and_exit_codes() {
    require_pods!();
    let service = service();
    start_demo(&service);

    assert_eq!(read(&service, &["exec", "demo/main", "sh", "-c", "echo $GREETING"]), "hello\n");
    assert_eq!(run(&service, &["exec", "demo/main", "sh", "-c", "exit 7"]).status.code(), Some(7));

    // More than any buffer on the way.
    let sent = vec![b'x'; 3 << 20];
    let mut child = ctl(&service, &["exec", "-i", "demo/main", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("coraclectl");
    let mut input = child.stdin.take().expect("input");
    let back = std::thread::scope(|scope| {
        scope.spawn(|| {
            input.write_all(&sent).expect("write");
            drop(input);
        });
        child.wait_with_output().expect("output")
    });
    assert!(back.status.success(), "{}", back.status);
    assert!(back.stdout == sent, "{} of {} bytes came back", back.stdout.len(), sent.len());
    let streamed = run(&service, &["exec", "-i", "demo/main", "sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((streamed.stdout.as_slice(), streamed.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(streamed.status.code(), Some(9));
    read(&service, &["rm", "--force", "--all"]);
}

#[test]
fn following_a_log_ends_with_its_container() {
    require_pods!();
    let service = service();
    start_demo(&service);
    let follower =
        ctl(&service, &["logs", "-f", "demo/main"]).stdout(Stdio::piped()).spawn().expect("coraclectl");
    read(&service, &["stop", "demo"]);
    let output = follower.wait_with_output().expect("output");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(output.stdout, b"hello\n");
    read(&service, &["rm", "demo"]);
}

#[test]
fn without_a_daemon_it_is_said_where_it_was_looked_for() {
    let directory = tempfile::tempdir().expect("directory");
    let socket = directory.path().join("nobody.sock");
    let output = Command::new(runtime::built("coraclectl"))
        .arg("--socket")
        .arg(&socket)
        .arg("pods")
        .output()
        .expect("coraclectl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{errors}");
    assert!(errors.contains(&*socket.to_string_lossy()) && errors.contains("hint: "), "{errors}");
}
