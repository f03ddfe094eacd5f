//! UpdateContainerResources: new limits, by the runtime's own `update`.

use std::io::Write as _;
use std::sync::Arc;

use k8s_cri::v1::{
    LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse,
};
use tonic::Status;

use super::error::Error;
use super::{find, processes};
use crate::daemon::Daemon;
use crate::oci;
use crate::record::ContainerState;

pub async fn update_resources(
    daemon: &Arc<Daemon>,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Status> {
    let entry = find(daemon, &request.container_id)?;
    let _turn = entry.turn().await;
    let container = entry.get();
    if !matches!(container.state, ContainerState::Created | ContainerState::Running) {
        return Err(Error::State {
            id: container.id,
            state: container.state,
            action: "updating its resources",
            needs: "created or running",
        }
        .into());
    }
    let Some(asked) = request.linux else { return Ok(UpdateContainerResourcesResponse {}) };
    let limits = oci::resources::limits(&asked).map_err(Error::from)?;
    let path = daemon.container_directory(&container.id).join("resources.json");
    let write = || std::fs::File::create(&path)?.write_all(limits.to_string().as_bytes());
    write().map_err(Error::path("write", &path))?;
    let file = path.to_string_lossy();
    processes::runtime(daemon, &container.id, &["update", "--resources", &file, &container.id]).await?;
    entry
        .update(|c| {
            let linux = c.config.linux.get_or_insert_default();
            merge(linux.resources.get_or_insert_default(), asked);
        })
        .map_err(Error::from)?;
    Ok(UpdateContainerResourcesResponse {})
}

/// What is not set (0, empty) stays as it was.
fn merge(into: &mut LinuxContainerResources, from: LinuxContainerResources) {
    let number = |into: &mut i64, from: i64| {
        if from != 0 {
            *into = from;
        }
    };
    number(&mut into.cpu_period, from.cpu_period);
    number(&mut into.cpu_quota, from.cpu_quota);
    number(&mut into.cpu_shares, from.cpu_shares);
    number(&mut into.memory_limit_in_bytes, from.memory_limit_in_bytes);
    number(&mut into.oom_score_adj, from.oom_score_adj);
    number(&mut into.memory_swap_limit_in_bytes, from.memory_swap_limit_in_bytes);
    for (into, from) in [(&mut into.cpuset_cpus, from.cpuset_cpus), (&mut into.cpuset_mems, from.cpuset_mems)]
    {
        if !from.is_empty() {
            *into = from;
        }
    }
    if !from.hugepage_limits.is_empty() {
        into.hugepage_limits = from.hugepage_limits;
    }
    into.unified.extend(from.unified);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_set_changes() {
        let mut resources =
            LinuxContainerResources { cpu_shares: 5, memory_limit_in_bytes: 7, ..Default::default() };
        merge(&mut resources, LinuxContainerResources { cpu_shares: 9, ..Default::default() });
        assert_eq!((resources.cpu_shares, resources.memory_limit_in_bytes), (9, 7));
    }
}
