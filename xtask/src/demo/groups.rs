//! The second act: an agent enforces security groups on the instance, a connection is allowed and another one refused, and
//! netdiag says by which rule. What is printed is what the commands say.

use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};

use super::{FLOATING_IP, LAB, Place, Stage, floating, lab};
use crate::command;

/// Address of the machine outside.
const OUTSIDE: &str = "203.0.113.10";

/// Where the agent looks for policy when nobody says otherwise.
const POLICY: &str = "/etc/netdiag/policy.d/web.yaml";

/// The agent, in the background of the host.
const START: &str = "netdiag agent > /run/agent.log 2>&1 & echo $! > /run/agent.pid";

/// Until its first look is over. What it said is the reason if it could not start.
const READY: &str = "\
for attempt in $(seq 100); do
  netdiag agent status > /dev/null 2>&1 && exit 0
  kill -0 $(cat /run/agent.pid) 2> /dev/null || break
  sleep 0.1
done
cat /run/agent.log >&2; exit 1";

const STOP: &str = "kill $(cat /run/agent.pid)";

/// Until it has ended.
const STOPPED: &str = "while kill -0 $(cat /run/agent.pid) 2> /dev/null; do sleep 0.1; done";

/// Until somebody is connected to the agent: the socket that listens, under its first name, and another one.
const LISTENING: &str = "\
for attempt in $(seq 50); do
  [ $(grep -c /run/netdiag/agent /proc/net/unix) -gt 1 ] && exit 0
  sleep 0.1
done; exit 1";

/// Shows it all, and leaves the host as it was found unless it is to be kept.
pub(super) fn enforced(stage: &Stage, keep: bool) -> Result<()> {
    let policy = policy(&port()?);
    command::run(
        &mut stage
            .line(Place::Host, &format!("mkdir -p /etc/netdiag/policy.d\ncat > {POLICY} <<'EOF'\n{policy}EOF"))?,
    )?;
    println!("\nThe same instance with security groups: its web server is open to everybody, and\nnothing else of it.");
    stage.show(Place::Host, &format!("cat {POLICY}"), 0)?;
    stage.show(Place::Host, START, 0)?;
    command::run(&mut stage.line(Place::Host, READY)?)?;
    stage.show(Place::Host, "netdiag agent status", 0)?;
    let events = follow(stage)?;
    tried(stage)?;
    println!("\n$ netdiag events --count 2    # since before the two");
    print!("{}", said(events)?);
    explained(stage)?;
    floating::shown(stage)?;
    super::offer_live_view(stage, TRAFFIC)?;
    if !keep {
        left(stage)?;
    }
    Ok(())
}

/// One connection that a rule allows, and one to a service that is there and that no rule allows.
fn tried(stage: &Stage) -> Result<()> {
    println!("\nA rule allows the web server; none allows the echo service, which listens, too.");
    let get = "printf 'GET / HTTP/1.0\\n\\n'";
    stage.show(Place::Outside, &format!("{get} | busybox nc -w 5 {FLOATING_IP} 80"), 0)?;
    stage.show(Place::Outside, ECHO, 1)
}

/// The echo service, tried for a second.
const ECHO: &str = "echo hello | busybox nc -w 1 172.24.4.6 7";

/// Both again and again, for whoever watches, until there was enough.
const TRAFFIC: &str = "\
until test -e /run/enough; do
  printf 'GET / HTTP/1.0\\n\\n' | busybox nc -w 5 172.24.4.6 80
  echo hello | busybox nc -w 1 172.24.4.6 7
done > /dev/null 2>&1; rm /run/enough";

/// What netdiag says of the two, of the rules and of the path.
fn explained(stage: &Stage) -> Result<()> {
    println!("\nWhich rule decided, asked of the tables that are loaded:");
    for (service, code) in [(80, 0), (7, 3)] {
        let packet = format!("--from {OUTSIDE} --to {FLOATING_IP} --port {service}");
        stage.show(Place::Host, &format!("netdiag sg explain {FLOATING_IP} {packet}"), code)?;
    }
    stage.show(Place::Host, &format!("netdiag sg show {FLOATING_IP}"), 0)?;
    stage.show(Place::Host, &format!("netdiag flows {FLOATING_IP}"), 0)?;
    stage.show(Place::Host, &format!("netdiag trace {FLOATING_IP} | grep -A 1 'security group'"), 0)
}

/// Ends the agent, which changes nothing of what is enforced, and takes its programs away, which opens the instance again.
fn left(stage: &Stage) -> Result<()> {
    println!("\nThe agent may end: what is loaded is enforced until it is taken away.");
    stage.show(Place::Host, STOP, 0)?;
    command::run(&mut stage.line(Place::Host, STOPPED)?)?;
    stage.show(Place::Outside, ECHO, 1)?;
    stage.show(Place::Host, "netdiag agent --detach", 0)?;
    stage.show(Place::Outside, ECHO, 0)
}

/// Follows the next two events.
fn follow(stage: &Stage) -> Result<Child> {
    let mut events = stage.line(Place::Host, "netdiag events --count 2 --duration 10")?;
    let events = events.stdout(Stdio::piped()).spawn().context("start netdiag events")?;
    command::run(&mut stage.line(Place::Host, LISTENING)?)?;
    Ok(events)
}

fn said(child: Child) -> Result<String> {
    let output = child.wait_with_output().context("wait for netdiag events")?;
    String::from_utf8(output.stdout).context("netdiag events: its output is not UTF-8")
}

/// The policy, as an operator would write it. New connections that are allowed are told of, too.
fn policy(port: &str) -> String {
    format!(
        "\
security_groups:
- id: web
  security_group_rules:
  - {{id: http, direction: ingress, protocol: tcp,
     port_range_min: 80, port_range_max: 80}}
  - {{id: any-out, direction: egress}}
ports:
- id: {port}
  security_groups: [web]
  log_allowed: true
"
    )
}

/// Id of the instance's port.
fn port() -> Result<String> {
    let labs = command::output(lab()?.args(["status", LAB, "-o", "json"]))?;
    let labs: serde_json::Value = serde_json::from_str(&labs).context("read lab status")?;
    let ports =
        labs[0]["instances"].as_array().into_iter().flatten().filter_map(|instance| instance["ports"].as_array());
    let port = ports.flatten().find(|port| port["floating_ip"] == FLOATING_IP);
    let id = port.and_then(|port| port["id"].as_str());
    id.map(str::to_owned).with_context(|| format!("no instance of the lab has {FLOATING_IP}"))
}
