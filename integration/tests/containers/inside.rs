//! What a container sees of itself: users, mounts, privileges, names.

use coracle_integration::cri::{block_on, pod_config};
use coracle_integration::cri_pod::{Pod, none_left, security, service_with_busybox, shell};
use coracle_integration::require_pods;
use k8s_cri::v1::*;
use tonic::Code;

#[test]
fn users_and_groups() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "users").await;
        assert_eq!(pod.output_of("root", "id -u; id -g", |_| ()).await, "0\n0\n");
        let named = pod
            .output_of("named", "id -u; id -g; id -G; env", |c| security(c).run_as_username = "www".into())
            .await;
        assert!(named.starts_with("33\n34\n34\n"), "{named}");
        let numbers = pod
            .output_of("numbers", "id -u; id -g; id -G; echo $HOSTNAME; pwd", |c| {
                let s = security(c);
                s.run_as_user = Some(Int64Value { value: 1000 });
                s.run_as_group = Some(Int64Value { value: 2000 });
                s.supplemental_groups = vec![7, 8];
            })
            .await;
        assert_eq!(numbers, "1000\n2000\n2000 7 8\nusers\n/tmp\n");
        let status = {
            let list = pod.list().await;
            let of = list.iter().find(|c| c.metadata.as_ref().unwrap().name == "numbers").unwrap().id.clone();
            pod.status(&of).await.unwrap()
        };
        let user = status.user.unwrap().linux.unwrap();
        assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 2000, vec![7, 8, 2000]));
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn mounts_are_as_asked_for() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    let host = service.path("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("file"), "from the host").unwrap();
    std::os::unix::fs::symlink(&host, service.path("link")).unwrap();
    let path = |p: &std::path::Path| p.to_string_lossy().into_owned();
    let mount = |from: &std::path::Path, to: &str, readonly| Mount {
        container_path: to.into(),
        host_path: path(from),
        readonly,
        ..Mount::default()
    };
    block_on(async {
        let mut pod = Pod::run(&service, "mounts").await;
        let (missing, link) = (service.path("made/on/demand"), service.path("link"));
        let script = "cat /ro/file; echo; echo x > /ro/new 2>/dev/null || echo refused; echo y > /rw/new; \
                      cat /rw/new; ls -d /made; cat /link/file; echo; cat /etc/hosts | /bin/busybox grep -c localhost";
        let output = pod
            .output_of("a", script, |c| {
                c.mounts = vec![
                    mount(&host, "/ro", true),
                    mount(&host, "/rw", false),
                    mount(&missing, "/made", false),
                    mount(&link, "/link", false),
                ];
            })
            .await;
        assert!(output.starts_with("from the host\nrefused\ny\n/made\nfrom the host\n"), "{output}");
        assert!(missing.is_dir() && host.join("new").exists());
        let mut relative = shell("b", "true");
        relative.mounts =
            vec![Mount { container_path: "data".into(), host_path: path(&host), ..Mount::default() }];
        assert_eq!(pod.create(&relative).await.unwrap_err().code(), Code::InvalidArgument);
        let output = pod
            .output_of("image", "ls /image/bin/busybox; echo x > /image/x || echo refused", |c| {
                c.mounts = vec![Mount {
                    container_path: "/image".into(),
                    image: c.image.clone(),
                    readonly: true,
                    ..Mount::default()
                }];
            })
            .await;
        assert_eq!(output, "/image/bin/busybox\nrefused\n");
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn propagation_needs_a_shared_mount() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    let private = service.path("private");
    std::fs::create_dir(&private).unwrap();
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    mount(Some("none"), &private, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    mount(None::<&str>, &private, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    block_on(async {
        let mut pod = Pod::run(&service, "propagation").await;
        let config = |propagation: MountPropagation, name: &str, script: &str| {
            let mut config = shell(name, script);
            config.mounts = vec![Mount {
                container_path: "/mnt".into(),
                host_path: private.to_string_lossy().into_owned(),
                propagation: propagation as i32,
                ..Mount::default()
            }];
            security(&mut config).privileged = true;
            config
        };
        for wanted in
            [MountPropagation::PropagationBidirectional, MountPropagation::PropagationHostToContainer]
        {
            let error = pod.create(&config(wanted, "refused", "true")).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
            assert!(error.message().contains("private"), "{error}");
        }
        mount(None::<&str>, &private, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        std::fs::create_dir(private.join("sub")).unwrap();
        let both = config(
            MountPropagation::PropagationBidirectional,
            "both",
            "/bin/busybox mount -t tmpfs none /mnt/sub && echo mine > /mnt/sub/file",
        );
        let (status, _) = pod.finish(&both).await;
        assert_eq!(status.exit_code, 0, "{:?}", pod.log("both"));
        assert_eq!(std::fs::read_to_string(private.join("sub/file")).unwrap(), "mine\n");
        umount2(&private.join("sub"), MntFlags::MNT_DETACH).unwrap();
        pod.end().await;
    });
    umount2(&private, MntFlags::MNT_DETACH).unwrap();
    none_left(&service);
}

#[test]
fn privileges_are_taken_and_given() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "privileges").await;
        let caps = "while read a b; do case $a in CapEff:|NoNewPrivs:|Seccomp:) echo $a $b;; esac; done < /proc/self/status";
        let plain = pod.output_of("plain", caps, |c| security(c).no_new_privs = true).await;
        // The fourteen that engines give: chown to audit_write.
        assert!(plain.contains("CapEff: 00000000a80425fb"), "{plain}");
        assert!(plain.contains("NoNewPrivs: 1"), "{plain}");
        let none = pod
            .output_of("none", caps, |c| {
                security(c).capabilities =
                    Some(Capability { drop_capabilities: vec!["ALL".into()], ..Capability::default() });
            })
            .await;
        assert!(none.contains("CapEff: 0000000000000000"), "{none}");
        let filtered =
            pod.output_of("filtered", caps, |c| security(c).seccomp = Some(SecurityProfile::default())).await;
        assert!(filtered.contains("Seccomp: 2"), "{filtered}");
        let privileged = pod
            .output_of(
                "privileged",
                "ls /dev/null /dev/full; echo x > /proc/sys/kernel/domainname && echo writable",
                |c| {
                    security(c).privileged = true;
                },
            )
            .await;
        assert!(privileged.contains("writable"), "{privileged}");
        let read_only = pod
            .output_of(
                "readonly",
                "echo x > /file 2>/dev/null || echo refused; echo x > /dev/shm/file && echo shm",
                |c| {
                    security(c).readonly_rootfs = true;
                },
            )
            .await;
        assert_eq!(read_only, "refused\nshm\n");
        let masked = pod
            .output_of("masked", "cat /proc/version | /bin/busybox wc -c; echo 0 > /proc/sys/kernel/randomize_va_space || echo refused", |c| {
                security(c).masked_paths = vec!["/proc/version".into()];
                security(c).readonly_paths = vec!["/proc/sys".into()];
            })
            .await;
        assert_eq!(masked, "0\nrefused\n");
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn the_pods_names_and_sysctls_are_the_containers() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut config = pod_config("names");
        config.hostname = "my-pod".into();
        config.dns_config = Some(DnsConfig {
            servers: vec!["10.9.8.7".into()],
            searches: vec!["svc.example".into()],
            options: vec!["ndots:5".into()],
        });
        let linux = config.linux.get_or_insert_default();
        linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
        linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        let mut pod = Pod::run_with(&service, config).await;
        let script = "/bin/busybox hostname; cat /etc/resolv.conf /proc/sys/net/ipv4/ip_unprivileged_port_start \
                      /proc/sys/kernel/shm_rmid_forced; cat /etc/hostname";
        let output = pod.output_of("a", script, |_| ()).await;
        for expected in
            ["my-pod\n", "nameserver 10.9.8.7", "search svc.example", "options ndots:5", "\n80\n1\n"]
        {
            assert!(output.contains(expected), "{expected:?} in {output}");
        }
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn a_container_looks_at_another_ones_processes() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut pod = Pod::run(&service, "target").await;
        let target = pod.launch(&shell("target", "sleep 4321")).await;
        let mut debug = shell("debug", "ps");
        let options = NamespaceOption {
            pid: NamespaceMode::Target as i32,
            target_id: target.clone(),
            ..NamespaceOption::default()
        };
        security(&mut debug).namespace_options = Some(options);
        let (status, output) = pod.finish(&debug).await;
        assert_eq!(status.exit_code, 0);
        assert!(output.contains("sleep 4321"), "{output}");
        let mut nowhere = debug.clone();
        nowhere.metadata.as_mut().unwrap().name = "nowhere".into();
        security(&mut nowhere).namespace_options.as_mut().unwrap().target_id = "f".repeat(64);
        assert_eq!(pod.create(&nowhere).await.unwrap_err().code(), Code::InvalidArgument);
        pod.end().await;
    });
    none_left(&service);
}

#[test]
fn a_pod_has_its_own_users() {
    require_pods!();
    let service = service_with_busybox("", &[]);
    block_on(async {
        let mut config = pod_config("userns");
        let map = IdMapping { host_id: 200_000, container_id: 0, length: 65_536 };
        let user = UserNamespace { mode: NamespaceMode::Pod as i32, uids: vec![map], gids: vec![map] };
        let linux = config.linux.get_or_insert_default();
        let options =
            linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default();
        options.userns_options = Some(user.clone());
        linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
        let mut pod = Pod::run_with(&service, config).await;
        let script = "id -u; cat /proc/self/uid_map; /bin/busybox stat -c %u:%g /bin/busybox /; echo x > /tmp/x && cat /tmp/x; \
                      /bin/busybox hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ls -d /proc/1 /sys/class";
        let output = pod
            .output_of("a", script, |c| {
                security(c).namespace_options.get_or_insert_default().userns_options = Some(user);
            })
            .await;
        let words: Vec<_> = output.split_whitespace().collect();
        let expected =
            ["0", "0", "200000", "65536", "0:0", "0:0", "x", "userns", "80", "/proc/1", "/sys/class"];
        assert_eq!(words, expected);
        let id = pod.list().await[0].id.clone();
        let upper = service.path(&format!("root/cri/containers/{id}/upper/tmp/x"));
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(upper).unwrap().uid(), 200_000, "nobody on the host");
        pod.end().await;
    });
    none_left(&service);
}
