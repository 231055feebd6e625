//! What runs in an instance: a busybox that answers on port 80 (HTTP) and on port 7 (echo).
//!
//! `http://<address>/cgi-bin/whoami` answers with the host name of who answers and the address it was asked from, so
//! one request proves both who was reached and how the packets were translated on the way. The gateway, the machine
//! outside and the metadata service answer in the same words.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, bail};

use crate::lab::command;

/// The program an instance runs, inside its root.
pub(crate) const ENTRY: &str = "/sbin/instance";

/// Path of the request every machine in a lab answers.
pub(crate) const WHOAMI: &str = "/cgi-bin/whoami";

const WHOAMI_SCRIPT: &str = "#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n%s saw %s\\n' \"$(hostname)\" \"$REMOTE_ADDR\"
";

/// Process 1 of an instance: the variables `HTTP_PORT` and `DNS_ZONE` move its web server and let it answer for a DNS zone
/// (which needs dnsmasq from outside the image). A shell, so that orphans are collected and `docker stop` is obeyed at once.
const ENTRY_SCRIPT: &str = r#"#!/bin/sh
trap 'exit 0' TERM INT
nc -ll -p 7 -e cat &
httpd -f -p "${HTTP_PORT:-80}" -h /srv &
[ -z "$DNS_ZONE" ] || /usr/sbin/dnsmasq --keep-in-foreground --user=root --conf-file=/dev/null --pid-file= \
    --no-hosts --no-resolv --address="/$DNS_ZONE/192.0.2.53" &
wait
"#;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";

/// Writes the root file system of an instance into an empty directory.
pub(crate) fn write_root(root: &Path) -> Result<()> {
    let applets = command::run("busybox", ["--list"])?;
    let missing: Vec<_> =
        ["httpd", "nc", "sh"].into_iter().filter(|needed| applets.lines().all(|applet| applet != *needed)).collect();
    if !missing.is_empty() {
        bail!("this busybox has no {} (package busybox-static has)", missing.join(", "));
    }
    for directory in ["bin", "dev", "etc", "proc", "root", "sbin", "srv", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory)).with_context(|| format!("make {directory} of the image"))?;
    }
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(program.context("no busybox in /bin or /usr/bin")?, root.join("bin/busybox")).context("copy busybox")?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).with_context(|| format!("link {applet}"))?;
    }
    fs::write(root.join("etc/passwd"), PASSWD).context("write passwd of the image")?;
    write_script(&root.join("sbin/instance"), ENTRY_SCRIPT)?;
    write_web_root(&root.join("srv"))
}

/// Writes what a web server of the lab serves.
pub(crate) fn write_web_root(root: &Path) -> Result<()> {
    let scripts = root.join("cgi-bin");
    fs::create_dir_all(&scripts).with_context(|| format!("make {}", scripts.display()))?;
    fs::write(root.join("index.html"), "netdiag lab\n").context("write index.html")?;
    write_script(&scripts.join("whoami"), WHOAMI_SCRIPT)
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("make {} executable", path.display()))
}

/// Starts a web server in the namespaces of the calling process.
pub(crate) fn start_web_server(root: &Path, port: u16) -> Result<()> {
    let root = root.to_string_lossy();
    command::run("busybox", ["httpd", "-p", &port.to_string(), "-h", &root]).map(drop)
}
