//! Which container a process is in, by the path of its cgroup. Flow: discover.
//!
//! Runtimes name the cgroup of a container after it, in the form their cgroup driver (systemd or cgroupfs) dictates. A
//! container in a container has both in its path, and the inner one is meant; a cgroup namespace may cut off the front
//! of a path or begin it with `..`, so only the names in it count, from the last to the first.

use netdiag_model::fact::Runtime;

/// A container, as the path of a cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) runtime: Runtime,
    /// 64 hexadecimal digits, or the name where a runtime has nothing else.
    pub(super) id: String,
    /// The name, of a runtime that uses it in cgroups.
    pub(super) name: Option<String>,
}

/// What comes before the id: `docker-<id>.scope`, `libpod-<id>`, `…slice:cri-containerd:<id>`.
const PREFIXES: [(&str, Runtime); 5] = [
    ("docker", Runtime::Docker),
    ("libpod", Runtime::Podman),
    ("cri-containerd", Runtime::Containerd),
    ("nerdctl", Runtime::Containerd),
    ("crio", Runtime::Crio),
];

/// What cgroup a bare id is in: `/docker/<id>`, `/libpod_parent/<id>`, `/k8s.io/<id>`.
const PARENTS: [(&str, Runtime); 4] = [
    ("docker", Runtime::Docker),
    ("libpod_parent", Runtime::Podman),
    ("default", Runtime::Containerd),
    ("k8s.io", Runtime::Containerd),
];

/// The container in the text of `/proc/<pid>/cgroup` (cgroups(7)): one line for each v1 hierarchy and one for v2.
pub(super) fn container(text: &str) -> Option<Membership> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // One hierarchy may know more than another; a runtime known by name is worth most.
    paths.filter_map(innermost).min_by_key(|membership| membership.runtime == Runtime::Other)
}

fn innermost(path: &str) -> Option<Membership> {
    let parts: Vec<_> = path.split('/').collect();
    (0..parts.len()).rev().find_map(|place| {
        let (name, above) = (parts[place], &parts[..place]);
        by_prefix(name).or_else(|| by_parent(name, above)).or_else(|| by_name(name, above))
    })
}

fn by_prefix(name: &str) -> Option<Membership> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let (prefix, id) = name.rsplit_once(['-', ':'])?;
    let prefix = prefix.rsplit(':').next().unwrap_or(prefix);
    let (_, runtime) = PREFIXES.into_iter().find(|(known, _)| *known == prefix)?;
    is_id(id).then(|| Membership { runtime, id: id.to_owned(), name: None })
}

fn by_parent(name: &str, above: &[&str]) -> Option<Membership> {
    let parent = above.last().copied().unwrap_or_default();
    let known = PARENTS.into_iter().find(|(known, _)| *known == parent);
    let runtime = known.map_or(Runtime::Other, |(_, runtime)| runtime);
    is_id(name).then(|| Membership { runtime, id: name.to_owned(), name: None })
}

fn by_name(name: &str, above: &[&str]) -> Option<Membership> {
    let parent = above.last().copied().unwrap_or_default();
    if matches!(parent, "lxc" | "lxc.payload") {
        return named(Runtime::Lxc, name.to_owned());
    }
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return named(Runtime::Lxc, name.to_owned());
    }
    if !above.contains(&"machine.slice") {
        return None;
    }
    if let Some(unit) = name.strip_prefix("systemd-nspawn@").and_then(|name| name.strip_suffix(".service")) {
        return named(Runtime::Nspawn, unescape(unit));
    }
    machine(&unescape(name.strip_prefix("machine-")?.strip_suffix(".scope")?))
}

/// A machine of systemd-machined: libvirt calls its virtual machines `qemu-<n>-<name>` and its containers
/// `lxc-<n>-<name>`; any other is of systemd-nspawn.
fn machine(name: &str) -> Option<Membership> {
    if name.starts_with("qemu-") {
        return None;
    }
    let lxc = name.strip_prefix("lxc-").and_then(|rest| rest.split_once('-')).map(|(_, name)| name);
    lxc.map_or_else(|| named(Runtime::Nspawn, name.to_owned()), |lxc| named(Runtime::Lxc, lxc.to_owned()))
}

