//! The source against daemons that misbehave, over real unix sockets.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use netdiag_model::fact::{ContainerFact, Facts, Gap, Runtime};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::read_daemon;
use crate::{
    discover::{Options, Scope},
    netns::Namespace,
};

/// What a daemon does when it is asked for something.
enum Reply {
    Json(Value),
    Status(u16),
    Raw(&'static [u8]),
    Hang,
}

fn version() -> Reply {
    Reply::Json(json!({ "Version": "20.10.24", "ApiVersion": "1.41" }))
}

/// Starts a daemon that answers by path, without version and query.
fn daemon(answer: fn(&str) -> Reply) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer));
        }
    });
    (directory, path)
}

async fn serve(mut stream: UnixStream, answer: fn(&str) -> Reply) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => request.push(byte),
            Err(_) => return,
        }
    }
    let request = String::from_utf8(request).unwrap();
    let target = request.split(' ').nth(1).unwrap();
    let path = target.trim_start_matches("/v1.41");
    let bytes = match answer(shortest(path)) {
        Reply::Json(json) => http(200, &json.to_string()),
        Reply::Status(code) => http(code, r#"{"message":"no"}"#),
        Reply::Raw(bytes) => bytes.to_vec(),
        Reply::Hang => return tokio::time::sleep(Duration::from_mins(1)).await,
    };
    // The reader may have gone: that is its right.
    drop(stream.write_all(&bytes).await);
}

/// Only whether all containers are asked for is worth keeping of a query.
fn shortest(path: &str) -> &str {
    match path.split_once('?') {
        Some(("/containers/json", query)) if query.contains("all=true") => "/containers/json?all=true",
        Some((path, _)) => path,
        None => path,
    }
}

fn http(code: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// For a daemon that answers, however busy the machine is.
const PATIENT: Duration = Duration::from_mins(1);
/// For one that never will.
const IMPATIENT: Duration = Duration::from_secs(2);

async fn read_at(path: &Path, timeout: Duration) -> Facts {
    let options = Options { timeout, ..Options::default() };
    let namespaces = Namespace::open(Path::new("/proc/self/ns/net")).into_iter().collect::<Vec<_>>();
    let scope = Scope::new(options, namespaces);
    // Whatever the daemon does, its source must end by itself before it would be cut off.
    tokio::time::timeout(timeout, read_daemon(&scope, path)).await.unwrap()
}

async fn read(answer: fn(&str) -> Reply) -> Facts {
    let (_directory, path) = daemon(answer);
    read_at(&path, PATIENT).await
}

async fn read_hanging(answer: fn(&str) -> Reply) -> Facts {
    let (_directory, path) = daemon(answer);
    read_at(&path, IMPATIENT).await
}

fn only_gap(facts: &Facts) -> &Gap {
    let gaps: Vec<_> = facts.gaps().collect();
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    gap
}

fn one_container() -> Value {
    json!([{ "Id": "aaaa", "Names": ["/other/alias", "/nova-1"], "Image": "busybox", "State": "running",
             "Labels": { "k": "v" }, "HostConfig": { "NetworkMode": "none" },
             "Ports": [{ "IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" }, { "PrivatePort": 81, "Type": "udp" }] }])
}

fn only_container(facts: &Facts) -> &ContainerFact {
    let [container] = facts.containers.as_slice() else { panic!("{facts:?}") };
    container
}

#[tokio::test]
async fn a_daemon_that_never_answers_is_a_gap() {
    let facts = read_hanging(|_| Reply::Hang).await;
    assert_eq!(only_gap(&facts).why, "version: no answer within 600 ms");
}

#[tokio::test]
async fn a_socket_nobody_listens_on_is_a_gap_that_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    drop(UnixListener::bind(&path).unwrap());
    let facts = read_at(&path, PATIENT).await;
    assert_eq!(only_gap(&facts).why, "Connection refused (os error 111)");
    assert!(!only_gap(&facts).absent);
}

#[tokio::test]
async fn garbage_or_half_an_answer_is_a_gap() {
    let daemons: [fn(&str) -> Reply; 4] = [
        |_| Reply::Raw(b"SSH-2.0-OpenSSH\r\n"),
        |_| Reply::Raw(b""),
        |_| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"Api"),
        |_| Reply::Json(json!({ "ApiVersion": "garbage" })),
    ];
    for answer in daemons {
        let facts = read(answer).await;
        assert!(only_gap(&facts).why.starts_with("version: "), "{:?}", only_gap(&facts));
    }
}

