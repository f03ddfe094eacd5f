//! The process of a container: arguments, environment, working directory, user, privileges.

use k8s_cri::v1::LinuxContainerSecurityContext;
use serde_json::{Value, json};

use super::{Invalid, Request, capabilities};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn for_container(
    request: &Request<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Value, Invalid> {
    let config = request.config;
    let mut process = json!({
        "args": args(request)?,
        "env": env(request),
        "cwd": cwd(request)?,
        "terminal": config.tty,
        "user": {
            "uid": request.user.uid,
            "gid": request.user.gid,
            "additionalGids": request.user.additional_gids,
        },
        "capabilities": capabilities::for_container(security, request.held_capabilities),
        "noNewPrivileges": security.no_new_privs,
    });
    if let Some(resources) = config.linux.as_ref().and_then(|l| l.resources.as_ref()) {
        // Where the privilege to go lower is missing, the least that can be given is better than no container.
        let score = resources.oom_score_adj.max(request.oom_score_floor.unwrap_or(i64::MIN));
        process["oomScoreAdj"] = json!(score);
    }
    if let Some(profile) = apparmor(security)? {
        process["apparmorProfile"] = json!(profile);
    }
    Ok(process)
}

/// Kubernetes' table of command and args: `command` replaces the entrypoint and drops the image's `Cmd`.
fn args(request: &Request<'_>) -> Result<Vec<String>, Invalid> {
    let (config, image) = (request.config, request.image);
    let mut args = config.command.clone();
    let mut rest = config.args.clone();
    if args.is_empty() {
        args.clone_from(&image.entrypoint);
        if rest.is_empty() {
            rest.clone_from(&image.cmd);
        }
    }
    args.extend(rest);
    if args.is_empty() { Err(Invalid::NoCommand) } else { Ok(args) }
}

/// The image's environment, then the request's; a later entry of the same name replaces the earlier.
fn env(request: &Request<'_>) -> Vec<String> {
    let mut env: Vec<String> = vec![DEFAULT_PATH.into()];
    if request.config.tty {
        env.push("TERM=xterm".into());
    }
    env.push(format!("HOSTNAME={}", request.pod.hostname));
    let asked = request.config.envs.iter().map(|kv| format!("{}={}", kv.key, kv.value));
    for entry in request.image.env.iter().cloned().chain(asked) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match env.iter().position(|e| e.split('=').next() == Some(&name)) {
            Some(at) => env[at] = entry,
            None => env.push(entry),
        }
    }
    env
}

fn cwd(request: &Request<'_>) -> Result<String, Invalid> {
    let asked = [&request.config.working_dir, &request.image.working_dir].into_iter().find(|d| !d.is_empty());
    let cwd = asked.map_or("/", String::as_str);
    if cwd.starts_with('/') {
        Ok(cwd.to_owned())
    } else {
        Err(Invalid::Field { field: "working_dir", why: format!("{cwd:?} is not absolute") })
    }
}

fn apparmor(security: &LinuxContainerSecurityContext) -> Result<Option<String>, Invalid> {
    use k8s_cri::v1::security_profile::ProfileType;
    if security.privileged {
        return Ok(None);
    }
    match &security.apparmor {
        Some(p) if p.profile_type() == ProfileType::Localhost => {
            let name = p.localhost_ref.strip_prefix("localhost/").unwrap_or(&p.localhost_ref);
            if name.is_empty() {
                return Err(Invalid::Field { field: "apparmor.localhost_ref", why: "is empty".into() });
            }
            Ok(Some(name.to_owned()))
        }
        // RuntimeDefault needs a loaded profile of ours; without one it means the host's default, as for unconfined.
        _ => Ok(None),
    }
}
