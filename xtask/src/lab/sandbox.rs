//! Turns fresh namespaces into a host of its own: everything has its standard path, and nothing that is written inside
//! reaches the real host.
//!
//! `/run` is empty, `/etc`, `/var/lib` and `/var/log` show the real ones but keep changes in memory, `/proc` shows only
//! this host's processes, `/sys` its network namespace, and the control groups end at its own. Runs as process 1 of the
//! host, before anything else, in the namespaces `fabric` made for it.

use std::{
    ffi::CString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::lab::{cgroup, command};

/// Directories that look as on the real host and take changes in memory.
const COPIED: [&str; 3] = ["/etc", "/var/lib", "/var/log"];

/// Directories that begin empty.
const EMPTY: [&str; 6] = [
    "/var/lib/docker",
    "/etc/openvswitch",
    "/var/lib/openvswitch",
    "/var/log/openvswitch",
    "/etc/netns",
    "/var/lib/neutron",
];

/// Makes the calling process's namespaces the host `name`.
pub(crate) fn enter(name: &str) -> Result<()> {
    let hierarchies = cgroup::hierarchies()?;
    for mount in mounts_below(&["/sys", "/run", "/var/lib/docker", "/proc"])? {
        rustix::mount::unmount(&mount, UnmountFlags::DETACH).with_context(|| format!("unmount {}", mount.display()))?;
    }
    mount("proc", Path::new("/proc"), "proc", "")?;
    mount("sysfs", Path::new("/sys"), "sysfs", "")?;
    mount_kernel_views();
    mount_control_groups(&hierarchies)?;
    cgroup::settle(&hierarchies)?;
    mount_private_directories()?;
    write_names(name)?;
    command::run("ip", ["link", "set", "lo", "up"]).map(drop)
}

/// Mount points at or below the given directories, innermost first.
fn mounts_below(directories: &[&str]) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut mounts: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(unescape)
        .filter(|mount| directories.iter().any(|directory| mount.starts_with(directory)))
        .collect();
    // What was mounted later lies on top of or inside what was mounted earlier; /proc goes last because it is read here.
    mounts.reverse();
    mounts.sort_by_key(|mount| mount.starts_with("/proc"));
    Ok(mounts)
}

/// Undoes the octal escapes of `mountinfo` (proc(5): blank, tab, newline, backslash).
fn unescape(text: &str) -> PathBuf {
    let text = text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(text)
}

fn mount(source: &str, target: &Path, kind: &str, data: &str) -> Result<()> {
    let data = CString::new(data).context("mount options with a NUL")?;
    rustix::mount::mount(source, target, kind, MountFlags::empty(), data.as_c_str())
        .with_context(|| format!("mount {kind} on {}", target.display()))
}

/// Views into the kernel that not every kernel has; a host without one is still a host.
fn mount_kernel_views() {
    for (kind, target) in [("bpf", "/sys/fs/bpf"), ("tracefs", "/sys/kernel/tracing")] {
        let target = Path::new(target);
        if target.is_dir() {
            mount(kind, target, kind, "").ok();
        }
    }
}

/// Mounts the same hierarchies at the same places; in the new cgroup namespace each shows the host's own group as root.
fn mount_control_groups(hierarchies: &[cgroup::Hierarchy]) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if hierarchies.iter().all(|hierarchy| hierarchy.mount != root) {
        mount("tmpfs", root, "tmpfs", "mode=755")?;
    }
    for hierarchy in hierarchies {
        fs::create_dir_all(&hierarchy.mount).with_context(|| format!("make {}", hierarchy.mount.display()))?;
        mount("cgroup", &hierarchy.mount, &hierarchy.kind, &hierarchy.controllers)?;
    }
    Ok(())
}

fn mount_private_directories() -> Result<()> {
    let run = Path::new("/run");
    // The memory behind the copied directories: reachable through them alone once it is unmounted again.
    mount("tmpfs", run, "tmpfs", "mode=755")?;
    for (number, directory) in COPIED.iter().enumerate() {
        let (upper, work) = (run.join(format!("{number}/upper")), run.join(format!("{number}/work")));
        for made in [&upper, &work] {
            fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
        }
        let data = format!("lowerdir={directory},upperdir={},workdir={}", upper.display(), work.display());
        mount("overlay", Path::new(directory), "overlay", &data)?;
    }
    rustix::mount::unmount(run, UnmountFlags::DETACH).context("unmount the scratch file system")?;
    mount("tmpfs", run, "tmpfs", "mode=755")?;
    for made in ["/run/lock", "/run/netns", "/run/openvswitch"] {
        fs::create_dir(made).with_context(|| format!("make {made}"))?;
    }
    if !Path::new("/var/run").is_symlink() {
        rustix::mount::mount_bind("/run", "/var/run").context("show /run as /var/run")?;
    }
    for directory in EMPTY {
        fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
        mount("tmpfs", Path::new(directory), "tmpfs", "mode=755")?;
    }
    fs::set_permissions("/run/lock", fs::Permissions::from_mode(0o1777)).context("open /run/lock to everyone")
}

fn write_names(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).with_context(|| format!("set the host name {name}"))?;
    let hosts = format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost\n");
    for (path, text) in [("/etc/hostname", format!("{name}\n")), ("/etc/hosts", hosts)] {
        fs::write(path, text).with_context(|| format!("write {path}"))?;
    }
    // A daemon.json of the real host is about the real host.
    if Path::new("/etc/docker").is_dir() {
        fs::write("/etc/docker/daemon.json", "{}\n").context("write /etc/docker/daemon.json")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::unescape;

    #[test]
    fn escapes_of_mountinfo_are_undone() {
        assert_eq!(unescape("/run/a\\040b\\134"), PathBuf::from("/run/a b\\"));
    }
}
