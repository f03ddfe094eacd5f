//! Statistics and events of containers that really work.

use std::time::Duration;

use coracle_integration::cri::{self, block_on};
use coracle_integration::{require_root, wait};
use k8s_cri::v1::*;

use super::Running;
use super::clients::PATIENCE;

/// Writes 3 MB into its layer, works for a while, then sleeps.
const WORK: &str = "busybox head -c 3000000 /dev/zero > /root/file; n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done; \
                    echo up; exec sleep 1000";

fn of(value: &Option<UInt64Value>) -> u64 {
    value.as_ref().map_or(0, |v| v.value)
}

async fn working() -> Running {
    let it = Running::start(WORK, |_| ()).await;
    let up = || it.log().iter().any(|line| line.ends_with("up"));
    assert!(wait::until(wait::PATIENCE, up), "{:?}", it.log());
    it
}

#[test]
fn statistics_are_those_of_the_groups_and_files() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = working().await;
        let one = ContainerStatsRequest { container_id: it.container.clone() };
        let stats = it.client.container_stats(one.clone()).await.unwrap().into_inner().stats.unwrap();
        assert_eq!(stats.attributes.as_ref().unwrap().metadata.as_ref().unwrap().name, "main");
        let layer = stats.writable_layer.unwrap();
        assert!((3_000_000..4_000_000).contains(&of(&layer.used_bytes)), "{layer:?}");
        assert!(of(&layer.inodes_used) >= 2);
        let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
        assert!(of(&cpu.usage_core_nano_seconds) > 10_000_000, "{cpu:?}");
        assert!(
            of(&memory.working_set_bytes) > 0 && of(&memory.working_set_bytes) <= of(&memory.usage_bytes)
        );
        assert_eq!(cpu.usage_nano_cores, None, "a rate needs two readings");
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let stats = it.client.container_stats(one).await.unwrap().into_inner().stats.unwrap();
        assert!(stats.cpu.unwrap().usage_nano_cores.is_some());

        let listed = it.client.list_container_stats(ListContainerStatsRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().stats.len(), 1);
        let request = PodSandboxStatsRequest { pod_sandbox_id: it.pod.clone() };
        let pod = it.client.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
        let linux = pod.linux.unwrap();
        assert!(of(&linux.cpu.unwrap().usage_core_nano_seconds) >= of(&cpu.usage_core_nano_seconds));
        assert!(of(&linux.process.unwrap().process_count) >= 1);
        assert_eq!(linux.network.unwrap().default_interface.unwrap().name, "eth0");
        assert_eq!(linux.containers.len(), 1);
        it.remove().await;
    });
}

#[test]
fn metrics_fit_their_descriptors() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = working().await;
        let described = it.client.list_metric_descriptors(ListMetricDescriptorsRequest::default()).await;
        let described = described.unwrap().into_inner().descriptors;
        let pods = it.client.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest::default()).await;
        let pods = pods.unwrap().into_inner().pod_metrics;
        assert_eq!((pods.len(), pods[0].container_metrics.len()), (1, 1));
        let metrics = &pods[0].container_metrics[0].metrics;
        for metric in pods[0].metrics.iter().chain(metrics) {
            let known = described.iter().find(|d| d.name == metric.name).expect("described");
            assert_eq!(known.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        let usage = metrics.iter().find(|m| m.name == "container_memory_usage_bytes").unwrap();
        assert_eq!((usage.label_values[0].as_str(), usage.label_values[5].as_str()), ("main", "streaming"));
        assert!(of(&usage.value) > 0);
        it.remove().await;
    });
}

#[test]
fn events_come_in_order_also_after_a_restart() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = Running::start("sleep 1000", |_| ()).await;
        it.service.restart();
        it.client = it.service.runtime().await;
        let mut events =
            it.client.get_container_events(GetEventsRequest::default()).await.unwrap().into_inner();
        use ContainerEventType::*;
        let another = it.run("another", "sleep 1000", |_| ()).await;
        let first = it.container.clone();
        let table = [
            (first, vec![ContainerStoppedEvent, ContainerDeletedEvent]),
            (
                another,
                vec![
                    ContainerCreatedEvent,
                    ContainerStartedEvent,
                    ContainerStoppedEvent,
                    ContainerDeletedEvent,
                ],
            ),
        ];
        for (id, _) in &table {
            let stop = StopContainerRequest { container_id: id.clone(), timeout: 0 };
            it.client.stop_container(stop).await.unwrap();
            it.client.remove_container(RemoveContainerRequest { container_id: id.clone() }).await.unwrap();
        }
        let mut seen: Vec<(String, ContainerEventType)> = Vec::new();
        while seen.iter().filter(|(_, kind)| *kind == ContainerDeletedEvent).count() < 2 {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.expect("in time");
            let event = event.unwrap().expect("an event");
            assert!(event.created_at > 0 && event.pod_sandbox_status.is_some());
            if event.container_event_type() == ContainerStoppedEvent {
                let status = event.containers_statuses.iter().find(|s| s.id == event.container_id).unwrap();
                assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
            }
            seen.push((event.container_id.clone(), event.container_event_type()));
        }
        for (id, expected) in table {
            let kinds: Vec<_> = seen.iter().filter(|(of, _)| *of == id).map(|(_, kind)| *kind).collect();
            assert_eq!(kinds, expected);
        }
        // A reader that stays does not keep the daemon from ending.
        it.service.terminate();
        assert!(it.service.wait_for_end(), "the daemon did not end");
        it.service.launch(&[]);
        it.client = it.service.runtime().await;
        it.remove().await;
    });
}
