//! From Create to Remove: states, exit codes, logs, signals.

use std::time::{Duration, Instant};

use coracle_integration::cri::block_on;
use coracle_integration::cri_pod::{Pod, entries, none_left, service_with_busybox, shell};
use coracle_integration::{require_pods, wait};
use k8s_cri::v1::*;
use tonic::Code;

#[test]
fn a_container_lives_and_is_removed() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "life").await;
        let mut config = shell("one", "echo out; echo err >&2; exit 7");
        config.labels.insert("app".into(), "web".into());
        config.annotations.insert("note".into(), "kept".into());
        let id = pod.create(&config).await.unwrap();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        let created = pod.status(&id).await.unwrap();
        assert_eq!(
            (created.state(), created.started_at, created.finished_at),
            (ContainerState::ContainerCreated, 0, 0)
        );
        assert!(created.created_at > 1_700_000_000_000_000_000);
        assert_eq!((&created.labels, &created.annotations), (&config.labels, &config.annotations));
        assert_eq!(created.log_path, pod.log_path("one").to_string_lossy());

        pod.start(&id).await.unwrap();
        let ended = pod.ended(&id).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
        assert!(ended.created_at < ended.started_at && ended.started_at < ended.finished_at, "{ended:?}");
        assert!(ended.image_id.starts_with("sha256:"), "{ended:?}");
        let own = |stream: &str, text: &str| (stream.to_owned(), "F".to_owned(), text.to_owned());
        let mut log = pod.log("one");
        log.sort();
        assert_eq!(log, [own("stderr", "err"), own("stdout", "out")]);

        let listed = pod.list().await;
        assert_eq!((listed.len(), listed[0].state()), (1, ContainerState::ContainerExited));
        assert_eq!(listed[0].image_id, ended.image_id);
        assert_eq!(pod.start(&id).await.unwrap_err().code(), Code::FailedPrecondition, "no second start");
        pod.stop(&id, 10).await.unwrap();
        for _ in 0..2 {
            pod.remove(&id).await.unwrap();
            pod.stop(&id, 10).await.unwrap();
        }
        assert_eq!(pod.status(&id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(pod.start(&id).await.unwrap_err().code(), Code::NotFound);
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "bad").await;
        let mut no_image = shell("a", "true");
        no_image.image = Some(ImageSpec { image: "example.com/none:v1".into(), ..ImageSpec::default() });
        assert_eq!(pod.create(&no_image).await.unwrap_err().code(), Code::NotFound);
        let mut no_user = shell("b", "true");
        coracle_integration::cri_pod::security(&mut no_user).run_as_username = "nobody-here".into();
        let error = pod.create(&no_user).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("nobody-here"), "{error}");
        let mut no_program = shell("c", "true");
        no_program.command = vec!["/bin/there-is-none".into()];
        let outcome = match pod.create(&no_program).await {
            Ok(id) => pod.start(&id).await.map(|()| id),
            failed => failed,
        };
        assert!(outcome.unwrap_err().message().contains("there-is-none"));
        let missing =
            CreateContainerRequest { pod_sandbox_id: "f".repeat(64), ..pod.request(&shell("d", "true")) };
        assert_eq!(pod.client.create_container(missing).await.unwrap_err().code(), Code::NotFound);
        for container in pod.list().await {
            assert_eq!(
                container.state(),
                ContainerState::ContainerExited,
                "only one whose start failed is shown"
            );
            pod.remove(&container.id).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(service.path("run/containers")).map_or(0, Iterator::count), 0);
        assert_eq!(std::fs::read_dir(service.path("root/cri/containers")).unwrap().count(), 0);
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn a_retry_is_handed_the_same_container() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "retry").await;
        let config = shell("a", "sleep 1000");
        let request = pod.request(&config);
        let (mut first, mut second) = (pod.client.clone(), pod.client.clone());
        let (a, b) = tokio::join!(first.create_container(request.clone()), second.create_container(request));
        let (a, b) = (a.unwrap().into_inner().container_id, b.unwrap().into_inner().container_id);
        assert_eq!(a, b, "joined");
        assert_eq!(pod.create(&config).await.unwrap(), a, "handed out while nobody has started it");
        let mut other = config.clone();
        other.envs.push(KeyValue { key: "A".into(), value: "b".into() });
        let made_anew = pod.create(&other).await.unwrap();
        assert_ne!(made_anew, a, "another configuration is another container");
        assert_eq!(pod.list().await.len(), 1, "in place of the first");
        pod.start(&made_anew).await.unwrap();
        assert_eq!(pod.create(&other).await.unwrap_err().code(), Code::AlreadyExists);
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn stop_signals_and_grace() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "stop").await;
        let polite = pod
            .launch(&shell("polite", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"))
            .await;
        assert!(wait::until(wait::PATIENCE, || pod.output("polite").contains("ready")));
        pod.stop(&polite, 60).await.unwrap();
        let status = pod.status(&polite).await.unwrap();
        assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 3));
        assert!(pod.output("polite").contains("bye"), "the log is whole before the exit is told");

        let deaf = pod.launch(&shell("deaf", "trap '' TERM; echo ready; while :; do sleep 0.1; done")).await;
        assert!(wait::until(wait::PATIENCE, || pod.output("deaf").contains("ready")));
        let begun = Instant::now();
        pod.stop(&deaf, 1).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(1), "the grace is kept");
        assert_eq!(pod.status(&deaf).await.unwrap().exit_code, 137);

        // A second stop with less grace is not held up by the first.
        let long = pod.launch(&shell("long", "trap '' TERM; echo ready; while :; do sleep 0.1; done")).await;
        assert!(wait::until(wait::PATIENCE, || pod.output("long").contains("ready")));
        let mut patient = pod.client.clone();
        let slow = StopContainerRequest { container_id: long.clone(), timeout: 600 };
        let slow = tokio::spawn(async move { patient.stop_container(slow).await });
        pod.stop(&long, 0).await.unwrap();
        slow.await.unwrap().unwrap();

        let created = pod.create(&shell("never", "true")).await.unwrap();
        pod.stop(&created, 5).await.unwrap();
        let status = pod.status(&created).await.unwrap();
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert!(status.started_at > 0 && status.finished_at > 0, "{status:?}");
        pod.remove(&created).await.unwrap();

        let running = pod.launch(&shell("removed", "sleep 1000")).await;
        pod.remove(&running).await.unwrap();
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn a_log_is_rotated_and_long_lines_are_cut() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "logs").await;
        let script = "i=0; while [ $i -lt 5000 ]; do echo 0123456789; i=$((i+1)); done | tr -d '\\n'; echo; echo one; \
                      while [ ! -e /go ]; do sleep 0.05; done; echo two";
        let mut config = shell("a", script);
        let shared = service.path("shared");
        std::fs::create_dir(&shared).unwrap();
        config.mounts = vec![Mount {
            container_path: "/mnt".into(),
            host_path: shared.to_string_lossy().into_owned(),
            ..Mount::default()
        }];
        config.command[2] = script.replace("/go", "/mnt/go").replace("tr -d", "/bin/busybox tr -d");
        let id = pod.launch(&config).await;
        assert!(wait::until(wait::PATIENCE, || pod.output("a").contains("one")));
        let cut = pod.log("a");
        assert!(cut.iter().filter(|(_, tag, _)| tag == "P").count() >= 3, "50,000 bytes in parts");
        assert!(pod.output("a").starts_with(&"0123456789".repeat(5000)), "and whole again");
        let rotated = service.path("a.log.1");
        std::fs::rename(pod.log_path("a"), &rotated).unwrap();
        let reopen = ReopenContainerLogRequest { container_id: id.clone() };
        pod.client.reopen_container_log(reopen.clone()).await.unwrap();
        std::fs::write(shared.join("go"), "").unwrap();
        pod.ended(&id).await;
        assert_eq!(pod.output("a"), "two\n");
        let old = entries(&std::fs::read_to_string(rotated).unwrap());
        assert_eq!(old.last().unwrap().2, "one");
        let error = pod.client.reopen_container_log(reopen).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "an exited container has no log to reopen");
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn two_containers_share_localhost_and_nothing_else() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "pair").await;
        let server = "echo hello > /tmp/index.html; exec /bin/busybox httpd -f -p 127.0.0.1:8080 -h /tmp";
        pod.launch(&shell("server", server)).await;
        let script = "until [ \"$(/bin/busybox wget -qO- http://127.0.0.1:8080/)\" = hello ]; do sleep 0.1; done; \
                      echo reached; ps | /bin/busybox wc -l";
        let output = pod.output_of("client", script, |_| ()).await;
        assert!(output.starts_with("reached\n"), "{output}");
        assert!(
            output.lines().nth(1).unwrap().trim().parse::<u32>().unwrap() < 6,
            "own processes only: {output}"
        );
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn events_tell_of_every_step() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "events").await;
        let mut events = pod.client.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
        let id = pod.create(&shell("a", "exit 4")).await.unwrap();
        pod.start(&id).await.unwrap();
        pod.ended(&id).await;
        pod.remove(&id).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let event =
                tokio::time::timeout(wait::PATIENCE, events.message()).await.unwrap().unwrap().unwrap();
            if event.container_id == id {
                assert_eq!(event.pod_sandbox_status.as_ref().unwrap().id, pod.id);
                seen.push(event);
            }
        }
        let kinds: Vec<_> = seen.iter().map(ContainerEventResponse::container_event_type).collect();
        use ContainerEventType::*;
        let expected =
            [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent, ContainerDeletedEvent];
        assert_eq!(kinds, expected);
        assert_eq!(seen[2].containers_statuses[0].exit_code, 4, "with the exit code");
        pod.end().await;
    });
    none_left(&service);
}
