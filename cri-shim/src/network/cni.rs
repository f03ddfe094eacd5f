//! CNI plugins, by exec (CNI specification 1.1: ADD, DEL, results cached by the caller).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Attachment, Error, PodRef, netns};

/// A plugin chain as read from the configuration directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    pub version: String,
    pub plugins: Vec<Value>,
}

/// Where configurations and plugins lie, and how long a plugin may take.
#[derive(Debug, Clone)]
pub struct Cni {
    pub conf_dir: PathBuf,
    pub bin_dirs: Vec<PathBuf>,
    pub deadline: Duration,
}

const MAX_OUTPUT: u64 = 1 << 20;
const MAX_CONFIG: u64 = 1 << 20;

impl Cni {
    /// Loads the first configuration in lexical order, as every CRI runtime does.
    pub fn chain(&self) -> Result<Chain, Error> {
        let fail =
            |why: String| Error::Cni { plugin: self.conf_dir.display().to_string(), command: "load", why };
        let mut files: Vec<PathBuf> = std::fs::read_dir(&self.conf_dir)
            .map_err(|e| fail(e.to_string()))?
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| matches!(p.extension().and_then(|e| e.to_str()), Some("conf" | "conflist" | "json")))
            .collect();
        files.sort();
        let path = files.first().ok_or_else(|| fail("no configuration file".into()))?;
        let text = read_bounded(path).map_err(|e| fail(format!("{}: {e}", path.display())))?;
        parse_chain(&text).map_err(|why| fail(format!("{}: {why}", path.display())))
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.chain().err().map(|e| e.to_string())
    }

    pub(super) async fn add(&self, pod: &PodRef, intended: &Attachment) -> Result<Attachment, Error> {
        let chain = intended.cni_chain.clone().map_or_else(|| self.chain(), Ok)?;
        let mut result: Option<Value> = None;
        for plugin in &chain.plugins {
            let config = render_config(&chain, plugin, pod, result.as_ref());
            result = Some(self.execute("ADD", plugin, &config, pod).await?);
        }
        let result = result.unwrap_or_else(|| json!({}));
        Ok(Attachment { ips: ips_of(&result), cni_result: Some(result), cni_chain: Some(chain) })
    }

    /// Runs the chain backwards; a plugin's failure does not keep the others from being called.
    pub(super) async fn del(&self, pod: &PodRef, attachment: &Attachment) -> Result<(), Error> {
        let Some(chain) = &attachment.cni_chain else { return Ok(()) };
        let mut first = Ok(());
        for plugin in chain.plugins.iter().rev() {
            let config = render_config(chain, plugin, pod, attachment.cni_result.as_ref());
            let done = self.execute("DEL", plugin, &config, pod).await.map(|_| ());
            if first.is_ok() {
                first = done;
            }
        }
        first
    }

    async fn execute(
        &self,
        command: &'static str,
        plugin: &Value,
        config: &Value,
        pod: &PodRef,
    ) -> Result<Value, Error> {
        let kind = plugin["type"].as_str().unwrap_or_default().to_owned();
        let fail = |why: String| Error::Cni { plugin: kind.clone(), command, why };
        let binary =
            self.find(&kind).ok_or_else(|| fail(format!("no such plugin in {:?}", self.bin_dirs)))?;
        let run = run_plugin(&binary, command, config, pod, &self.bin_dirs);
        let (ok, stdout, stderr) = tokio::time::timeout(self.deadline, run)
            .await
            .map_err(|_| fail(format!("no answer within {} s", self.deadline.as_secs())))?
            .map_err(|e| fail(e.to_string()))?;
        if ok {
            return Ok(serde_json::from_slice(&stdout).unwrap_or(Value::Null));
        }
        let told: Value = serde_json::from_slice(&stdout).unwrap_or(Value::Null);
        let text = told["msg"].as_str().map_or_else(
            || String::from_utf8_lossy(&stderr).trim().to_owned(),
            |msg| format!("{msg} {}", told["details"].as_str().unwrap_or_default()).trim().to_owned(),
        );
        Err(fail(text))
    }

    fn find(&self, kind: &str) -> Option<PathBuf> {
        // A type is a file name: a separator in it would leave the plugin directories.
        if kind.is_empty() || kind.contains('/') {
            return None;
        }
        self.bin_dirs.iter().map(|d| d.join(kind)).find(|p| p.is_file())
    }
}

