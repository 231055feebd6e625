//! The third act: the floating IP past its router, and through it again. What is printed is what the commands say.

use anyhow::Result;

use super::{FLOATING_IP, Place, Stage};
use crate::command;

/// Until the agent has looked at the routers.
const FAST: &str = "\
for attempt in $(seq 150); do
  netdiag fip 172.24.4.6 | grep -q '^172.24.4.6 *fast' && exit 0
  sleep 0.2
done
netdiag fip 172.24.4.6 >&2; exit 1";

/// A connection to the web server.
const GET: &str = "printf 'GET / HTTP/1.0\\n\\n' | busybox nc -w 5 172.24.4.6 80 | head -1";

/// How often the router has translated a connection: the counter of its rule.
const ROUTER: &str = "\
ip -all netns exec iptables -t nat -vnL neutron-l3-agent-PREROUTING 2>/dev/null |
    grep -w 172.24.4.6";

/// Shows both ways.
pub(super) fn shown(stage: &Stage) -> Result<()> {
    command::run(&mut stage.line(Place::Host, FAST)?)?;
    println!("\nWhat comes to the floating IP goes past Open vSwitch and the router, both directions:");
    stage.show(Place::Outside, GET, 0)?;
    stage.show(Place::Host, &format!("netdiag fip {FLOATING_IP}"), 0)?;
    println!("\nThe router translated the connections of before, and none of this:");
    stage.show(Place::Host, ROUTER, 0)?;
    println!("\nNew connections through the router again, and the same web server:");
    stage.show(Place::Host, &format!("netdiag fip slow {FLOATING_IP}"), 0)?;
    stage.show(Place::Outside, GET, 0)?;
    stage.show(Place::Host, &format!("netdiag fip {FLOATING_IP}"), 0)?;
    stage.show(Place::Host, ROUTER, 0)?;
    stage.show(Place::Host, &format!("netdiag fip fast {FLOATING_IP}"), 0)
}
