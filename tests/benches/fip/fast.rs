//! netdiag in that network: its own compiler, loader and writer of maps.

use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use netdiag_agent::enforce::Hook;
use netdiag_model::{
    floating::{
        ExternalHook, FastPath, FloatingIp, NextHop, Owner, Plan, Router as Hops, State,
        tables::{FloatingTables, lower},
    },
    id::Mac,
};

use super::{
    course::Ends,
    district::{BEYOND, District, INSTANCE},
    program,
    world::{BenchPort, Host, Size, World},
};

/// A host whose floating IPs go the fast way.
pub(super) struct Fast {
    pub(super) host: Host,
    devices: [u32; 2],
    tables: FloatingTables,
}

impl Fast {
    /// With nothing yet; with the programs of another object where one is given.
    pub(super) fn new(district: &District, object: Option<&[u8]>) -> Result<Self> {
        let devices = [district.outside.device, district.instance.device];
        Ok(Self { host: Host::new(object)?, devices, tables: FloatingTables::default() })
    }

    /// Enforces ten rules at the instance, and has as many floating IPs as the ends of a way; they are delivered to the
    /// instance's own device or sent to the host's. The programs: from the instance, to it, from outside.
    pub(super) fn begin(&mut self, ends: &Ends, peer: bool) -> Result<[OwnedFd; 3]> {
        let [external, port] = self.devices;
        let ipv4 = Ends::address(ends.inside, ends.middle());
        let size = Size { rules: 10, members: 1000 };
        let mut world = World::new(&[BenchPort { ifindex: port, mac: INSTANCE, ipv4, size }])?;
        // It has all the fixed addresses.
        world.allow("10.1.0.0/16".parse()?);
        self.host.apply(&world)?;
        self.host.enforcer.collect()?;
        let places = [(port, self.host.place(port)?)].into();
        self.write(lower(&self.plan(ends, peer), &places))?;
        let [from, to] = self.host.enforcer.attach(port, Hook::Tc)?;
        let external = self.host.enforcer.attach_external(external, ExternalHook::Tc)?;
        program::open([from.program, to.program, external.program])
    }

    /// Leaves the devices as they were, and forgets every flow.
    pub(super) fn end(&mut self) -> Result<()> {
        for device in self.devices {
            let errors = self.host.enforcer.detach(device);
            ensure!(errors.is_empty(), "detach: {errors:?}");
        }
        self.write(FloatingTables::default())?;
        self.host.forget_flows()
    }

    fn write(&mut self, tables: FloatingTables) -> Result<()> {
        self.host.enforcer.apply_floating(&self.tables, &tables)?;
        self.tables = tables;
        Ok(())
    }

    fn plan(&self, ends: &Ends, peer: bool) -> Plan {
        let count = ends.outside.1;
        // The one that is looked at alone is the first one of the port.
        let places = [ends.middle()].into_iter().chain((0..count).filter(|place| *place != ends.middle()));
        let floating_ips = places.map(|place| self.floating_ip(ends, place, peer)).collect();
        // A router for every ten of them.
        let routers = (1..=count.div_ceil(10)).map(|number| (number, router(number))).collect();
        Plan { floating_ips, routers, ..Plan::default() }
    }

    fn floating_ip(&self, ends: &Ends, place: u32, peer: bool) -> FloatingIp {
        let [ifindex, port_ifindex] = self.devices;
        let [outer_mac, inner_mac] = ends.macs.map(Mac);
        let path = FastPath {
            router: 1,
            device: "ext0".to_owned(),
            ifindex,
            hook: ExternalHook::Tc,
            vlan: 0,
            outer_mac,
            outer_mtu: 1500,
            inner_mac,
            inner_mtu: 1500,
            mac: Mac(INSTANCE),
            port_ifindex,
            peer,
            hops: 1,
            random: true,
            begins: true,
        };
        FloatingIp {
            floating_ip_address: Ends::address(ends.outside, place),
            fixed_ip_address: Some(Ends::address(ends.inside, place)),
            port_id: None,
            router: "router".to_owned(),
            owner: Owner::Found,
            way: State::Fast(Box::new(path)),
        }
    }
}

/// What a router knows: both networks, the way out, and some neighbours.
fn router(number: u32) -> Hops {
    let net = |text: &str| text.parse().unwrap_or_default();
    let beyond = Mac(BEYOND);
    let mut hops = Hops { name: format!("router{number}"), ..Hops::default() };
    hops.hops.extend([
        (net("0.0.0.0/0"), NextHop::Via(beyond)),
        (net("10.1.0.0/16"), NextHop::Slow),
        (net("10.2.0.0/24"), NextHop::Slow),
        (net("172.24.0.0/15"), NextHop::Unresolved),
        (net("172.24.0.1/32"), NextHop::OnLink(beyond)),
        (net("172.24.0.2/32"), NextHop::Slow),
    ]);
    hops
}
