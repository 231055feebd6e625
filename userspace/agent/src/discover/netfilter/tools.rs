//! The tools that print rules: finds them, runs them in a namespace, ends them in time. Flow: discover.

use std::{
    env,
    ffi::OsString,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use netdiag_model::fact::{Gap, RuleBackend, SourceKind};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    runtime::Handle,
    time::timeout,
};

use crate::netns::{Namespace, NetnsError};

/// The most a tool may print. A host with 100 000 rules prints about 20 MB.
const MOST: u64 = 256 << 20;
/// How long `iptables --version` may take.
const VERSION_LIMIT: Duration = Duration::from_secs(2);
/// How long a killed process may take to go; one that the kernel holds is left to the runtime to reap.
const KILL_LIMIT: Duration = Duration::from_millis(200);

/// Where the tools are.
#[derive(Debug, Default)]
pub(super) struct Tools {
    pub(super) nft: Option<PathBuf>,
    pub(super) ipset: Option<PathBuf>,
    legacy: [Option<PathBuf>; 2],
    nft_save: [Option<PathBuf>; 2],
}

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NetnsError),
    /// It could not be started or read.
    #[error("cannot be run: {0}")]
    Io(#[from] io::Error),
    /// It ended with an error.
    #[error("ended with {status}: {message}")]
    Failed {
        /// How.
        status: ExitStatus,
        /// The first line it wrote about it.
        message: String,
    },
    /// It hung and was killed.
    #[error("no answer within {} ms, killed", .0.as_millis())]
    Hung(Duration),
    /// Others took the time.
    #[error("not asked, the time was up")]
    NoTimeLeft,
    /// It prints without end.
    #[error("prints more than {} MiB", MOST >> 20)]
    TooMuch,
}

impl ToolError {
    /// What the operator can do.
    pub(super) fn fix(&self) -> &'static str {
        match self {
            Self::Failed { message, .. } if is_permission(message) => "run as root",
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => "run as root",
            Self::Namespace(_) => "run as root",
            Self::Failed { .. } | Self::Io(_) => "run the tool by hand in that namespace and see what it says",
            Self::Hung(_) | Self::NoTimeLeft => "see whether the tool hangs, or give it longer with --timeout",
            Self::TooMuch => "list the rules by hand",
        }
    }
}

fn is_permission(message: &str) -> bool {
    ["ermission denied", "not permitted", "must be root"].iter().any(|words| message.contains(words))
}

impl Tools {
    /// Looks for them in PATH and where distributions put them.
    pub(super) async fn find() -> Self {
        let path = search_path();
        let find = |name: &str| env::split_paths(&path).map(|folder| folder.join(name)).find(|file| is_program(file));
        let mut tools = Self {
            nft: find("nft"),
            ipset: find("ipset"),
            legacy: [find("iptables-legacy-save"), find("ip6tables-legacy-save")],
            nft_save: [find("iptables-nft-save"), find("ip6tables-nft-save")],
        };
        // Before iptables 1.8, and where a distribution has one of the two only, there is but the plain name.
        if tools.legacy[0].is_none() || tools.nft_save[0].is_none() {
            let plain = [find("iptables-save"), find("ip6tables-save")];
            tools.add_plain(plain, find("iptables")).await;
        }
        tools
    }

    async fn add_plain(&mut self, plain: [Option<PathBuf>; 2], iptables: Option<PathBuf>) {
        let version = match iptables {
            Some(iptables) => run(&iptables, &["--version"], VERSION_LIMIT).await.unwrap_or_default(),
            None => String::new(),
        };
        let into = if backend_of(&version) == RuleBackend::IptablesNft { &mut self.nft_save } else { &mut self.legacy };
        for (one, plain) in into.iter_mut().zip(plain) {
            *one = one.take().or(plain);
        }
    }

    /// The tool that prints all rules of a backend and family.
    pub(super) fn save(&self, backend: RuleBackend, ipv6: bool) -> Option<&PathBuf> {
        match backend {
            RuleBackend::IptablesLegacy => self.legacy[usize::from(ipv6)].as_ref(),
            RuleBackend::IptablesNft => self.nft_save[usize::from(ipv6)].as_ref(),
            RuleBackend::Nft => self.nft.as_ref(),
        }
    }

    /// Their names, for the report.
    pub(super) fn names(&self) -> String {
        let all = [&self.nft, &self.legacy[0], &self.legacy[1], &self.nft_save[0], &self.nft_save[1]];
        let names: Vec<_> = all
            .into_iter()
            .flatten()
            .filter_map(|tool| tool.file_name().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        if names.is_empty() { "no tool".to_owned() } else { names.join(", ") }
    }

    /// What cannot be read in any namespace for lack of a tool.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        if self.nft.is_some() {
            return Vec::new();
        }
        // A kernel without nf_tables has no such rules; built in or loaded, it shows its parameters or its files.
        let absent = !Path::new("/sys/module/nf_tables").exists();
        let why = if absent { "not installed, and the kernel has no nf_tables loaded" } else { "not installed" };
        vec![Gap {
            source: SourceKind::Netfilter,
            netns: None,
            object: "nft".to_owned(),
            why: why.to_owned(),
            fix: "install nftables".to_owned(),
            absent,
        }]
    }
}

