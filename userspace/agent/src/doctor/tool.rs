//! The programs that list packet filter rules, and whether they see all of them. Flow: discover.

use std::{env, io, process::Stdio};

use netdiag_model::doctor::Check;
use tokio::{process::Command, time};

use super::{ANSWER, chain, read};

/// Where the legacy backend lists its tables, for IPv4 and IPv6. The files exist only while its modules are loaded.
const LEGACY_TABLES: &[&str] = &["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];

/// What a program said when it was asked for its version.
enum Answer {
    /// Its first line.
    Version(String),
    /// There is no such program.
    Absent,
    /// It is there and does not answer.
    Mute(String),
}

/// Every program, and what it is needed for.
pub(super) async fn checks() -> Vec<Check> {
    let (iptables, legacy, nft) = tokio::join!(ask("iptables-save"), ask("iptables-legacy-save"), ask("nft"));
    let tables: io::Result<Vec<_>> = LEGACY_TABLES.iter().map(read).collect();
    vec![listing("iptables-save", iptables, "iptables"), listing("nft", nft, "nftables"), legacy_rules(tables, &legacy)]
}

async fn ask(program: &str) -> Answer {
    // Only root has these directories in its path on Debian.
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.arg("--version").env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    match time::timeout(ANSWER, command.output()).await {
        Err(_) => Answer::Mute(format!("no answer within {} s", ANSWER.as_secs())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Answer::Absent,
        Ok(Err(error)) => Answer::Mute(chain(&error)),
        Ok(Ok(output)) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            Answer::Version(text.lines().next().unwrap_or_default().trim().to_owned())
        }
        Ok(Ok(output)) => Answer::Mute(output.status.to_string()),
    }
}

fn listing(program: &str, answer: Answer, package: &str) -> Check {
    match answer {
        Answer::Version(version) => Check::ok(program, version),
        Answer::Absent => Check::warning(program, "not installed")
            .so(format!("rules it would list are missing from traces: what {package} drops or rewrites is not seen"))
            .fix(format!("apt install {package}")),
        Answer::Mute(why) => Check::unknown(program, why).so(format!("rules of {package} may be missing from traces")),
    }
}

/// Rules of the legacy backend are invisible to the tools of the other.
fn legacy_rules(tables: io::Result<Vec<Option<String>>>, legacy: &Answer) -> Check {
    let name = "legacy iptables rules";
    let tables: Vec<_> = match tables {
        Ok(tables) => tables.into_iter().flatten().collect(),
        Err(error) => {
            return Check::unknown(name, format!("{}: {error}", LEGACY_TABLES.join(", "))).fix("run as root");
        }
    };
    let mut tables: Vec<_> = tables.iter().flat_map(|names| names.lines()).collect();
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        return Check::ok(name, "none");
    }
    let result = format!("tables {}", tables.join(", "));
    match legacy {
        Answer::Version(_) => Check::ok(name, format!("{result}, listed by iptables-legacy-save")),
        Answer::Absent | Answer::Mute(_) => Check::warning(name, result)
            .so("they are in force, and the iptables-save of this host may not list them")
            .fix("apt install iptables, for iptables-legacy-save"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, ask, legacy_rules, listing};
    use netdiag_model::doctor::Status;
    use std::io;

    #[test]
    fn a_tool_that_is_not_there_is_told_from_one_that_does_not_answer() {
        assert_eq!(listing("nft", Answer::Absent, "nftables").status, Status::Warning);
        assert_eq!(listing("nft", Answer::Mute("no answer".to_owned()), "nftables").status, Status::Unknown);
    }

    #[tokio::test]
    async fn a_program_nobody_has_is_absent() {
        assert!(matches!(ask("no-such-program-anywhere").await, Answer::Absent));
    }

    #[test]
    fn legacy_rules_nobody_can_list_are_warned_about() {
        let tables = || Ok(vec![Some("nat\nfilter".to_owned()), Some("filter".to_owned())]);
        let check = legacy_rules(tables(), &Answer::Absent);
        assert_eq!((check.status, check.result.as_str()), (Status::Warning, "tables filter, nat"));
        assert_eq!(legacy_rules(tables(), &Answer::Version("1".to_owned())).status, Status::Ok);
        assert_eq!(legacy_rules(Ok(vec![None, Some(String::new())]), &Answer::Absent).status, Status::Ok);
        let denied = Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!(legacy_rules(denied, &Answer::Absent).status, Status::Unknown);
    }
}
