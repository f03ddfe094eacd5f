//! The pods of the tutorial, and the requests that they have to answer.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::daemon::{Daemon, write};
use super::images::Images;
use super::interrupt::Interrupt;
use super::{Place, timed, web};

const REPLICAS: usize = 2;
const DEADLINE: Duration = Duration::from_secs(30);

/// What the client of the two-container pod does: it needs no address but localhost.
const CLIENT: &str = "trap 'exit 0' TERM; until wget -q -O - http://127.0.0.1/; do sleep 0.1; done; \
echo 'nginx answered over localhost'; sleep 1000000 & wait";

/// A replica of the web server.
struct Replica {
    name: String,
    ip: String,
    port: u16,
}

/// All pods, running.
pub struct Deployment<'a> {
    daemon: &'a Daemon,
    replicas: Vec<Replica>,
}

impl<'a> Deployment<'a> {
    pub fn start(
        place: &Place,
        daemon: &'a Daemon,
        images: &Images,
        interrupt: &Interrupt,
    ) -> Result<Self, String> {
        let mut replicas = Vec::new();
        for (number, port) in (1..).zip(web::free_ports(8080, REPLICAS)) {
            let name = format!("web-{number}");
            let ports = json!([{"containerPort": 80, "hostPort": port}]);
            run(place, daemon, &name, &json!([{"name": "nginx", "image": images.web, "ports": ports}]))?;
            let ip = ip_of(daemon, &name)?;
            replicas.push(Replica { name, ip, port });
        }
        let containers = json!([
            {"name": "nginx", "image": images.web},
            {"name": "client", "image": images.client, "command": ["sh", "-c", CLIENT]},
        ]);
        run(place, daemon, "pair", &containers)?;
        interrupt.until("pods", DEADLINE, || Ok(Some(())))?;
        Ok(Self { daemon, replicas })
    }

    /// Every request by which the tutorial shows that it works.
    pub fn ask(&self, interrupt: &Interrupt) -> Result<(), String> {
        for replica in &self.replicas {
            let over_ip = (replica.ip.as_str(), 80);
            let over_port = ("127.0.0.1", replica.port);
            for (host, port) in [over_ip, over_port] {
                let url = format!("http://{host}:{port}/");
                let address: SocketAddr =
                    format!("{host}:{port}").parse().map_err(|error| format!("{url}: {error}"))?;
                let what = format!("{}: GET {url}", replica.name);
                let (status, line) = interrupt.until(&what, DEADLINE, || Ok(web::get(address)))?;
                println!("{what:<45} {status}: {line}");
                if !status.contains(" 200") {
                    return Err(format!("{what}: {status}"));
                }
            }
        }
        self.ask_over_localhost(interrupt)?;
        self.ask_from_pod_to_pod()
    }

    fn ask_over_localhost(&self, interrupt: &Interrupt) -> Result<(), String> {
        let what = "pair: client to nginx, http://127.0.0.1/";
        interrupt.until(what, DEADLINE, || {
            let log = self.daemon.read(&["logs", "pair/client"])?;
            Ok(log.contains("answered over localhost").then_some(()))
        })?;
        println!("{what:<45} answered, says the client's log");
        Ok(())
    }

    fn ask_from_pod_to_pod(&self) -> Result<(), String> {
        for replica in &self.replicas {
            let url = format!("http://{}/", replica.ip);
            let answer = self.daemon.read(&["exec", "pair/client", "wget", "-q", "-O", "-", &url])?;
            let what = format!("pair: exec wget {url}");
            println!("{what:<45} {} bytes", answer.len());
        }
        Ok(())
    }

    pub fn print_invitation(&self, daemon: &Daemon) {
        println!("\n== your turn");
        for replica in &self.replicas {
            println!("  curl http://127.0.0.1:{}/", replica.port);
        }
        println!("  export CORACLE_SOCKET={}", daemon.socket().display());
        println!(
            "  {} pods          # then: ps, logs -f web-1, exec, stats, events",
            daemon.program().display()
        );
        println!("\nCtrl-C ends and removes everything.");
    }
}

/// Runs the manifest of a pod; says how long that took.
fn run(place: &Place, daemon: &Daemon, name: &str, containers: &Value) -> Result<(), String> {
    let manifest = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "hello"}},
        "spec": {"containers": containers},
    });
    let file = place.data.join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(&manifest).map_err(|error| error.to_string())?;
    write(&file, &text)?;
    let logs = place.data.join("logs");
    let words = ["run-pod", "--logs", &logs.to_string_lossy(), &file.to_string_lossy()];
    timed(&format!("pod {name}"), || daemon.read(&words).map(|_| ()))
}

fn ip_of(daemon: &Daemon, name: &str) -> Result<String, String> {
    let list: Value = serde_json::from_str(&daemon.read(&["pods", "--format", "json"])?)
        .map_err(|error| format!("coraclectl pods: {error}"))?;
    let pod = list.as_array().into_iter().flatten().find(|pod| pod["name"] == name);
    let ip = pod.and_then(|pod| pod["ips"][0].as_str());
    ip.map(str::to_owned).ok_or_else(|| format!("pod {name} has no address"))
}