/// `iptables v1.8.9 (nf_tables)`; releases before 1.8 name none and are legacy.
fn backend_of(version: &str) -> RuleBackend {
    if version.contains("(nf_tables)") { RuleBackend::IptablesNft } else { RuleBackend::IptablesLegacy }
}

/// PATH, and the folders for administrators that a user's PATH often lacks.
pub(crate) fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(folders.filter(|folder| folder.is_absolute())).unwrap_or(path)
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a tool inside a namespace; what it printed.
pub(super) async fn run_in(
    namespace: &Namespace,
    tool: &Path,
    arguments: &'static [&'static str],
    limit: Duration,
) -> Result<String, ToolError> {
    let tool = tool.to_owned();
    let runtime = Handle::current();
    // The child is in the namespace of the thread that starts it, and stays there when the thread ends.
    let child = namespace
        .run(move || {
            let _runtime = runtime.enter();
            spawn(&tool, arguments)
        })
        .await??;
    collect(child, limit).await
}

/// Runs a tool where we are.
async fn run(tool: &Path, arguments: &[&str], limit: Duration) -> Result<String, ToolError> {
    collect(spawn(tool, arguments)?, limit).await
}

fn spawn(tool: &Path, arguments: &[&str]) -> io::Result<Child> {
    Command::new(tool)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Where the whole source runs out of time, its children end with it.
        .kill_on_drop(true)
        .spawn()
}

/// Waits for a tool, reads what it prints, and kills it where it takes too long.
async fn collect(mut child: Child, limit: Duration) -> Result<String, ToolError> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::try_join!(text(stdout), text(stderr), child.wait()) };
    let Ok(result) = timeout(limit, all).await else {
        kill(&mut child).await;
        return Err(ToolError::Hung(limit));
    };
    let (printed, complaint, status) = result?;
    if !status.success() {
        let message = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        return Err(ToolError::Failed { status, message: message.chars().take(200).collect() });
    }
    if printed.len() as u64 > MOST {
        return Err(ToolError::TooMuch);
    }
    Ok(printed)
}

async fn kill(child: &mut Child) {
    // Waits for it as well, so that no zombie is left. An error means it is gone already.
    drop(timeout(KILL_LIMIT, child.kill()).await);
}

/// Reads to the end. Rules hold comments in any encoding, so what is no UTF-8 is replaced.
async fn text(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MOST + 1).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::PermissionsExt,
        path::PathBuf,
        time::{Duration, Instant},
    };

    use netdiag_model::fact::RuleBackend;
    use tempfile::TempDir;

    use super::{ToolError, Tools, backend_of, run};

    /// A shell script in a folder of its own.
    fn tool(folder: &TempDir, name: &str, script: &str) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed_in_time_and_leaves_no_zombie() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("pid");
        let hangs = tool(&folder, "hangs", &format!("echo $$ > {}; exec sleep 60", file.display()));
        let started = Instant::now();
        let error = run(&hangs, &[], Duration::from_secs(3)).await.unwrap_err();
        assert!(matches!(error, ToolError::Hung(_)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
        let pid = fs::read_to_string(file).unwrap();
        assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists());
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_pipe_open_does_not_hold_up_the_answer() {
        let folder = TempDir::new().unwrap();
        let forks = tool(&folder, "forks", "sleep 20 & exit 0");
        let started = Instant::now();
        let error = run(&forks, &[], Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, ToolError::Hung(_)) && started.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_tool_that_fails_says_why_and_what_to_do() {
        let folder = TempDir::new().unwrap();
        let fails = tool(&folder, "fails", "echo; echo 'Operation not permitted (you must be root)' >&2; exit 4");
        let error = run(&fails, &[], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "ended with exit status: 4: Operation not permitted (you must be root)");
        assert_eq!(error.fix(), "run as root");
        let error = run(&folder.path().join("missing"), &[], Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, ToolError::Io(_)));
    }

    #[tokio::test]
    async fn what_is_no_text_is_read_all_the_same() {
        let folder = TempDir::new().unwrap();
        let prints = tool(&folder, "prints", r"printf 'a\377b'");
        assert_eq!(run(&prints, &[], Duration::from_secs(5)).await.unwrap(), "a\u{fffd}b");
    }

    #[tokio::test]
    async fn the_plain_tool_is_of_the_backend_its_version_names() {
        let folder = TempDir::new().unwrap();
        let plain = [Some(folder.path().join("iptables-save")), Some(folder.path().join("ip6tables-save"))];
        for (version, backend, other) in [
            ("iptables v1.8.9 (nf_tables)", RuleBackend::IptablesNft, RuleBackend::IptablesLegacy),
            ("iptables v1.8.7 (legacy)", RuleBackend::IptablesLegacy, RuleBackend::IptablesNft),
            ("iptables v1.6.1", RuleBackend::IptablesLegacy, RuleBackend::IptablesNft),
        ] {
            assert_eq!(backend_of(version), backend);
            let iptables = tool(&folder, "iptables", &format!("echo '{version}'"));
            let mut tools = Tools::default();
            tools.add_plain(plain.clone(), Some(iptables)).await;
            assert_eq!(tools.save(backend, true), plain[1].as_ref());
            assert_eq!(tools.save(other, false), None);
        }
    }
}
