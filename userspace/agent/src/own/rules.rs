//! Rules of netdiag's own in the host's namespace, in chains of its own. Flow: policy.
//!
//! | table | chain | first in | does |
//! |---|---|---|---|
//! | nat | `netdiag-PREROUTING` | `PREROUTING` | what comes for a floating IP goes to its instance |
//! | nat | `netdiag-OUTPUT` | `OUTPUT` | the same for what the host sends |
//! | nat | `netdiag-float-snat` | `POSTROUTING` | what an instance sends outside, or to a floating IP, leaves as its own |
//! | filter | `netdiag-FORWARD` | `FORWARD` | what was translated so passes, and its answers; the instance's security groups decide about it |
//!
//! They are written by one call of `iptables-restore --noflush`, which replaces chains of netdiag's whole and leaves all others as they
//! are. The tool is the one in the search path, as it is for Docker and for operators, so rules of one kind stay together.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::{Command, ExitStatus, Stdio},
};

use super::Wanted;
use crate::discover::netfilter::search_path;

/// Chains, with their tables, and the kernel's chains that lead to them.
const CHAINS: [(&str, &str, &str); 4] = [
    ("filter", "netdiag-FORWARD", "FORWARD"),
    ("nat", "netdiag-PREROUTING", "PREROUTING"),
    ("nat", "netdiag-OUTPUT", "OUTPUT"),
    ("nat", "netdiag-float-snat", "POSTROUTING"),
];
/// Tables, in the order they are written: what is translated must be let pass already.
const TABLES: [&str; 2] = ["filter", "nat"];

/// Why rules could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The tool could not be run.
    #[error("run {tool}")]
    Run {
        /// Which.
        tool: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{tool} ended with {status}: {message}")]
    Failed {
        /// Which.
        tool: &'static str,
        /// How.
        status: ExitStatus,
        /// The first line it wrote about it.
        message: String,
    },
}

/// The rules as they were written last.
#[derive(Debug, Default)]
pub(super) struct Rules {
    /// For what, and what the tool printed of netdiag's chains afterwards.
    written: Option<(Wanted, Vec<String>)>,
}

impl Rules {
    /// Makes these the rules; none of netdiag's stay where there are no floating IPs.
    pub(super) fn set(&mut self, wanted: &Wanted) -> Result<(), RulesError> {
        let present = Present::read()?;
        let as_written = self.written.as_ref().is_some_and(|(of, chains)| of == wanted && *chains == present.chains);
        if as_written && present.is_led_to() {
            return Ok(());
        }
        self.written = None;
        if wanted.is_empty() {
            return if present.chains.is_empty() { Ok(()) } else { restore(&present.removal()) };
        }
        restore(&present.script(wanted))?;
        self.written = Some((wanted.clone(), Present::read()?.chains));
        Ok(())
    }
}

/// The rules there are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Present {
    /// Chains of netdiag's and rules in them, as they are printed.
    chains: Vec<String>,
    /// Rules of the kernel's chains that lead to netdiag's: which of them, by table and chain.
    jumps: BTreeMap<(&'static str, &'static str), Vec<usize>>,
}

impl Present {
    fn read() -> Result<Self, RulesError> {
        Ok(Self::parse(&run("iptables-save", &[], "")?))
    }