async fn run_plugin(
    binary: &Path,
    command: &str,
    config: &Value,
    pod: &PodRef,
    bin_dirs: &[PathBuf],
) -> std::io::Result<(bool, Vec<u8>, Vec<u8>)> {
    let paths: Vec<_> = bin_dirs.iter().map(|d| d.display().to_string()).collect();
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.id, pod.uid
    );
    // Gone after a reboot: the specification has it empty then, and plugins clean up what is outside of it.
    let gone = command == "DEL" && !netns::is_pinned(&pod.netns);
    let path = if gone { Path::new("") } else { &pod.netns };
    let mut child = tokio::process::Command::new(binary)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &pod.id)
        .env("CNI_NETNS", path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", args)
        .env("CNI_PATH", paths.join(":"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(config.to_string().as_bytes()).await;
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read_out = async {
        match stdout {
            Some(s) => s.take(MAX_OUTPUT).read_to_end(&mut out).await,
            None => Ok(0),
        }
    };
    let read_err = async {
        match stderr {
            Some(s) => s.take(MAX_OUTPUT).read_to_end(&mut err).await,
            None => Ok(0),
        }
    };
    tokio::try_join!(read_out, read_err)?;
    let status = child.wait().await?;
    Ok((status.success(), out, err))
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_CONFIG).read_to_string(&mut text)?;
    Ok(text)
}

/// A `.conflist`, or a single plugin's `.conf` as a chain of one.
fn parse_chain(text: &str) -> Result<Chain, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let name = value["name"].as_str().filter(|n| !n.is_empty()).ok_or("no name")?.to_owned();
    let version = value["cniVersion"].as_str().unwrap_or("0.1.0").to_owned();
    let plugins = match value.get("plugins").and_then(Value::as_array) {
        Some(list) => list.clone(),
        None => vec![value.clone()],
    };
    if plugins.is_empty() || plugins.iter().any(|p| p["type"].as_str().unwrap_or_default().is_empty()) {
        return Err("a plugin without a type".into());
    }
    Ok(Chain { name, version, plugins })
}

/// What a plugin reads: its own configuration, name and version of the list, the runtime configuration for the
/// capabilities that it declares, the previous result.
fn render_config(chain: &Chain, plugin: &Value, pod: &PodRef, previous: Option<&Value>) -> Value {
    let mut config = plugin.clone();
    config["name"] = json!(chain.name);
    config["cniVersion"] = json!(chain.version);
    if plugin["capabilities"]["portMappings"] == json!(true) && !pod.ports.is_empty() {
        config["runtimeConfig"]["portMappings"] = pod
            .ports
            .iter()
            .map(|p| {
                let ip = p.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
                json!({"hostPort": p.host_port, "containerPort": p.container_port, "protocol": p.protocol, "hostIP": ip})
            })
            .collect();
    }
    if let Some(object) = config.as_object_mut() {
        object.remove("capabilities");
    }
    if let Some(previous) = previous {
        config["prevResult"] = previous.clone();
    }
    config
}

fn ips_of(result: &Value) -> Vec<std::net::IpAddr> {
    let list = result["ips"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::HostPort;
    use super::*;

    #[test]
    fn chains_are_lists_or_single_plugins() {
        let list = parse_chain(
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#,
        );
        assert_eq!(list.expect("valid").plugins.len(), 2);
        assert_eq!(parse_chain(r#"{"name":"n","type":"bridge"}"#).expect("valid").plugins.len(), 1);
        for bad in ["", "{}", r#"{"name":"n"}"#, r#"{"name":"n","plugins":[]}"#, r#"{"name":"","type":"x"}"#]
        {
            assert!(parse_chain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_mappings_go_only_to_plugins_that_ask() {
        let chain = Chain { name: "n".into(), version: "1.0.0".into(), plugins: vec![] };
        let port = HostPort { protocol: "tcp".into(), host_ip: None, host_port: 1, container_port: 2 };
        let pod = PodRef {
            id: "i".into(),
            name: "p".into(),
            namespace: "d".into(),
            uid: "u".into(),
            netns: "/n".into(),
            ports: vec![port],
        };
        let asks = render_config(
            &chain,
            &json!({"type": "portmap", "capabilities": {"portMappings": true}}),
            &pod,
            None,
        );
        assert_eq!(asks["runtimeConfig"]["portMappings"][0]["hostPort"], json!(1));
        let other = render_config(&chain, &json!({"type": "bridge"}), &pod, Some(&json!({"ips": []})));
        assert_eq!(other.get("runtimeConfig"), None);
        assert_eq!(other["prevResult"], json!({"ips": []}));
    }

    #[test]
    fn a_plugin_type_never_leaves_the_directories() {
        let cni = Cni { conf_dir: "/".into(), bin_dirs: vec!["/".into()], deadline: Duration::from_secs(1) };
        assert_eq!(cni.find("../bin/sh"), None);
        assert_eq!(cni.find(""), None);
    }
}