#[tokio::test]
async fn what_the_list_says_is_kept_where_inspecting_hangs() {
    let facts = read_hanging(|path| match path {
        "/version" => version(),
        "/containers/json?all=true" => Reply::Json(one_container()),
        "/networks" => Reply::Json(json!([])),
        _ => Reply::Hang,
    })
    .await;
    let container = only_container(&facts);
    assert_eq!((container.name.as_deref(), container.state.as_str()), (Some("nova-1"), "running"));
    assert_eq!((container.labels["k"].as_str(), container.published[0].host_port), ("v", 8080));
    assert_eq!(container.published.len(), 1);
    assert_eq!(only_gap(&facts).why, "aaaa: inspect: no answer within 600 ms");
}

#[tokio::test]
async fn what_time_does_not_suffice_for_is_named_and_kept() {
    let facts = read_hanging(|path| match path {
        "/version" => version(),
        "/containers/json?all=true" => Reply::Json((0..100).map(|id| json!({ "Id": format!("{id:04}") })).collect()),
        "/networks" => Reply::Json(json!([])),
        _ => Reply::Hang,
    })
    .await;
    assert_eq!(facts.containers.len(), 100);
    assert!(only_gap(&facts).why.ends_with("and 97 more"), "{}", only_gap(&facts).why);
}

#[tokio::test]
async fn a_container_removed_after_it_was_listed_is_no_gap() {
    let facts = read(|path| match path {
        "/version" => version(),
        "/containers/json?all=true" => Reply::Json(one_container()),
        "/networks" => Reply::Json(json!([])),
        _ => Reply::Status(404),
    })
    .await;
    assert!(facts.containers.is_empty());
    assert_eq!(facts.gaps().count(), 0);
}

#[tokio::test]
async fn running_containers_are_read_where_the_list_of_all_cannot_be() {
    let facts = read(|path| match path {
        "/version" => version(),
        "/containers/json?all=true" => Reply::Json(json!([{ "Id": "bbbb", "State": "a state of the future" }])),
        "/containers/json" => Reply::Json(one_container()),
        "/networks" => Reply::Json(json!([])),
        _ => Reply::Json(json!({ "Id": "aaaa" })),
    })
    .await;
    assert_eq!(only_container(&facts).id, "aaaa");
    assert!(only_gap(&facts).why.starts_with("list containers: Failed to deserialize"), "{}", only_gap(&facts).why);
}

#[tokio::test]
async fn containers_are_read_where_the_list_of_networks_fails() {
    let facts = read(|path| match path {
        "/version" => version(),
        "/containers/json?all=true" => Reply::Json(one_container()),
        "/networks" => Reply::Status(500),
        _ => Reply::Json(json!({ "Id": "aaaa", "Name": "/nova-2" })),
    })
    .await;
    assert_eq!(only_container(&facts).name.as_deref(), Some("nova-2"));
    assert!(only_gap(&facts).why.starts_with("list networks: "), "{}", only_gap(&facts).why);
}

fn bridged(path: &str) -> Reply {
    match path {
        "/version" => version(),
        "/containers/json?all=true" => Reply::Json(one_container()),
        "/networks" => Reply::Json(json!([
            { "Id": "0123456789abcdef", "Name": "web", "Driver": "bridge", "Internal": true, "Options": {},
              "IPAM": { "Config": [{ "Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1" }, { "Subnet": "fd00::/64" }] } },
            { "Id": "b", "Name": "bridge", "Driver": "bridge",
              "Options": { "com.docker.network.bridge.name": "docker0" } },
            { "Id": "c", "Name": "none", "Driver": "null", "IPAM": { "Config": null } },
            { "Name": "without an id" },
        ])),
        _ => Reply::Json(json!({
            "Id": "aaaa", "Name": "/nova-1", "State": { "Status": "running", "Pid": std::process::id() },
            "Config": { "Hostname": "instance-0000002a", "Image": "busybox:latest", "Labels": { "a": "\u{1b}[2J" } },
            "HostConfig": { "NetworkMode": "web" },
            "NetworkSettings": {
                "Ports": {
                    "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }, { "HostIp": "::", "HostPort": "8080" }],
                    "53/udp": [{ "HostIp": "", "HostPort": "5353" }, { "HostIp": "127.0.0.1", "HostPort": "" }],
                    "81/tcp": null,
                    "x/tcp": [{ "HostIp": "", "HostPort": "1" }],
                },
                "Networks": {
                    "web": { "NetworkID": "0123456789abcdef", "IPAddress": "172.18.0.2", "IPPrefixLen": 16,
                             "Gateway": "172.18.0.1", "GlobalIPv6Address": "fd00::2", "GlobalIPv6PrefixLen": 64,
                             "IPv6Gateway": "", "MacAddress": "02:42:ac:12:00:02" },
                    "odd": { "NetworkID": "d", "IPAddress": "172.18.0.300", "MacAddress": "02" },
                },
            },
        })),
    }
}

