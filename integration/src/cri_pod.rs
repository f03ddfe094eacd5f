//! A pod of a [`Service`] with containers of busybox, as a kubelet makes them.

use std::path::PathBuf;

use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cri::{BUSYBOX, Service, pod_config, run_request};
use crate::wait;

/// One pod and a client.
pub struct Pod {
    pub id: String,
    pub config: PodSandboxConfig,
    pub client: RuntimeServiceClient<Channel>,
    logs: PathBuf,
}

/// A daemon with busybox imported.
pub fn service_with_busybox(extra: &str, environment: &[(&str, &str)]) -> Service {
    let mut service = Service::prepare(extra);
    service.import_busybox().expect("import busybox");
    service.launch(environment);
    service
}

/// `sh -c SCRIPT` under this name; the log beside.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: BUSYBOX.into(), ..ImageSpec::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: None,
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption {
                    pid: NamespaceMode::Container as i32,
                    ..NamespaceOption::default()
                }),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

/// The security context of a configuration, to be changed.
pub fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// The limits of a configuration, to be changed.
pub fn resources(config: &mut ContainerConfig) -> &mut LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

impl Pod {
    pub async fn run(service: &Service, name: &str) -> Self {
        Self::run_with(service, pod_config(name)).await
    }

    pub async fn run_with(service: &Service, mut config: PodSandboxConfig) -> Self {
        let name = config.metadata.as_ref().expect("metadata").name.clone();
        let logs = service.path(&format!("logs-{name}"));
        config.log_directory = logs.to_string_lossy().into_owned();
        let mut client = service.runtime().await;
        let answer = client.run_pod_sandbox(run_request(&config)).await.expect("run pod");
        Self { id: answer.into_inner().pod_sandbox_id, config, client, logs }
    }

    /// After a restart of the daemon.
    pub async fn reconnect(&mut self, service: &Service) {
        self.client = service.runtime().await;
    }

    pub fn request(&self, config: &ContainerConfig) -> CreateContainerRequest {
        CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config.clone()),
            sandbox_config: Some(self.config.clone()),
        }
    }

    pub async fn create(&mut self, config: &ContainerConfig) -> Result<String, Status> {
        let request = self.request(config);
        Ok(self.client.create_container(request).await?.into_inner().container_id)
    }

    pub async fn start(&mut self, id: &str) -> Result<(), Status> {
        self.client.start_container(StartContainerRequest { container_id: id.into() }).await.map(drop)
    }

    /// Creates and starts.
    pub async fn launch(&mut self, config: &ContainerConfig) -> String {
        let id = self.create(config).await.expect("create");
        self.start(&id).await.expect("start");
        id
    }

    /// Runs to the end; status, and what stdout got.
    pub async fn finish(&mut self, config: &ContainerConfig) -> (ContainerStatus, String) {
        let id = self.launch(config).await;
        let status = self.ended(&id).await;
        (status, self.output(&config.metadata.as_ref().expect("metadata").name))
    }

    /// The output of a script in a container that is changed by `change`.
    pub async fn output_of(
        &mut self,
        name: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> String {
        let mut config = shell(name, script);
        change(&mut config);
        let (status, output) = self.finish(&config).await;
        assert_eq!(status.exit_code, 0, "{script}: {status:?}\n{:?}", self.log(name));
        output
    }

    pub async fn status(&mut self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
        Ok(self.client.container_status(request).await?.into_inner().status.expect("status"))
    }

    pub async fn verbose(&mut self, id: &str) -> serde_json::Value {
        let request = ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.client.container_status(request).await.expect("status").into_inner().info;
        serde_json::from_str(&info["info"]).expect("info is JSON")
    }

    /// Waits for the end of a container.
    pub async fn ended(&mut self, id: &str) -> ContainerStatus {
        self.until(id, |s| s.state() == ContainerState::ContainerExited).await
    }

    pub async fn until(&mut self, id: &str, wanted: impl Fn(&ContainerStatus) -> bool) -> ContainerStatus {
        let end = std::time::Instant::now() + wait::PATIENCE;
        loop {
            let status = self.status(id).await.expect("status");
            if wanted(&status) {
                return status;
            }
            assert!(std::time::Instant::now() < end, "still {status:?}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub async fn stop(&mut self, id: &str, timeout: i64) -> Result<(), Status> {
        let request = StopContainerRequest { container_id: id.into(), timeout };
        self.client.stop_container(request).await.map(drop)
    }

    pub async fn remove(&mut self, id: &str) -> Result<(), Status> {
        self.client.remove_container(RemoveContainerRequest { container_id: id.into() }).await.map(drop)
    }

    pub async fn list(&mut self) -> Vec<Container> {
        let request = ListContainersRequest::default();
        self.client.list_containers(request).await.expect("list").into_inner().containers
    }

    /// Removes the pod with all that is in it.
    pub async fn end(&mut self) {
        let stop = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.client.stop_pod_sandbox(stop).await.expect("stop pod");
        let remove = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.client.remove_pod_sandbox(remove).await.expect("remove pod");
        let status = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        assert_eq!(self.client.pod_sandbox_status(status).await.expect_err("removed").code(), Code::NotFound);
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// The entries of a log as (stream, tag, text).
    pub fn log(&self, name: &str) -> Vec<(String, String, String)> {
        entries(&std::fs::read_to_string(self.log_path(name)).unwrap_or_default())
    }

    /// What a container wrote to stdout, whole lines.
    pub fn output(&self, name: &str) -> String {
        let log = self.log(name);
        let own = log.iter().filter(|(stream, ..)| stream == "stdout");
        own.map(|(_, tag, text)| if tag == "F" { format!("{text}\n") } else { text.clone() }).collect()
    }
}

/// Parses a CRI log; a line that is none is a failure.
pub fn entries(text: &str) -> Vec<(String, String, String)> {
    let parse = |line: &str| {
        let mut parts = line.splitn(4, ' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let known = time.contains('T') && matches!(stream, "stdout" | "stderr") && matches!(tag, "F" | "P");
        known.then(|| (stream.to_owned(), tag.to_owned(), parts.next().unwrap_or_default().to_owned()))
    };
    text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("no CRI log entry: {line:?}"))).collect()
}

/// Fails where anything of a pod is left once the kernel has taken away what it does later (the interfaces of a namespace).
pub fn none_left(service: &Service) {
    let left = service.leftovers_in_the_end();
    assert!(left.is_empty(), "left: {left:#?}\nlog:\n{}", service.log());
}

/// Returns from the test, recorded as skipped, unless a daemon with pods can run here.
#[macro_export]
macro_rules! require_pods {
    () => {
        $crate::require_root!();
        if $crate::cri::is_missing_something() {
            return;
        }
    };
}
