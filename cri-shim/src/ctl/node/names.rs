//! From what people type to pods and containers: a name, `pod/container`, or the beginning of an id.
//!
//! An exact name counts before the beginning of an id. Of several attempts of the same container the newest is meant.
//! What means more than one object is refused, with the list of what it could be.

use coracle_image_store::ErrorKind;
use k8s_cri::v1::{
    Container, ContainerState, ListContainersRequest, ListPodSandboxRequest, PodSandbox, PodSandboxState,
};

use super::{Node, short};
use crate::ctl::failure::Failure;

/// Everything that runs or ran on the node, read once a command.
pub(super) struct Known {
    pub pods: Vec<PodSandbox>,
    pub containers: Vec<Container>,
}

/// A thing with a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Found<'a> {
    Pod(&'a PodSandbox),
    Container(&'a Container),
}

impl Found<'_> {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.id,
            Self::Container(container) => &container.id,
        }
    }
}

impl Known {
    pub(super) fn load(node: &Node) -> Result<Self, Failure> {
        let pods = node.ask(node.cri().list_pod_sandbox(ListPodSandboxRequest::default()))?.items;
        let containers = node.ask(node.cri().list_containers(ListContainersRequest::default()))?.containers;
        Ok(Self { pods, containers })
    }

    pub(super) fn pod_of(&self, container: &Container) -> Option<&PodSandbox> {
        self.pods.iter().find(|pod| pod.id == container.pod_sandbox_id)
    }

    pub(super) fn containers_of(&self, pod: &PodSandbox) -> Vec<&Container> {
        self.containers.iter().filter(|container| container.pod_sandbox_id == pod.id).collect()
    }

    /// A pod or a container.
    pub(super) fn any(&self, text: &str) -> Result<Found<'_>, Failure> {
        let mut found: Vec<Found<'_>> = self.pods_named(text).into_iter().map(Found::Pod).collect();
        found.extend(self.containers_named(text).into_iter().map(Found::Container));
        if found.is_empty() {
            found.extend(self.pods.iter().filter(|pod| begins(&pod.id, text)).map(Found::Pod));
            let containers = self.containers.iter().filter(|container| begins(&container.id, text));
            found.extend(containers.map(Found::Container));
        }
        self.only(text, "pod or container", found)
    }

    /// What a command is to work on: everything named, or each pod that `wanted` lets pass.
    pub(super) fn targets<'a>(
        &'a self,
        names: &[String],
        all: bool,
        wanted: impl Fn(&PodSandbox) -> bool,
    ) -> Result<Vec<Found<'a>>, Failure> {
        if all {
            return Ok(self.pods.iter().filter(|pod| wanted(pod)).map(Found::Pod).collect());
        }
        names.iter().map(|name| self.any(name)).collect()
    }

    pub(super) fn pod(&self, text: &str) -> Result<&PodSandbox, Failure> {
        let mut found = self.pods_named(text);
        if found.is_empty() {
            found = self.pods.iter().filter(|pod| begins(&pod.id, text)).collect();
        }
        match self.only(text, "pod", found.into_iter().map(Found::Pod).collect())? {
            Found::Pod(pod) => Ok(pod),
            Found::Container(_) => Err(missing("pod", text)),
        }
    }

    /// A container; the name of a pod with only one container means that one.
    pub(super) fn container(&self, text: &str) -> Result<&Container, Failure> {
        let mut found = self.containers_named(text);
        if found.is_empty() {
            found = self.containers.iter().filter(|container| begins(&container.id, text)).collect();
        }
        if found.is_empty() {
            let pods = self.pods_named(text);
            found = newest(pods.iter().flat_map(|pod| self.containers_of(pod)).collect());
        }
        match self.only(text, "container", found.into_iter().map(Found::Container).collect())? {
            Found::Container(container) => Ok(container),
            Found::Pod(_) => Err(missing("container", text)),
        }
    }

    fn pods_named(&self, text: &str) -> Vec<&PodSandbox> {
        let is_meant = |pod: &&PodSandbox| {
            pod.metadata.as_ref().is_some_and(|data| {
                data.name == text || text.split_once('/') == Some((&data.namespace, &data.name))
            })
        };
        let found: Vec<_> = self.pods.iter().filter(is_meant).collect();
        // Of a pod that was made anew, the one that is ready.
        let ready: Vec<_> = found.iter().copied().filter(|pod| is_ready(pod)).collect();
        if ready.len() == 1 { ready } else { found }
    }

    fn containers_named(&self, text: &str) -> Vec<&Container> {
        let is_meant = |container: &&Container| {
            let name = container_name(container);
            name == text
                || text.rsplit_once('/').is_some_and(|(of, last)| {
                    last == name && self.pods_named(of).iter().any(|pod| pod.id == container.pod_sandbox_id)
                })
        };
        newest(self.containers.iter().filter(is_meant).collect())
    }

    fn only<'a>(&'a self, text: &str, kind: &str, found: Vec<Found<'a>>) -> Result<Found<'a>, Failure> {
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(missing(kind, text)),
            several => {
                let list: Vec<String> = several.iter().map(|one| self.describe(one)).collect();
                let text = format!("{text} means {} objects: {}", several.len(), list.join(", "));
                Err(Failure::usage(text).with_hint("name one by pod/container or by its id"))
            }
        }
    }

    fn describe(&self, found: &Found<'_>) -> String {
        match found {
            Found::Pod(pod) => format!("pod {} ({})", pod_name(pod), short(&pod.id)),
            Found::Container(container) => {
                let pod = self.pod_of(container).map(pod_name).unwrap_or_default();
                format!("{pod}/{} ({})", container_name(container), short(&container.id))
            }
        }
    }
}

