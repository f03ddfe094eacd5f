//! Masquerading and host ports by nftables.
//!
//! One table `coracle-<bridge>` holds everything; host ports are elements of two maps, so that a pod is added or removed by
//! one atomic transaction and no rule list grows with the number of pods. The transaction goes to `nft` on standard input.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{Error, HostPort};

const DEADLINE: Duration = Duration::from_secs(10);

/// The rules of a network: idempotent, keeps the elements of running pods.
#[must_use]
pub fn render_table(bridge: &str, subnet: &str) -> String {
    let table = format!("coracle-{bridge}");
    let dnat = "fib daddr type local dnat ip to meta l4proto . ip daddr . th dport map @ports_ip\n\
                fib daddr type local dnat ip to meta l4proto . th dport map @ports_any";
    let mut text = String::new();
    let mut line = |l: String| {
        let _ = writeln!(text, "{l}");
    };
    line(format!("add table ip {table}"));
    line(format!(
        "add map ip {table} ports_any {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}"
    ));
    line(format!(
        "add map ip {table} ports_ip {{ type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service; }}"
    ));
    for (chain, hook) in [("prerouting", -100), ("output", -100), ("postrouting", 100)] {
        line(format!("add chain ip {table} {chain} {{ type nat hook {chain} priority {hook}; }}"));
        line(format!("flush chain ip {table} {chain}"));
    }
    for chain in ["prerouting", "output"] {
        for rule in dnat.lines() {
            line(format!("add rule ip {table} {chain} {rule}"));
        }
    }
    line(format!("add rule ip {table} postrouting ip saddr {subnet} ip daddr != {subnet} masquerade"));
    // A pod that reaches itself or a neighbour through a host port, and the host through 127.0.0.1: the answer has to
    // come back the same way.
    line(format!("add rule ip {table} postrouting ip saddr {subnet} ct status dnat masquerade"));
    line(format!("add rule ip {table} postrouting ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade"));
    text
}

/// Adds (`add`) or removes (`delete`) the host ports of a pod.
#[must_use]
pub fn render_ports(bridge: &str, verb: &str, address: Ipv4Addr, ports: &[HostPort]) -> String {
    let mut text = String::new();
    for port in ports {
        let to = format!("{address} . {}", port.container_port);
        let (map, key) = match port.host_ip {
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => {
                ("ports_ip", format!("{} . {ip} . {}", port.protocol, port.host_port))
            }
            _ => ("ports_any", format!("{} . {}", port.protocol, port.host_port)),
        };
        let _ = writeln!(text, "{verb} element ip coracle-{bridge} {map} {{ {key} : {to} }}");
    }
    text
}

/// Applies one transaction.
pub async fn apply(rules: &str) -> Result<(), Error> {
    if rules.is_empty() {
        return Ok(());
    }
    let run = async {
        let mut child = tokio::process::Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::Nft(format!("cannot be run ({e}); install the package nftables")))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A refusal is told by the exit status; the pipe may be closed early then.
            let _ = stdin.write_all(rules.as_bytes()).await;
        }
        child.wait_with_output().await.map_err(|e| Error::Nft(e.to_string()))
    };
    let output = tokio::time::timeout(DEADLINE, run)
        .await
        .map_err(|_| Error::Nft(format!("no answer within {} s", DEADLINE.as_secs())))??;
    if output.status.success() {
        return Ok(());
    }
    let text: String = String::from_utf8_lossy(&output.stderr).chars().take(500).collect();
    Err(Error::Nft(text.trim().to_owned()))
}

/// The elements of the port maps that lead to `address`, as a transaction that removes them.
pub async fn remove_all_to(bridge: &str, address: Ipv4Addr) -> Result<(), Error> {
    let output = tokio::process::Command::new("nft")
        .args(["-j", "list", "table", "ip", &format!("coracle-{bridge}")])
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|e| Error::Nft(e.to_string()))?;
    if !output.status.success() {
        return Ok(()); // no table, no elements
    }
    let listed = serde_json::from_slice(&output.stdout).map_err(|e| Error::Nft(e.to_string()))?;
    apply(&render_removal(bridge, &elements_to(&listed, address))).await
}

fn render_removal(bridge: &str, elements: &[(String, String)]) -> String {
    elements.iter().fold(String::new(), |mut text, (map, key)| {
        let _ = writeln!(text, "delete element ip coracle-{bridge} {map} {{ {key} }}");
        text
    })
}

/// Map name and key of every element that leads to `address`, from `nft -j list table`.
fn elements_to(listed: &serde_json::Value, address: Ipv4Addr) -> Vec<(String, String)> {
    let objects = listed["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = Vec::new();
    for map in objects.iter().filter_map(|o| o.get("map")) {
        let Some(name) = map["name"].as_str() else { continue };
        for element in map["elem"].as_array().map(Vec::as_slice).unwrap_or_default() {
            if element[1]["concat"][0].as_str() != Some(&address.to_string()) {
                continue;
            }
            let parts = element[0]["concat"].as_array().map(Vec::as_slice).unwrap_or_default();
            let key: Vec<String> =
                parts.iter().map(|p| p.as_str().map_or_else(|| p.to_string(), str::to_owned)).collect();
            found.push((name.to_owned(), key.join(" . ")));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_map_elements() {
        let port = |host_ip: Option<&str>, host_port| HostPort {
            protocol: "tcp".into(),
            host_ip: host_ip.map(|ip| ip.parse().expect("ip")),
            host_port,
            container_port: 80,
        };
        let ports = [port(None, 8080), port(Some("127.0.0.1"), 81), port(Some("0.0.0.0"), 82)];
        let text = render_ports("cor0", "add", Ipv4Addr::new(10, 88, 0, 2), &ports);
        assert_eq!(
            text,
            "add element ip coracle-cor0 ports_any { tcp . 8080 : 10.88.0.2 . 80 }\n\
             add element ip coracle-cor0 ports_ip { tcp . 127.0.0.1 . 81 : 10.88.0.2 . 80 }\n\
             add element ip coracle-cor0 ports_any { tcp . 82 : 10.88.0.2 . 80 }\n"
        );
    }

    #[test]
    fn elements_of_one_address_are_found() {
        let listed = serde_json::json!({"nftables": [{"metainfo": {}}, {"map": {"name": "ports_any", "elem": [
            [{"concat": ["tcp", 8080]}, {"concat": ["10.88.0.2", 80]}],
            [{"concat": ["tcp", 8081]}, {"concat": ["10.88.0.3", 80]}]]}}]});
        let found = elements_to(&listed, Ipv4Addr::new(10, 88, 0, 2));
        assert_eq!(found, [("ports_any".to_owned(), "tcp . 8080".to_owned())]);
    }
}
