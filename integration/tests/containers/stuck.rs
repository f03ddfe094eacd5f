//! What cannot be killed is not called stopped.

use coracle_integration::cri::block_on;
use coracle_integration::cri_pod::{Pod, none_left, service_with_busybox, shell};
use coracle_integration::stuck::StuckFs;
use coracle_integration::{privilege, require_pods, wait};
use k8s_cri::v1::*;

#[test]
fn a_process_that_cannot_be_killed_is_named() {
    require_pods!();
    if !std::path::Path::new("/dev/fuse").exists() {
        return privilege::record_skip("a_process_that_cannot_be_killed_is_named", "no /dev/fuse");
    }
    let service = service_with_busybox("", &[]);
    let stuck = StuckFs::mount(&service.path("stuck")).unwrap();
    block_on(async {
        let mut pod = Pod::run(&service, "stuck").await;
        let mut config = shell("a", "echo begun; cat /mnt/file; echo never");
        config.mounts = vec![Mount {
            container_path: "/mnt".into(),
            host_path: service.path("stuck").to_string_lossy().into_owned(),
            ..Mount::default()
        }];
        let id = pod.launch(&config).await;
        let sibling = pod.launch(&shell("b", "i=0; while :; do echo $i; i=$((i+1)); done")).await;
        assert!(wait::until(wait::PATIENCE, || pod.output("a").contains("begun")));
        let error = pod.stop(&id, 0).await.unwrap_err();
        assert!(error.message().contains("pid ") && error.message().contains(" s old"), "{error}");
        assert!(error.message().contains("state D"), "{error}");
        let status = pod.status(&id).await.unwrap();
        assert_eq!(status.state(), ContainerState::ContainerRunning, "its volumes must not be detached");
        assert_eq!(pod.status(&sibling).await.unwrap().state(), ContainerState::ContainerRunning);
        let lines = pod.log("b").len();
        assert!(wait::until(wait::PATIENCE, || pod.log("b").len() > lines), "the sibling logs on");
        pod.stop(&sibling, 0).await.unwrap();
        stuck.abort();
        let ended = pod.ended(&id).await;
        assert_eq!(ended.exit_code, 137);
        pod.end().await;
    });
    drop(stuck);
    none_left(&service);
}