fn missing(kind: &str, text: &str) -> Failure {
    let list = if kind == "container" { "coraclectl ps -a" } else { "coraclectl pods" };
    Failure::of_kind(ErrorKind::NotFound, format!("there is no {kind} {text}"))
        .with_hint(format!("`{list}` lists what there is"))
}

fn begins(id: &str, text: &str) -> bool {
    !text.is_empty() && id.starts_with(text)
}

/// Of each container of a pod its newest attempt.
fn newest(mut found: Vec<&Container>) -> Vec<&Container> {
    found.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    let mut seen = Vec::new();
    found.retain(|container| {
        let key = (container.pod_sandbox_id.as_str(), container_name(container));
        let first = !seen.contains(&key);
        seen.push(key);
        first
    });
    found
}

pub(super) fn is_ready(pod: &PodSandbox) -> bool {
    pod.state == PodSandboxState::SandboxReady as i32
}

pub(super) fn is_running(container: &Container) -> bool {
    container.state == ContainerState::ContainerRunning as i32
}

pub(super) fn pod_name(pod: &PodSandbox) -> &str {
    pod.metadata.as_ref().map_or("", |data| &data.name)
}

pub(super) fn container_name(container: &Container) -> &str {
    container.metadata.as_ref().map_or("", |data| &data.name)
}

/// The word for a container's state.
pub(super) fn state(state: i32) -> &'static str {
    match ContainerState::try_from(state) {
        Ok(ContainerState::ContainerCreated) => "created",
        Ok(ContainerState::ContainerRunning) => "running",
        Ok(ContainerState::ContainerExited) => "exited",
        Ok(ContainerState::ContainerUnknown) | Err(_) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::{ContainerMetadata, PodSandboxMetadata};

    use super::*;

    fn pod(id: &str, namespace: &str, name: &str) -> PodSandbox {
        let metadata = PodSandboxMetadata {
            name: name.into(),
            namespace: namespace.into(),
            ..PodSandboxMetadata::default()
        };
        PodSandbox { id: id.into(), metadata: Some(metadata), ..PodSandbox::default() }
    }

    fn container(id: &str, pod: &str, name: &str, created_at: i64) -> Container {
        let metadata = Some(ContainerMetadata { name: name.into(), attempt: 0 });
        Container { id: id.into(), pod_sandbox_id: pod.into(), metadata, created_at, ..Container::default() }
    }

    fn known() -> Known {
        Known {
            pods: vec![pod("p1", "default", "web"), pod("p2", "default", "db"), pod("p3", "test", "db")],
            containers: vec![
                container("c1", "p1", "nginx", 1),
                container("c2", "p1", "nginx", 2),
                container("c3", "p2", "main", 1),
                container("c4", "p3", "main", 1),
            ],
        }
    }

    fn id(found: Result<Found<'_>, Failure>) -> Option<String> {
        found.ok().map(|one| one.id().to_owned())
    }

    #[test]
    fn names_ids_and_paths() {
        let known = known();
        for (text, expected) in [
            ("web", Some("p1")),
            ("nginx", Some("c2")),
            ("web/nginx", Some("c2")),
            ("c1", Some("c1")),
            ("default/db", Some("p2")),
            ("test/db/main", Some("c4")),
            ("main", None),
            ("db", None),
            ("p", None),
            ("", None),
            ("nothing", None),
        ] {
            assert_eq!(id(known.any(text)).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_pod_of_one_container_means_it() {
        let known = known();
        assert_eq!(known.container("web").map(|c| c.id.as_str()).ok(), Some("c2"));
        assert!(known.container("db").is_err(), "two pods of that name");
        assert!(known.container("db").err().is_some_and(|failure| !failure.is_not_found()));
        assert!(known.pod("nginx").err().is_some_and(|failure| failure.is_not_found()));
    }
}