    fn parse(text: &str) -> Self {
        let mut present = Self::default();
        let mut table = "";
        let mut places: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
                continue;
            }
            let words: Vec<&str> = line.split(' ').collect();
            let chain = match words[..] {
                ["-A", chain, ..] => chain,
                [chain, ..] => chain.strip_prefix(':').unwrap_or_default(),
                [] => continue,
            };
            if CHAINS.iter().any(|(of, own, _)| (*of, *own) == (table, chain)) {
                // Without the counters of the chain.
                present.chains.push(format!("{table} {}", line.split(" [").next().unwrap_or_default()));
            } else if words[0] == "-A" {
                let place = places.entry((table.to_owned(), chain.to_owned())).or_default();
                let jump =
                    CHAINS.iter().find(|(of, own, from)| (*of, *from) == (table, chain) && words[2..] == ["-j", own]);
                if let Some((of, own, _)) = jump {
                    present.jumps.entry((*of, *own)).or_default().push(*place);
                }
                *place += 1;
            }
        }
        present
    }

    /// Every chain is led to once, before anything else.
    fn is_led_to(&self) -> bool {
        CHAINS.iter().all(|(table, own, _)| self.jumps.get(&(*table, *own)).is_some_and(|places| *places == [0]))
            || self.chains.is_empty() && self.jumps.is_empty()
    }

    fn jumps(&self, table: &'static str, own: &'static str) -> &[usize] {
        self.jumps.get(&(table, own)).map_or(&[], Vec::as_slice)
    }

    /// What `iptables-restore` is to do so that the rules are those of these floating IPs.
    fn script(&self, wanted: &Wanted) -> String {
        let mut lines = Vec::new();
        for table in TABLES {
            let chains = || CHAINS.iter().filter(|(of, _, _)| *of == table);
            lines.push(format!("*{table}"));
            // A chain that is there already is emptied.
            lines.extend(chains().map(|(_, own, _)| format!(":{own} - [0:0]")));
            for (of, own, from) in chains().filter(|(of, own, _)| *self.jumps(of, own) != [0]) {
                lines.extend(self.jumps(of, own).iter().map(|_| format!("-D {from} -j {own}")));
                lines.push(format!("-I {from} 1 -j {own}"));
            }
            lines.extend(rules(table, wanted));
            lines.push("COMMIT".to_owned());
        }
        together(&lines)
    }

    /// What `iptables-restore` is to do so that nothing of netdiag's is left.
    fn removal(&self) -> String {
        let mut lines = Vec::new();
        // What was translated must be let pass to the end.
        for table in TABLES.iter().rev() {
            let there = |own: &str| self.chains.iter().any(|line| *line == format!("{table} :{own} -"));
            let chains: Vec<_> = CHAINS.iter().filter(|(of, own, _)| of == table && there(own)).collect();
            if chains.is_empty() {
                continue;
            }
            lines.push(format!("*{table}"));
            for (of, own, from) in chains {
                lines.extend(self.jumps(of, own).iter().map(|_| format!("-D {from} -j {own}")));
                lines.extend([format!("-F {own}"), format!("-X {own}")]);
            }
            lines.push("COMMIT".to_owned());
        }
        together(&lines)
    }
}

