//! Where the images come from: Docker Hub where it can be reached, else this machine's own Debian packages through a
//! registry on loopback.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

use coracle_integration::images::Registry;
use coracle_integration::web_image;

use super::daemon::Daemon;
use super::interrupt::Interrupt;
use super::{Place, timed};

const HUB: &str = "registry-1.docker.io:443";

/// Names of images, pulled.
pub struct Images {
    pub web: String,
    pub client: String,
}

/// Pulls both images.
pub fn provide(place: &Place, daemon: &Daemon, interrupt: &Interrupt) -> Result<Images, String> {
    interrupt.until("start", Duration::from_secs(1), || Ok(Some(())))?;
    if hub_answers() {
        println!("Docker Hub can be reached: nginx:alpine and busybox come from there");
        let images = Images {
            web: "docker.io/library/nginx:alpine".into(),
            client: "docker.io/library/busybox:latest".into(),
        };
        match pull(daemon, &images) {
            Ok(()) => return Ok(images),
            Err(error) => println!("Docker Hub gives no images ({error}); they are made here"),
        }
    } else {
        println!(
            "Docker Hub cannot be reached from here: the images are made of this machine's Debian packages"
        );
        println!("and pulled from a registry on loopback");
    }
    let describe = |error: std::io::Error| format!("make images: {error}");
    let work = place.data.join("images");
    std::fs::create_dir_all(&work).map_err(describe)?;
    let (web, client) = timed("make the images nginx and client", || {
        let web = web_image::nginx(&work, &work.join("debs")).map_err(describe)?;
        Ok((web, web_image::client(&work).map_err(describe)?))
    })?;
    let registry = Registry::start(&work).map_err(|error| format!("docker-registry: {error}"))?;
    let images = timed("push them to the registry", || {
        let push = |layout, name| {
            registry.push_layout(layout, name).map_err(|error| format!("push {name}: {error}"))
        };
        Ok(Images { web: push(&web, "nginx")?, client: push(&client, "client")? })
    })?;
    pull(daemon, &images)?;
    Ok(images)
}

fn pull(daemon: &Daemon, images: &Images) -> Result<(), String> {
    for name in [&images.web, &images.client] {
        timed(&format!("pull {name}"), || daemon.read(&["pull", name]))?;
    }
    Ok(())
}

/// Whether a connection comes about within a few seconds; a proxy is trusted to lead there.
fn hub_answers() -> bool {
    if ["HTTPS_PROXY", "https_proxy"].iter().any(|name| std::env::var_os(name).is_some()) {
        return true;
    }
    let (sender, receiver) = mpsc::channel();
    // Name resolution has no deadline of its own.
    std::thread::spawn(move || {
        let reached = HUB.to_socket_addrs().is_ok_and(|mut addresses| {
            addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok())
        });
        let _ = sender.send(reached);
    });
    receiver.recv_timeout(Duration::from_secs(5)).unwrap_or(false)
}