fn named(runtime: Runtime, name: String) -> Option<Membership> {
    (!matches!(name.as_str(), "" | "..")).then(|| Membership { runtime, id: name.clone(), name: Some(name) })
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Undoes the escapes of a systemd unit name (systemd.unit(5)): `\x2d` is `-`. What is no escape is left as it is.
fn unescape(unit: &str) -> String {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut rest = unit.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = match after {
            [b'x', high, low, ..] if first == b'\\' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        bytes.push(escaped.map_or(first, |(high, low)| high << 4 | low));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::{container, unescape};
    use netdiag_model::fact::Runtime;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OUTER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    fn found(path: &str) -> Option<(Runtime, String)> {
        let path = path.replace("ID", ID).replace("OUTER", OUTER);
        container(&format!("0::{path}\n")).map(|membership| (membership.runtime, membership.id))
    }

    #[test]
    fn every_runtime_and_driver_is_known_by_its_path() {
        for (path, runtime) in [
            ("/system.slice/docker-ID.scope", Runtime::Docker),
            ("/docker/ID", Runtime::Docker),
            ("/machine.slice/libpod-ID.scope", Runtime::Podman),
            ("/machine.slice/libpod-ID.scope/container", Runtime::Podman),
            ("/libpod_parent/libpod-ID", Runtime::Podman),
            ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", Runtime::Podman),
            ("/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-ID.scope", Runtime::Containerd),
            ("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:ID", Runtime::Containerd),
            ("/system.slice/nerdctl-ID.scope", Runtime::Containerd),
            ("/default/ID", Runtime::Containerd),
            ("/kubepods.slice/kubepods-besteffort.slice/crio-ID.scope", Runtime::Crio),
            ("/kubepods/besteffort/pod1b2c/crio-ID", Runtime::Crio),
            ("/kubepods/besteffort/pod1b2c/ID", Runtime::Other),
        ] {
            assert_eq!(found(path), Some((runtime, ID.to_owned())), "{path}");
        }
    }

    #[test]
    fn runtimes_that_name_their_cgroups_are_known_by_name() {
        for (path, runtime, name) in [
            ("/lxc/web", Runtime::Lxc, "web"),
            ("/lxc/web/system.slice/cron.service", Runtime::Lxc, "web"),
            ("/lxc.payload.web/init.scope", Runtime::Lxc, "web"),
            ("/lxc.payload/web", Runtime::Lxc, "web"),
            ("/machine.slice/machine-lxc\\x2d12\\x2dmy\\x2dweb.scope", Runtime::Lxc, "my-web"),
            ("/machine.slice/machine-my\\x2dweb.scope/payload", Runtime::Nspawn, "my-web"),
            ("/machine.slice/systemd-nspawn@web.service/payload/init.scope", Runtime::Nspawn, "web"),
        ] {
            assert_eq!(found(path), Some((runtime, name.to_owned())), "{path}");
        }
    }

    #[test]
    fn a_path_cut_off_by_a_cgroup_namespace_still_names_the_container() {
        assert_eq!(found("/../docker/ID"), Some((Runtime::Docker, ID.to_owned())));
        assert_eq!(found("/../../system.slice/docker-ID.scope"), Some((Runtime::Docker, ID.to_owned())));
        assert_eq!(found("/../ID"), Some((Runtime::Other, ID.to_owned())));
    }

    #[test]
    fn of_a_container_in_a_container_the_inner_one_is_meant() {
        assert_eq!(found("/docker/OUTER/docker/ID/system.slice/a.service"), Some((Runtime::Docker, ID.to_owned())));
        assert_eq!(found("/lxc/web/docker/ID"), Some((Runtime::Docker, ID.to_owned())));
    }

    #[test]
    fn the_hierarchy_that_knows_the_runtime_wins() {
        let text = format!("4:memory:/somewhere/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n");
        assert_eq!(container(&text).unwrap().runtime, Runtime::Docker);
    }

    #[test]
    fn what_is_no_container_is_none() {
        let short = &ID[1..];
        for path in [
            "",
            "/",
            "/..",
            "/lxc",
            "/lxc/",
            "/lxc/..",
            "/lxc.monitor.web",
            "/init.scope",
            "/user.slice/user-0.slice/session-1.scope",
            "/system.slice/docker.service",
            "/system.slice/containerd.service",
            "/machine.slice/libpod-conmon-ID.scope",
            "/system.slice/crio-conmon-ID.scope",
            "/machine.slice/machine-qemu\\x2d1\\x2dinstance\\x2d0000002a.scope/libvirt/emulator",
            &format!("/docker/{short}"),
            &format!("/docker/{short}G"),
            &format!("/docker/{}", ID.to_uppercase()),
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }

    #[test]
    fn text_that_is_no_cgroup_file_is_none() {
        for text in ["", "\n\n", "::", "0:", "garbage", "\u{1b}[2J:\u{0}:\u{ffff}", &":".repeat(1 << 20)] {
            assert_eq!(container(text), None);
        }
    }

    #[test]
    fn only_whole_escapes_are_undone() {
        for (escaped, plain) in [
            ("a\\x2db", "a-b"),
            ("\\x2", "\\x2"),
            ("\\xzz", "\\xzz"),
            ("\\x\u{e4}", "\\x\u{e4}"),
            ("\\", "\\"),
            ("\\xff", "\u{fffd}"),
            ("\\x+1", "\\x+1"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
    }
}
