//! The instance of a lab that faults are made around: everything on its way by its name.

use serde_json::Value;

use crate::Lab;

/// Names and ids of an instance and of its way out.
#[derive(Clone, Debug)]
pub struct Target {
    /// The container.
    pub container: String,
    /// Its first process.
    pub pid: String,
    /// The host's end of its device.
    pub tap: String,
    /// Its own end.
    pub inner: String,
    /// Its address.
    pub fixed: String,
    /// Its floating IP.
    pub floating: String,
    /// Namespace of its router.
    pub router: String,
    /// The router's end in its network.
    pub qr: String,
    /// The router's end outside.
    pub qg: String,
}

impl Target {
    /// The first instance of a host with a floating IP.
    ///
    /// # Panics
    /// The lab has none.
    #[must_use]
    pub fn of(lab: &Lab, host: &str) -> Self {
        Self::find(lab, host, |_| true)
    }

    /// The instance of a host that was given a name, which must have a floating IP.
    ///
    /// # Panics
    /// The lab has none.
    #[must_use]
    pub fn named(lab: &Lab, host: &str, name: &str) -> Self {
        Self::find(lab, host, |instance| instance["display_name"] == name)
    }

    fn find(lab: &Lab, host: &str, wanted: impl Fn(&Value) -> bool) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| panic!("no text: {value}"), str::to_owned);
        let instances = lab.instances(host);
        let is_it = |one: &&Value| one["ports"][0]["floating_ip"].is_string() && wanted(one);
        let instance = instances.iter().find(is_it).expect("a floating IP");
        let port = &instance["ports"][0];
        let routers = lab.built["routers"].as_array().expect("routers");
        let router = routers.iter().find(|router| router["id"] == port["router"]).expect("its router");
        let inside = router["interfaces"].as_array().expect("interfaces");
        let inside = inside.iter().find(|one| one["network"] == port["network"]).expect("its side");
        Self {
            container: text(&instance["container_name"]),
            pid: instance["pid"].to_string(),
            tap: text(&port["host_devices"][0]),
            inner: text(&port["device"]),
            fixed: text(&port["address"]["address"]),
            floating: text(&port["floating_ip"]),
            router: text(&router["netns"]),
            qr: text(&inside["device"]),
            qg: text(&router["gateway"]["device"]),
        }
    }

    /// A command in its namespace.
    #[must_use]
    pub fn inside(&self, command: &str) -> String {
        format!("nsenter -n -t {} {command}", self.pid)
    }

    /// A command in the namespace of its router.
    #[must_use]
    pub fn in_router(&self, command: &str) -> String {
        format!("ip netns exec {} {command}", self.router)
    }

    /// Adds (`A`) or deletes (`D`) a rule in one of the chains that Neutron's agent keeps for NAT.
    #[must_use]
    pub fn nat(&self, verb: &str, rule: &str) -> String {
        self.in_router(&format!("iptables -t nat -{verb} neutron-l3-agent-{rule}"))
    }
}