/// Lines, each with its end.
fn together(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The rules of a table.
fn rules(table: &str, wanted: &Wanted) -> Vec<String> {
    let mut rules = Vec::new();
    for (floating, served) in wanted {
        let super::Served { fixed, device, network, .. } = served;
        let translated = format!("-m conntrack --ctstate DNAT --ctorigdst {floating}");
        if table == "filter" {
            rules.push(format!("-A netdiag-FORWARD -d {fixed}/32 {translated} -j ACCEPT"));
            rules.push(format!("-A netdiag-FORWARD -s {fixed}/32 {translated} -j ACCEPT"));
            continue;
        }
        for chain in ["netdiag-PREROUTING", "netdiag-OUTPUT"] {
            rules.push(format!("-A {chain} -d {floating}/32 -j DNAT --to-destination {fixed}"));
        }
        let snat = format!("-j SNAT --to-source {floating}");
        rules.push(format!("-A netdiag-float-snat -s {fixed}/32 -o {device} {snat}"));
        rules.push(format!("-A netdiag-float-snat -s {fixed}/32 -m conntrack --ctstate DNAT {snat}"));
        // Who is on the instance's own network would get the answer past the host, untranslated.
        let hairpin = network
            .map(|network| format!("-A netdiag-float-snat -s {network} -d {fixed}/32 {translated} -j MASQUERADE"));
        rules.extend(hairpin);
    }
    // An instance that has a floating IP itself keeps it.
    rules.sort_by_key(|rule| rule.ends_with("MASQUERADE"));
    rules
}

fn restore(script: &str) -> Result<(), RulesError> {
    run("iptables-restore", &["--wait", "5", "--noflush"], script).map(drop)
}

fn run(tool: &'static str, arguments: &[&str], input: &str) -> Result<String, RulesError> {
    let failed = |source| RulesError::Run { tool, source };
    let mut command = Command::new(tool);
    command.args(arguments).env("LC_ALL", "C").env("PATH", search_path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let message = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        return Err(RulesError::Failed { tool, status: output.status, message: message.chars().take(200).collect() });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::Served, Present, Wanted, rules};

    fn wanted() -> Wanted {
        let served = |fixed: &str| Served {
            fixed: fixed.parse().unwrap(),
            device: "ext0".to_owned(),
            network: Some("172.17.0.0/16".parse().unwrap()),
            hairpin: None,
        };
        Wanted::from([
            ("203.0.113.7".parse().unwrap(), served("172.17.0.2")),
            ("203.0.113.8".parse().unwrap(), served("172.17.0.3")),
        ])
    }

    const WITHOUT: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n";

    #[test]
    fn a_host_without_rules_of_netdiag_gets_jumps_before_all_others_and_nothing_else_is_touched() {
        let script = Present::parse(WITHOUT).script(&wanted());
        assert!(script.contains("-I PREROUTING 1 -j netdiag-PREROUTING\n"), "{script}");
        assert!(!script.contains("DOCKER") && !script.contains("-D "), "{script}");
        assert!(script.find("*filter") < script.find("*nat"));
    }

    #[test]
    fn a_jump_that_is_not_the_first_any_more_is_put_there_again() {
        let text =
            WITHOUT.replace("COMMIT", ":netdiag-PREROUTING - [1:2]\n-A PREROUTING -j netdiag-PREROUTING\nCOMMIT");
        let present = Present::parse(&text);
        assert!(!present.is_led_to());
        let script = present.script(&wanted());
        let (delete, insert) =
            (script.find("-D PREROUTING -j netdiag-PREROUTING"), script.find("-I PREROUTING 1 -j netdiag-PREROUTING"));
        assert!(delete.is_some() && delete < insert, "{script}");
    }

    #[test]
    fn what_was_written_is_taken_away_with_its_jumps_and_its_chains() {
        let text =
            WITHOUT.replace("COMMIT", ":netdiag-PREROUTING - [1:2]\n-A PREROUTING -j netdiag-PREROUTING\nCOMMIT");
        let removal = Present::parse(&text).removal();
        let expected =
            "*nat\n-D PREROUTING -j netdiag-PREROUTING\n-F netdiag-PREROUTING\n-X netdiag-PREROUTING\nCOMMIT\n";
        assert_eq!(removal, expected);
        assert_eq!(Present::parse(WITHOUT).removal(), "");
    }

    #[test]
    fn counters_of_chains_are_no_difference() {
        let text = |count| {
            format!("*nat\n:netdiag-OUTPUT - [{count}:0]\n-A netdiag-OUTPUT -d 203.0.113.7/32 -j DNAT\nCOMMIT\n")
        };
        assert_eq!(Present::parse(&text(1)), Present::parse(&text(2)));
        assert_eq!(Present::parse(&text(1)).chains.len(), 2);
    }

    #[test]
    fn an_instance_with_a_floating_ip_reaches_another_as_its_own_rather_than_as_the_host() {
        let nat = rules("nat", &wanted());
        let own = nat.iter().position(|rule| rule.contains("-s 172.17.0.3/32 -m conntrack --ctstate DNAT"));
        let host = nat.iter().position(|rule| rule.contains("-s 172.17.0.0/16 -d 172.17.0.2/32"));
        assert!(own.is_some() && own < host, "{nat:#?}");
    }
}