#[tokio::test]
async fn a_container_is_read_with_its_endpoints_and_published_ports() {
    let facts = read(bridged).await;
    let container = only_container(&facts);
    assert_eq!((container.runtime, container.pid), (Runtime::Docker, Some(std::process::id())));
    assert_eq!(container.hostname.as_deref(), Some("instance-0000002a"));
    assert_eq!(container.image.as_deref(), Some("busybox:latest"));
    assert_eq!(container.labels["a"], "\u{1b}[2J");
    let endpoints: Vec<_> = container
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.network.as_str(), endpoint.address.map(|address| address.to_string())))
        .collect();
    let addresses = [("odd", None), ("web", Some("172.18.0.2/16".to_owned())), ("web", Some("fd00::2/64".to_owned()))];
    assert_eq!(endpoints, addresses);
    assert_eq!(container.endpoints[1].gateway.unwrap().to_string(), "172.18.0.1");
    assert_eq!(container.endpoints[1].mac.unwrap().to_string(), "02:42:ac:12:00:02");
    let published: Vec<_> = container
        .published
        .iter()
        .map(|port| format!("{} {}:{}->{}", port.protocol, port.host_address, port.host_port, port.container_port))
        .collect();
    assert_eq!(published, ["tcp 0.0.0.0:8080->80", "tcp :::8080->80", "udp 0.0.0.0:5353->53"]);
    // The address, the MAC address, the port, and the network without an id.
    let odd = facts.gaps().find(|gap| gap.object.starts_with("values of its answers")).unwrap();
    assert!(odd.why.ends_with("; and 1 more"), "{}", odd.why);
}

#[tokio::test]
async fn the_bridge_of_a_network_is_named_by_option_or_by_id() {
    let facts = read(bridged).await;
    let bridges: Vec<_> =
        facts.docker_networks.iter().map(|network| (network.name.as_str(), network.bridge.as_deref())).collect();
    assert_eq!(bridges, [("bridge", Some("docker0")), ("none", None), ("web", Some("br-0123456789ab"))]);
    let web = &facts.docker_networks[2];
    assert_eq!((web.subnets.len(), web.gateways.len(), web.internal), (2, 1, true));
}

#[tokio::test]
async fn the_namespace_of_a_container_is_found_by_its_pid() {
    let Ok(own) = Namespace::open(Path::new("/proc/self/ns/net")) else {
        // Without CAP_SYS_ADMIN no namespace can be opened, so none can be found: a gap must say so.
        assert!(read(bridged).await.gaps().any(|gap| gap.object.starts_with("namespaces of containers")));
        return;
    };
    assert_eq!(only_container(&read(bridged).await).netns, Some(own.id));
}

#[tokio::test]
async fn podman_is_told_from_docker_by_its_version() {
    let facts = read(|path| match path {
        "/version" => Reply::Json(
            json!({ "ApiVersion": "1.41", "Components": [{ "Name": "Podman Engine", "Version": "4.3.1" }] }),
        ),
        "/containers/json?all=true" => Reply::Json(one_container()),
        "/networks" => Reply::Json(json!([{ "Id": "0123456789abcdef", "Name": "podman", "Driver": "bridge" }])),
        _ => Reply::Json(json!({ "Id": "aaaa" })),
    })
    .await;
    assert_eq!(only_container(&facts).runtime, Runtime::Podman);
    assert_eq!(facts.docker_networks[0].bridge, None);
}
