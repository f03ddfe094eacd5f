//! Ports of a pod, reached through the streaming server.

use coracle_integration::cri::{self, block_on};
use coracle_integration::require_root;
use k8s_cri::v1::PortForwardRequest;

use super::Running;
use super::clients::{Spdy, Ws};

/// Two servers in the pod: one on 127.0.0.1, one on ::1 alone.
const SERVERS: &str = "mkdir -p /tmp/www; echo page > /tmp/www/index.html; busybox httpd -p 127.0.0.1:8080 -h /tmp/www; \
                       busybox httpd -p [::1]:8081 -h /tmp/www; echo up; exec sleep 1000";

async fn url(it: &mut Running, ports: &[i32]) -> String {
    let request = PortForwardRequest { pod_sandbox_id: it.pod.clone(), port: ports.to_vec() };
    it.client.port_forward(request).await.unwrap().into_inner().url
}

async fn serving() -> Running {
    let it = Running::start(&SERVERS.replace("mkdir", "busybox mkdir"), |_| ()).await;
    let up = || it.log().iter().any(|line| line.ends_with("up"));
    assert!(coracle_integration::wait::until(coracle_integration::wait::PATIENCE, up), "{:?}", it.log());
    it
}

async fn pair(spdy: &mut Spdy, port: &str, request: &str) -> (u32, u32) {
    let error = [("streamType", "error"), ("port", port), ("requestID", request)];
    let data = [("streamType", "data"), ("port", port), ("requestID", request)];
    (spdy.open(&error).await, spdy.open(&data).await)
}

#[test]
fn ports_of_both_families_are_reached_over_spdy() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = serving().await;
        let url = url(&mut it, &[]).await;
        let mut spdy = Spdy::connect(&it.service, &url, "portforward.k8s.io").await;
        for (port, request) in [("8080", "0"), ("8081", "1"), ("8080", "2")] {
            let (error, data) = pair(&mut spdy, port, request).await;
            spdy.data(data, b"GET / HTTP/1.0\r\n\r\n", false).await;
            let got = spdy.until_closed(&[error, data]).await;
            let answer = String::from_utf8_lossy(&got[&data]);
            assert!(answer.starts_with("HTTP/1.") && answer.ends_with("page\n"), "{port}: {answer}");
            assert!(got[&error].is_empty());
        }
        let (error, data) = pair(&mut spdy, "9", "3").await;
        let got = spdy.until_closed(&[error, data]).await;
        let text = String::from_utf8_lossy(&got[&error]);
        assert!(text.contains("port 9 of pod sandbox") && text.contains("refused"), "{text}");
        drop(spdy);
        it.remove().await;
    });
}

#[test]
fn ports_are_reached_over_a_websocket() {
    require_root!();
    if cri::is_missing_something() {
        return;
    }
    block_on(async {
        let mut it = serving().await;
        let url = url(&mut it, &[8080, 8081]).await;
        let mut ws = Ws::connect(&it.service, &url, "v4.channel.k8s.io").await;
        for channel in [0, 2] {
            ws.bytes(channel, b"GET / HTTP/1.0\r\n\r\n").await;
        }
        let got = ws.until_closed().await;
        assert_eq!((got[&1].as_slice(), got[&3].as_slice()), (&[0x90, 0x1f][..], &[0x91, 0x1f][..]));
        for channel in [0, 2] {
            let answer = String::from_utf8_lossy(&got[&channel][2..]);
            assert!(answer.starts_with("HTTP/1.") && answer.ends_with("page\n"), "{answer}");
        }
        it.remove().await;
    });
}
