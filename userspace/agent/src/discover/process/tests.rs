//! The source on made-up process filesystems.

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use netdiag_model::{
    fact::{Facts, MachineNic, Runtime},
    id::NetnsId,
};
use tempfile::TempDir;

use super::{Found, Procfs, Scan, Seen};
use crate::discover::{Options, Scope};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Adds a process to a made-up `/proc`.
fn process(root: &TempDir, pid: u32, cgroup: &str, netns: u64) {
    let directory = root.path().join(pid.to_string());
    fs::create_dir_all(directory.join("ns")).unwrap();
    fs::write(directory.join("cgroup"), cgroup).unwrap();
    symlink(format!("net:[{netns}]"), directory.join("ns/net")).unwrap();
}

/// Makes a process run a hypervisor.
fn hypervisor(root: &TempDir, pid: u32, command_line: &str, descriptors: &[(u32, &str)]) {
    let directory = root.path().join(pid.to_string());
    fs::write(directory.join("cmdline"), command_line).unwrap();
    fs::create_dir_all(directory.join("fdinfo")).unwrap();
    for (descriptor, text) in descriptors {
        fs::write(directory.join(format!("fdinfo/{descriptor}")), text).unwrap();
    }
}

async fn read(root: &Path) -> Facts {
    read_within(root, Duration::from_mins(1)).await
}

async fn read_within(root: &Path, timeout: Duration) -> Facts {
    let options = Options { timeout, proc_dir: root.into(), ..Options::default() };
    super::read(&Scope::new(options, Vec::new())).await
}

#[tokio::test]
async fn a_container_is_seen_once_with_its_lowest_pid_and_its_hostname() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 1, "0::/init.scope\n", 1);
    process(&root, 70, &format!("0::/docker/{ID}\n"), 2);
    process(&root, 9, &format!("0::/docker/{ID}/sub\n"), 2);
    fs::create_dir_all(root.path().join("9/root/etc")).unwrap();
    fs::write(root.path().join("9/root/etc/hostname"), "instance-0000002a\n").unwrap();
    let facts = read(root.path()).await;
    let [container] = facts.containers.as_slice() else { panic!("{facts:?}") };
    assert_eq!((container.runtime, container.id.as_str(), container.pid), (Runtime::Docker, ID, Some(9)));
    assert_eq!(container.hostname.as_deref(), Some("instance-0000002a"));
    // No namespaces were listed before, so this one cannot be among them.
    assert!(facts.gaps().any(|gap| gap.why == format!("{ID}: net:[2] was not there when namespaces were listed")));
}

#[test]
fn a_container_that_shares_the_host_s_namespace_is_left_out() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 1, "0::/init.scope\n", 1);
    process(&root, 5, &format!("0::/docker/{ID}\n"), 1);
    process(&root, 6, "0::/lxc/web\n", 2);
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    Scan::new(Procfs::new(root.path()), Some(1), Arc::default()).run(&send);
    let Some(Seen::Container(web, Ok(2))) = receive.blocking_recv() else { panic!("expected a container") };
    assert_eq!((web.id.as_str(), web.name.as_deref(), web.runtime), ("web", Some("web"), Runtime::Lxc));
    assert!(receive.try_recv().is_err());
}

#[test]
fn a_namespace_is_found_by_its_inode_or_is_a_gap() {
    let mut found = Found::default();
    let id = NetnsId { inode: 2, cookie: 7 };
    let machine = netdiag_model::fact::MachineFact { pid: 5, name: None, uuid: None, netns: None, nics: Vec::new() };
    found.take(Seen::Machine(machine.clone(), Ok(2)), &[(2, id)].into());
    assert_eq!(found.machines[0].netns, Some(id));
    assert!(found.gaps().is_empty());
    found.take(Seen::Machine(machine, Err(std::io::ErrorKind::PermissionDenied.into())), &[(2, id)].into());
    assert_eq!(found.machines[1].netns, None);
    assert_eq!(found.gaps()[0].why, "machine 5: permission denied");
}

#[tokio::test]
async fn cards_of_a_machine_find_their_taps_by_descriptor() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 1, "0::/\n", 1);
    process(&root, 5, "0::/machine.slice/machine-qemu\\x2d1\\x2dweb.scope\n", 1);
    let command_line = "/usr/bin/qemu-system-x86_64\0-name\0guest=web\0-netdev\0tap,fds=33:34,id=n\0\
                        -device\0virtio-net-pci,netdev=n,mac=fa:16:3e:00:00:02\0";
    let taps = [(0, "pos:\t0\n"), (33, "pos:\t0\niff:\ttapa\n"), (34, "iff:\ttapa\n"), (50, "iff:\ttapb\n")];
    hypervisor(&root, 5, command_line, &taps);
    let facts = read(root.path()).await;
    let [machine] = facts.machines.as_slice() else { panic!("{facts:?}") };
    assert_eq!((machine.pid, machine.name.as_deref()), (5, Some("web")));
    let expected = [
        MachineNic { tap: Some("tapa".into()), mac: Some("fa:16:3e:00:00:02".parse().unwrap()) },
        MachineNic { tap: Some("tapb".into()), mac: None },
    ];
    assert_eq!(machine.nics, expected);
    assert!(facts.containers.is_empty());
}

#[tokio::test]
async fn a_process_that_ended_is_no_gap() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 1, "0::/\n", 1);
    fs::create_dir(root.path().join("2")).unwrap();
    fs::create_dir(root.path().join("not a pid")).unwrap();
    assert_eq!(read(root.path()).await.gaps().count(), 0);
}

#[tokio::test]
async fn what_cannot_be_read_of_many_processes_is_one_gap() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 1, "0::/\n", 1);
    for pid in 2..20 {
        // A directory in its place can be read by nobody, not even by root.
        fs::create_dir_all(root.path().join(format!("{pid}/cgroup"))).unwrap();
    }
    let facts = read(root.path()).await;
    let gaps: Vec<_> = facts.gaps().collect();
    let [gap] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert!(gap.why.starts_with("cgroup of process 2: Is a directory"), "{}", gap.why);
    assert!(gap.why.ends_with("and 15 more"), "{}", gap.why);
}

#[tokio::test]
async fn processes_that_are_hidden_are_a_gap() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 5, "0::/\n", 1);
    assert!(read(root.path()).await.gaps().any(|gap| gap.why.contains("hidepid")));
    assert!(read(Path::new("/nonexistent")).await.gaps().any(|gap| gap.why.contains("No such file")));
}

#[tokio::test]
async fn a_process_whose_files_hang_costs_only_what_comes_after_it() {
    let root = tempfile::tempdir().unwrap();
    process(&root, 1, "0::/\n", 1);
    process(&root, 5, &format!("0::/docker/{ID}\n"), 2);
    let (cwd, fifo) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
    let pipe = root.path().join("5/cmdline");
    // Opening a pipe nobody writes to waits, as reading the command line of a stuck process does.
    rustix::fs::mknodat(cwd, &pipe, fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let timeout = Duration::from_secs(2);
    let facts = tokio::time::timeout(timeout, read_within(root.path(), timeout)).await.unwrap();
    assert_eq!(facts.containers.len(), 1);
    assert!(facts.gaps().any(|gap| gap.why == "time was up while process 5 was read"));
    drop(fs::OpenOptions::new().write(true).open(pipe).unwrap());
}
