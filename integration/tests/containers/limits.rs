//! Limits, as the kernel has them, and what happens beyond them.

use coracle_integration::cri::block_on;
use coracle_integration::cri_pod::{Pod, none_left, resources, service_with_busybox, shell};
use coracle_integration::require_pods;
use k8s_cri::v1::*;

/// A file of the container's group in a controller of cgroup v1.
fn limit(pod: &str, id: &str, controller: &str, file: &str) -> String {
    let path = format!("/sys/fs/cgroup/{controller}/coracle/{pod}/{id}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

fn on_v1() -> bool {
    std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
}

#[test]
fn limits_are_the_kernels_and_change() {
    require_pods!();
    if !on_v1() {
        let test = "limits_are_the_kernels_and_change";
        return coracle_integration::privilege::record_skip(test, "reads files of cgroup v1");
    }
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "limits").await;
        let mut config = shell("a", "sleep 1000");
        *resources(&mut config) = LinuxContainerResources {
            cpu_shares: 512,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            cpuset_cpus: "0".into(),
            memory_limit_in_bytes: 64 << 20,
            oom_score_adj: 500,
            ..LinuxContainerResources::default()
        };
        let id = pod.launch(&config).await;
        let own = pod.id.clone();
        let of = |controller: &str, file: &str| limit(&own, &id, controller, file);
        assert_eq!(of("cpu", "cpu.shares"), "512");
        assert_eq!(of("cpu", "cpu.cfs_quota_us"), "20000");
        assert_eq!(of("cpuset", "cpuset.cpus"), "0");
        assert_eq!(of("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
        let pid = pod.verbose(&id).await["pid"].as_i64().unwrap();
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "500");

        let update = UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(LinuxContainerResources {
                cpu_shares: 256,
                memory_limit_in_bytes: 128 << 20,
                ..LinuxContainerResources::default()
            }),
            ..UpdateContainerResourcesRequest::default()
        };
        pod.client.update_container_resources(update.clone()).await.unwrap();
        assert_eq!(of("cpu", "cpu.shares"), "256");
        assert_eq!(of("cpu", "cpu.cfs_quota_us"), "20000", "what is not set stays");
        assert_eq!(of("memory", "memory.limit_in_bytes"), (128 << 20).to_string());
        let shown = pod.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!(
            (shown.cpu_shares, shown.cpu_quota, shown.memory_limit_in_bytes),
            (256, 20_000, 128 << 20)
        );
        pod.stop(&id, 0).await.unwrap();
        let error = pod.client.update_container_resources(update).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::FailedPrecondition);
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn lack_of_memory_is_the_reason() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "oom").await;
        let mut config = shell("a", "x=0123456789abcdef; while :; do x=$x$x; done");
        resources(&mut config).memory_limit_in_bytes = 16 << 20;
        let (status, _) = pod.finish(&config).await;
        assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137));
        pod.end().await;
    });
    none_left(&service);
}
