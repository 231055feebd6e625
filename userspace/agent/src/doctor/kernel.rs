//! What the kernel is and offers. Flow: discover.

use std::{fs::File, io};

use netdiag_model::doctor::Check;

use super::{Read, read, unreadable};

/// The oldest Linux netdiag is tested on: Debian 12's.
const OLDEST: (u32, u32) = (6, 1);

const BTF: &str = "/sys/kernel/btf/vmlinux";
const MOUNTS: &str = "/proc/self/mounts";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const UNPRIVILEGED: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Everything about the kernel itself.
pub(super) fn checks() -> Vec<Check> {
    let uname = rustix::system::uname();
    let mut checks = vec![version(&uname.release().to_string_lossy()).required(), btf(File::open(BTF).map(drop))];
    match read(MOUNTS) {
        Ok(mounts) => {
            let mounts = mounts.unwrap_or_default();
            checks.extend(mounted(&mounts));
            checks.push(lockdown(&read(LOCKDOWN), place(&mounts, "securityfs").is_some()));
        }
        Err(error) => checks.push(unreadable("mounts", MOUNTS, &error)),
    }
    checks.push(unprivileged(&read(UNPRIVILEGED)));
    checks.push(jit(&read(JIT)));
    checks
}

fn version(release: &str) -> Check {
    let name = "kernel";
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Check::unknown(name, format!("{release}: not a version that can be read"));
    };
    if (major, minor) >= OLDEST {
        return Check::ok(name, release);
    }
    Check::fail(name, format!("{release}, older than {}.{}", OLDEST.0, OLDEST.1))
        .so("netdiag is not tested on it; what it shows may be incomplete")
        .fix("boot a newer kernel")
}

fn btf(opened: io::Result<()>) -> Check {
    let name = "BTF";
    match opened {
        Ok(()) => Check::ok(name, BTF),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::warning(name, "the kernel has none")
            .so("programs that read the kernel's own structures cannot be loaded; classifiers can")
            .fix("boot a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions build theirs"),
        Err(error) => unreadable(name, BTF, &error),
    }
}

/// Where a file system of a kind is mounted.
fn place<'a>(mounts: &'a str, kind: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == kind).then_some(place)
    })
}

/// What the table of mounts says.
fn mounted(mounts: &str) -> [Check; 2] {
    let bpffs = place(mounts, "bpf").map_or_else(
        || {
            Check::warning("bpffs", "not mounted")
                .so("nothing can be pinned: programs would end with the process that loaded them")
                .fix("mount -t bpf bpf /sys/fs/bpf (`ip netns exec` hides it; `nsenter --net=` does not)")
        },
        |place| Check::ok("bpffs", place),
    );
    let cgroup = place(mounts, "cgroup2").map_or_else(
        || {
            Check::warning("cgroup v2", "not mounted")
                .so("containers of runtimes other than Docker are recognised by their cgroup v1 path, if at all")
                .fix("boot with systemd.unified_cgroup_hierarchy=1")
        },
        |place| Check::ok("cgroup v2", place),
    );
    [bpffs, cgroup]
}

/// The file lists the modes with the one in force in brackets: `[none] integrity confidentiality`.
fn lockdown(read: &Read, securityfs: bool) -> Check {
    let name = "lockdown";
    let text = match read {
        Ok(Some(text)) => text,
        Ok(None) if securityfs => return Check::ok(name, "the kernel has none"),
        Ok(None) => {
            return Check::unknown(name, "securityfs is not mounted")
                .fix("mount -t securityfs securityfs /sys/kernel/security");
        }
        Err(error) => return unreadable(name, LOCKDOWN, error),
    };
    match text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(mode, _)| mode) {
        Some(mode @ ("none" | "integrity")) => Check::ok(name, mode),
        Some("confidentiality") => Check::warning(name, "confidentiality")
            .so("eBPF programs may not read kernel memory; classifiers still work")
            .fix("boot without lockdown=confidentiality if such programs are needed"),
        _ => Check::unknown(name, format!("{LOCKDOWN}: {text}")),
    }
}

