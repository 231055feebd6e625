//! Sysctls that decide forwarding, in every namespace. Flow: discover.
//!
//! `/proc/sys/net` shows the namespace of whoever looks, so a thread in the namespace reads it. A sysctl that does not
//! exist (no IPv6, no bridge module, no connection tracking) is left out: that it is missing is the fact.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use netdiag_model::{
    fact::{Facts, Gap, SourceKind, SysctlFact},
    id::NetnsId,
};
use rustix::fs::{Mode, OFlags};

use super::{Scope, chain, report};
use crate::netns::{Namespace, NetnsError, in_each};

/// Where the sysctls of `net.` are.
const ROOT: &str = "/proc/sys/net";

/// Sysctls a namespace has once.
const ONCE: [&str; 9] = [
    "ipv4/ip_forward",
    "ipv4/ip_nonlocal_bind",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "bridge/bridge-nf-call-arptables",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_max",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "netfilter/nf_conntrack_tcp_loose",
];

/// Sysctls every link has, `all` for all of them and `default` for those to come.
const PER_LINK: [(&str, &[&str]); 2] = [
    ("ipv4/conf", &["forwarding", "rp_filter", "arp_ignore", "arp_announce", "proxy_arp"]),
    ("ipv6/conf", &["forwarding", "disable_ipv6"]),
];

/// Reads every namespace.
pub(super) async fn read(scope: &Scope) -> Facts {
    let (mut sysctls, mut gaps) = (Vec::new(), Vec::new());
    let results = in_each(&scope.namespaces, scope.deadline, read_one).await;
    for (namespace, result) in scope.namespaces.iter().zip(results) {
        match result {
            Ok((fact, unread)) => {
                gaps.extend(unread.map(|error| gap(fact.netns, error.to_string())));
                sysctls.push(fact);
            }
            Err(error) => gaps.push(gap(namespace.id, chain(&error))),
        }
    }
    let how = format!("{ROOT} in {} namespaces", sysctls.len());
    Facts { sysctls, ..report(SourceKind::Sysctl, how, gaps) }
}

async fn read_one(namespace: Namespace) -> Result<(SysctlFact, Option<io::Error>), NetnsError> {
    let netns = namespace.id;
    namespace
        .run(move || {
            let (values, unread) = read_below(Path::new(ROOT));
            (SysctlFact { netns, values }, unread)
        })
        .await
}

/// Values by name, and the first error that is not that a sysctl does not exist.
fn read_below(root: &Path) -> (BTreeMap<String, String>, Option<io::Error>) {
    let mut reader = Reader { root, values: BTreeMap::new(), unread: None };
    match rustix::fs::open(root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(dir) => ONCE.iter().for_each(|path| reader.read(&dir, path, format!("net.{}", path.replace('/', ".")))),
        Err(error) => reader.note(error.into()),
    }
    for (dir, names) in PER_LINK {
        reader.read_links(dir, names);
    }
    (reader.values, reader.unread)
}

struct Reader<'root> {
    root: &'root Path,
    values: BTreeMap<String, String>,
    unread: Option<io::Error>,
}

impl Reader<'_> {
    fn read_links(&mut self, dir: &str, names: &[&str]) {
        let links = match fs::read_dir(self.root.join(dir)) {
            Ok(links) => links,
            Err(error) => return self.note(error),
        };
        for link in links.flatten() {
            // A name that is no UTF-8 is a hint all the same; the directory is found by the real one.
            let key = format!("net.{}.{}", dir.replace('/', "."), link.file_name().to_string_lossy());
            match rustix::fs::open(link.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                Ok(link) => names.iter().for_each(|name| self.read(&link, name, format!("{key}.{name}"))),
                Err(error) => self.note(error.into()),
            }
        }
    }

    /// Reads one sysctl. The name of a link is kept as it is in the key, dots and all.
    fn read(&mut self, dir: impl AsFd, path: &str, key: String) {
        match read_value(dir.as_fd(), path) {
            Ok(value) => {
                self.values.insert(key, value);
            }
            Err(error) => self.note(error.into()),
        }
    }

    fn note(&mut self, error: io::Error) {
        if error.kind() != io::ErrorKind::NotFound && self.unread.is_none() {
            self.unread = Some(error);
        }
    }
}

/// The value of a sysctl: three calls of the kernel for each of the many thousands there are.
fn read_value(dir: BorrowedFd<'_>, path: &str) -> rustix::io::Result<String> {
    let file = rustix::fs::openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The kernel gives a number in one piece, and none of these is longer.
    let mut value = [0; 64];
    let length = rustix::io::read(&file, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..length]).trim_end().to_owned())
}

fn gap(netns: NetnsId, why: String) -> Gap {
    Gap {
        source: SourceKind::Sysctl,
        netns: Some(netns),
        object: format!("sysctls of {netns}"),
        why,
        fix: "run as root, or with CAP_SYS_ADMIN".to_owned(),
        absent: false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::read_below;

    fn write(root: &Path, path: &str, value: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }

    #[test]
    fn sysctls_are_read_once_and_for_each_link_and_those_that_do_not_exist_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "ipv4/ip_forward", "1\n");
        write(root.path(), "ipv4/conf/all/rp_filter", "2\n");
        write(root.path(), "ipv4/conf/eth0.100/rp_filter", "0\n");
        let (values, unread) = read_below(root.path());
        let read: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            read,
            [
                ("net.ipv4.conf.all.rp_filter", "2"),
                ("net.ipv4.conf.eth0.100.rp_filter", "0"),
                ("net.ipv4.ip_forward", "1"),
            ]
        );
        assert!(unread.is_none());
    }

    #[test]
    fn a_sysctl_that_exists_and_cannot_be_read_is_told() {
        let root = tempfile::tempdir().unwrap();
        // To read a directory as a file fails, for root as well.
        fs::create_dir_all(root.path().join("ipv4/ip_forward")).unwrap();
        let (values, unread) = read_below(root.path());
        assert!(values.is_empty());
        assert!(unread.is_some());
    }
}
