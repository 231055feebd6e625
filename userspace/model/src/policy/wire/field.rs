//! Which fields an object may have. Flow: policy.
//!
//! Neutron's other fields are let pass and mean nothing here. Any other name is a mistake: a misspelt `remote_ip_prefix` would
//! otherwise open a rule to everybody.

/// A kind of object.
#[derive(Debug)]
pub(in crate::policy) struct Kind {
    /// What an object of it is called.
    pub(in crate::policy) name: &'static str,
    /// Fields that mean something.
    pub(in crate::policy) own: &'static [&'static str],
    /// Those among them that are two names of one field.
    pub(in crate::policy) twins: &'static [[&'static str; 2]],
    /// Fields of Neutron that mean nothing here.
    pub(in crate::policy) ignored: &'static [&'static str],
}

impl Kind {
    /// Fields that mean something.
    pub(in crate::policy) fn valid(&self) -> Vec<String> {
        self.own.iter().map(ToString::to_string).collect()
    }
}

/// Fields nearly every object of Neutron has. Whatever carries one was written by a machine, which does not mistype.
pub(in crate::policy) const PROJECT: [&str; 2] = ["project_id", "tenant_id"];

/// A whole desired state, or an answer of Neutron's API.
pub(in crate::policy) const STATE: Kind = Kind {
    name: "policy",
    own: &[
        "security_groups",
        "security_group",
        "security_group_rules",
        "security_group_rule",
        "address_groups",
        "address_group",
        "ports",
        "port",
        "floatingips",
        "floatingip",
        "members",
        "permitted_ethertypes",
        "close_unknown_ports",
    ],
    twins: &[],
    ignored: &[
        "security_groups_links",
        "security_group_rules_links",
        "address_groups_links",
        "ports_links",
        "floatingips_links",
    ],
};

/// A security group.
pub(in crate::policy) const GROUP: Kind = Kind {
    name: "security group",
    own: &["id", "name", "stateful", "security_group_rules", "rules", "description"],
    twins: &[["security_group_rules", "rules"]],
    ignored: &[
        "created_at",
        "updated_at",
        "project_id",
        "tenant_id",
        "revision_number",
        "tags",
        "shared",
        "is_shared",
        "location",
        "standard_attr_id",
        "if_revision",
    ],
};

/// A security group rule.
pub(in crate::policy) const RULE: Kind = Kind {
    name: "rule",
    own: &[
        "id",
        "direction",
        "ethertype",
        "ether_type",
        "protocol",
        "port_range_min",
        "port_range_max",
        "remote_ip_prefix",
        "remote_group_id",
        "remote_address_group_id",
        "security_group_id",
        "description",
    ],
    twins: &[["ethertype", "ether_type"]],
    ignored: &[
        "name",
        "normalized_cidr",
        "belongs_to_default_sg",
        "created_at",
        "updated_at",
        "project_id",
        "tenant_id",
        "revision_number",
        "tags",
        "location",
        "standard_attr_id",
        "if_revision",
    ],
};

/// An address group.
pub(in crate::policy) const ADDRESS_GROUP: Kind = Kind {
    name: "address group",
    own: &["id", "name", "addresses", "description"],
    twins: &[],
    ignored: &[
        "created_at",
        "updated_at",
        "project_id",
        "tenant_id",
        "revision_number",
        "tags",
        "shared",
        "is_shared",
        "location",
        "standard_attr_id",
    ],
};

/// A port.
pub(in crate::policy) const PORT: Kind = Kind {
    name: "port",
    own: &[
        "id",
        "name",
        "mac_address",
        "fixed_ips",
        "security_groups",
        "security_group_ids",
        "allowed_address_pairs",
        "port_security_enabled",
        "is_port_security_enabled",
        "device_owner",
        "binding:host_id",
        "binding_host_id",
        "binding",
        "log_allowed",
        "description",
    ],
    twins: &[
        ["security_groups", "security_group_ids"],
        ["port_security_enabled", "is_port_security_enabled"],
        ["binding:host_id", "binding_host_id"],
    ],
    ignored: &[
        "admin_state_up",
        "is_admin_state_up",
        "binding:profile",
        "binding:vif_details",
        "binding:vif_type",
        "binding:vnic_type",
        "binding_profile",
        "binding_vif_details",
        "binding_vif_type",
        "binding_vnic_type",
        "bulk",
        "created_at",
        "data_plane_status",
        "device_id",
        "device_profile",
        "dns_assignment",
        "dns_domain",
        "dns_name",
        "extra_dhcp_opts",
        "hardware_offload_type",
        "hints",
        "if_revision",
        "ip_allocation",
        "location",
        "network_id",
        "numa_affinity_policy",
        "option_name",
        "option_value",
        "project_id",
        "propagate_uplink_status",
        "qos_network_policy_id",
        "qos_policy_id",
        "resource_request",
        "revision_number",
        "standard_attr_id",
        "status",
        "subnet_id",
        "tags",
        "tenant_id",
        "trunk_details",
        "trusted",
        "updated_at",
    ],
};

/// A floating IP.
pub(in crate::policy) const FLOATING_IP: Kind = Kind {
    name: "floating IP",
    own: &[
        "id",
        "name",
        "floating_ip_address",
        "fixed_ip_address",
        "port_id",
        "floating_network_id",
        "device",
        "qos_policy_id",
        "description",
    ],
    twins: &[],
    ignored: &[
        "created_at",
        "distributed",
        "dns_domain",
        "dns_name",
        "floating_ip_port_id",
        "if_revision",
        "location",
        "port_details",
        "port_forwardings",
        "project_id",
        "qos_network_policy_id",
        "revision_number",
        "router_id",
        "standard_attr_id",
        "status",
        "subnet_id",
        "tags",
        "tenant_id",
        "updated_at",
    ],
};

/// A fixed address.
pub(in crate::policy) const FIXED_IP: Kind =
    Kind { name: "fixed IP", own: &["ip_address"], twins: &[], ignored: &["subnet_id", "subnet"] };

/// An allowed address pair.
pub(in crate::policy) const PAIR: Kind =
    Kind { name: "allowed address pair", own: &["ip_address", "mac_address"], twins: &[], ignored: &["active"] };

/// How a port is found on this host.
pub(in crate::policy) const BINDING: Kind =
    Kind { name: "binding", own: &["device", "instance", "port_id"], twins: &[], ignored: &[] };