fn unprivileged(read: &Read) -> Check {
    let name = "unprivileged eBPF";
    match read.as_ref().map(Option::as_deref) {
        Ok(Some("1" | "2")) => Check::ok(name, "disabled"),
        Ok(Some("0")) => Check::warning(name, "allowed")
            .so("every user of this host may load eBPF programs")
            .fix("sysctl -w kernel.unprivileged_bpf_disabled=2"),
        Ok(Some(other)) => Check::unknown(name, format!("{UNPRIVILEGED} is {other}")),
        Ok(None) => Check::unknown(name, format!("{UNPRIVILEGED} does not exist")).so("this kernel may have no eBPF"),
        Err(error) => unreadable(name, UNPRIVILEGED, error),
    }
}

fn jit(read: &Read) -> Check {
    let name = "eBPF JIT";
    match read.as_ref().map(Option::as_deref) {
        Ok(Some("1" | "2")) => Check::ok(name, "on"),
        Ok(Some("0")) => Check::warning(name, "off")
            .so("programs are interpreted, several times slower")
            .fix("sysctl -w net.core.bpf_jit_enable=1"),
        Ok(Some(other)) => Check::unknown(name, format!("{JIT} is {other}")),
        Ok(None) => Check::unknown(name, format!("{JIT} does not exist here"))
            .fix("look in the host's namespace: others do not have the file"),
        Err(error) => unreadable(name, JIT, error),
    }
}

#[cfg(test)]
mod tests {
    use super::{btf, jit, lockdown, mounted, unprivileged, version};
    use netdiag_model::doctor::Status;
    use std::io;

    #[test]
    fn kernels_from_6_1_on_are_supported() {
        for (release, status) in [
            ("6.1.0-44-amd64", Status::Ok),
            ("6.18.44", Status::Ok),
            ("7.2-rc1", Status::Ok),
            ("6.0.19", Status::Fail),
            ("5.15.0-91-generic", Status::Fail),
            ("custom", Status::Unknown),
        ] {
            assert_eq!(version(release).status, status, "{release}");
        }
    }

    #[test]
    fn no_permission_is_unknown_and_not_absence() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(btf(Err(denied())).status, Status::Unknown);
        assert_eq!(btf(Err(io::ErrorKind::NotFound.into())).status, Status::Warning);
        assert_eq!(lockdown(&Err(denied()), true).status, Status::Unknown);
        assert_eq!(jit(&Err(denied())).status, Status::Unknown);
    }

    #[test]
    fn mounts_are_told_by_their_type_and_not_by_their_place() {
        let mounts = "bpf /sys/fs/bpf bpf rw 0 0\nnone /somewhere/cgroup2 tmpfs rw 0 0\n";
        let [bpffs, cgroup] = mounted(mounts);
        assert_eq!((bpffs.status, bpffs.result.as_str()), (Status::Ok, "/sys/fs/bpf"));
        assert_eq!(cgroup.status, Status::Warning);
    }

    #[test]
    fn lockdown_is_the_mode_in_brackets() {
        let status = |text: &str| lockdown(&Ok(Some(text.to_owned())), true).status;
        assert_eq!(status("[none] integrity confidentiality"), Status::Ok);
        assert_eq!(status("none integrity [confidentiality]"), Status::Warning);
        assert_eq!(status("none [new-mode]"), Status::Unknown);
        assert_eq!(lockdown(&Ok(None), true).status, Status::Ok);
        assert_eq!(lockdown(&Ok(None), false).status, Status::Unknown);
    }

    #[test]
    fn unprivileged_loading_is_warned_about() {
        assert_eq!(unprivileged(&Ok(Some("0".to_owned()))).status, Status::Warning);
        assert_eq!(unprivileged(&Ok(Some("2".to_owned()))).status, Status::Ok);
    }
}
