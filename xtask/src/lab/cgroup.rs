//! Control groups of a lab: one per lab host, in every hierarchy of the real host, under a parent that carries the
//! lab's name and is removed with it.
//!
//! A lab host sees its own group as the root (cgroup namespace), so dockerd and runc inside work as on a real host, with
//! version 1, version 2 and systemd's mixture of both. Under version 2 a group with processes cannot hand controllers to
//! its children, hence the leaf `init` (`docs/cgroup-v2.rst` of the kernel, "No Internal Process Constraint").

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// Group of the processes that belong to a lab but to none of its hosts.
pub(crate) const FABRIC: &str = "fabric";

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// `cgroup` or `cgroup2`.
    pub(crate) kind: String,
    /// Mount options that choose its controllers, as `cpu,cpuacct` or `none,name=systemd`; empty for version 2.
    pub(crate) controllers: String,
}

impl Hierarchy {
    fn group(&self, lab: &str) -> PathBuf {
        self.mount.join(format!("netdiag-lab-{lab}"))
    }

    fn is_v2(&self) -> bool {
        self.kind == "cgroup2"
    }
}

/// The hierarchies mounted in the namespace of the calling process.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(parse(&text))
}

/// Picks the hierarchies out of `mountinfo` (format: proc(5)).
fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mount = before.split(' ').nth(4)?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let controllers = match kind {
            "cgroup" => controllers(options),
            "cgroup2" => String::new(),
            _ => return None,
        };
        Some(Hierarchy { mount: mount.into(), kind: kind.into(), controllers })
    };
    mountinfo.lines().filter_map(hierarchy).collect()
}

/// The options of a version 1 mount that say which hierarchy it is. A named one has no controllers, which the kernel
/// wants to hear as `none`.
fn controllers(options: &str) -> String {
    let about_the_mount = ["rw", "ro", "xattr", "clone_children", "cpuset_v2_mode", "noprefix"];
    let chosen: Vec<_> = options
        .split(',')
        .filter(|option| !about_the_mount.contains(option) && !option.starts_with("release_agent="))
        .collect();
    match chosen.as_slice() {
        [name] if name.starts_with("name=") => format!("none,{name}"),
        _ => chosen.join(","),
    }
}

/// Makes the groups of a lab and of one member of it.
pub(crate) fn create(lab: &str, member: &str) -> Result<()> {
    let hierarchies = hierarchies()?;
    if hierarchies.is_empty() {
        bail!("no cgroup file system is mounted; Docker cannot work without (mount one on /sys/fs/cgroup)");
    }
    for hierarchy in hierarchies {
        let group = hierarchy.group(lab);
        for directory in [group.clone(), group.join(member)] {
            match fs::create_dir(&directory) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                result => result.with_context(|| format!("make control group {}", directory.display()))?,
            }
            inherit_cpuset(&directory)?;
        }
        if hierarchy.is_v2() {
            delegate(&group)?;
        }
    }
    Ok(())
}

/// A cpuset group of version 1 takes no process before it has processors and memory nodes.
fn inherit_cpuset(directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let Some(parent) = directory.parent().map(|parent| parent.join(file)) else { continue };
        // Version 2 inherits by itself; there the parent may be the root, which has no such file.
        let (Ok(value), Ok(present)) = (fs::read_to_string(&parent), fs::read_to_string(&own)) else { continue };
        if present.trim().is_empty() && !value.trim().is_empty() {
            fs::write(&own, value).with_context(|| format!("write {}", own.display()))?;
        }
    }
    Ok(())
}

/// Hands every controller the group has to its children (version 2).
fn delegate(group: &Path) -> Result<()> {
    let available = group.join("cgroup.controllers");
    let names = fs::read_to_string(&available).with_context(|| format!("read {}", available.display()))?;
    for name in names.split_ascii_whitespace() {
        let control = group.join("cgroup.subtree_control");
        fs::write(&control, format!("+{name}")).with_context(|| format!("enable {name} in {}", control.display()))?;
    }
    Ok(())
}

/// Moves a process into the group of a member; pid 0 is the caller itself.
pub(crate) fn join(lab: &str, member: &str, pid: u32) -> Result<()> {
    for hierarchy in hierarchies()? {
        enter(&hierarchy.group(lab).join(member), pid)?;
    }
    Ok(())
}

fn enter(group: &Path, pid: u32) -> Result<()> {
    let processes = group.join("cgroup.procs");
    fs::write(&processes, pid.to_string()).with_context(|| format!("move process {pid} to {}", group.display()))
}

/// Inside a lab host, once its groups are mounted: makes room for containers beside the host's own processes.
pub(crate) fn settle(hierarchies: &[Hierarchy]) -> Result<()> {
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.is_v2()) {
        let leaf = hierarchy.mount.join("init");
        fs::create_dir(&leaf).with_context(|| format!("make control group {}", leaf.display()))?;
        enter(&leaf, 0)?;
        delegate(&hierarchy.mount)?;
    }
    Ok(())
}

/// Removes every group of a lab; fails while a process is still in one.
pub(crate) fn remove(lab: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        remove_tree(&hierarchy.group(lab))?;
    }
    Ok(())
}

fn remove_tree(group: &Path) -> Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("read {}", group.display()))?,
    };
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", group.display()))?.path();
        if path.is_dir() {
            remove_tree(&path)?;
        }
    }
    fs::remove_dir(group).with_context(|| format!("remove control group {}", group.display()))
}

#[cfg(test)]
mod tests {
    use super::{Hierarchy, parse};

    #[test]
    fn hierarchies_of_version_1_keep_what_chooses_them() {
        let text = "\
31 24 0:27 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
33 31 0:29 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
34 31 0:30 / /sys/fs/cgroup/unified rw shared:12 - cgroup2 cgroup2 rw,nsdelegate
";
        let expect = |mount: &str, kind: &str, controllers: &str| Hierarchy {
            mount: mount.into(),
            kind: kind.into(),
            controllers: controllers.into(),
        };
        assert_eq!(
            parse(text),
            [
                expect("/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"),
                expect("/sys/fs/cgroup/systemd", "cgroup", "none,name=systemd"),
                expect("/sys/fs/cgroup/unified", "cgroup2", ""),
            ]
        );
    }
}
