//! Rows of the `Open_vSwitch` database to a `SwitchFact`. Flow: discover.
//!
//! Each row is taken out of its table when it is used, so that rows that refer to each other in odd ways can neither
//! multiply nor go round in circles. What does not fit is noted, and the rest is kept.

use std::collections::BTreeMap;

use netdiag_model::{
    fact::{ControllerFact, OvsBridgeFact, OvsInterfaceFact, OvsPortFact, SwitchFact},
    id::IfIndex,
};

use crate::{
    oddities::Oddities,
    ovsdb::table::{Row, Tables},
};

/// The rows not used yet, and what was odd about the others.
pub(super) struct Builder {
    tables: Tables,
    odd: Oddities,
}

impl Builder {
    /// Starts with what a server answered.
    pub(super) fn new(mut tables: Tables) -> Self {
        let odd = std::mem::take(&mut tables.odd);
        Self { tables, odd }
    }

    /// The switch, as read by way of `how`; its namespace is for the caller to say.
    pub(super) fn switch(&mut self, how: String) -> SwitchFact {
        // Bridges that Open_vSwitch.bridges does not name cannot be: ovsdb-server deletes them.
        let mut bridges: Vec<_> = self.tables.take_all("Bridge").into_iter().map(|row| self.bridge(row)).collect();
        bridges.sort_by(|one, other| one.name.cmp(&other.name));
        for table in ["Port", "Interface"] {
            for row in self.tables.take_all(table) {
                self.odd.note(format_args!("{table} {} belongs to nothing", row.uuid));
            }
        }
        let mut switch = SwitchFact {
            how,
            netns: None,
            version: None,
            external_ids: BTreeMap::new(),
            other_config: BTreeMap::new(),
            managers: Vec::new(),
            bridges,
        };
        let Some(mut root) = self.tables.take_all("Open_vSwitch").pop() else {
            self.odd.note("Open_vSwitch has no row: ovs-vswitchd has never run with this database");
            return switch;
        };
        switch.version = root.text("ovs_version", &mut self.odd);
        switch.external_ids = root.texts("external_ids", &mut self.odd);
        switch.other_config = root.texts("other_config", &mut self.odd);
        let managers = root.references("manager_options", &mut self.odd);
        switch.managers = self.controllers("Manager", managers);
        switch
    }

    /// What did not fit, in words.
    pub(super) fn odd(&self) -> Option<String> {
        (!self.odd.is_empty()).then(|| self.odd.to_string())
    }

    fn bridge(&mut self, mut row: Row) -> OvsBridgeFact {
        let odd = &mut self.odd;
        let controllers = row.references("controller", odd);
        let ports = row.references("ports", odd);
        let datapath_type = row.text("datapath_type", odd).filter(|kind| !kind.is_empty());
        let bridge = OvsBridgeFact {
            name: row.text("name", odd).unwrap_or_default(),
            datapath_type: datapath_type.unwrap_or_else(|| "system".to_owned()),
            datapath_id: row.text("datapath_id", odd),
            fail_mode: row.text("fail_mode", odd),
            external_ids: row.texts("external_ids", odd),
            other_config: row.texts("other_config", odd),
            mirrors: row.references("mirrors", odd).len(),
            exports: ["netflow", "sflow", "ipfix"].iter().map(|kind| row.references(kind, odd).len()).sum(),
            ..OvsBridgeFact::default()
        };
        let mut ports: Vec<_> = self.referred(&row.uuid, "Port", ports).into_iter().map(|row| self.port(row)).collect();
        ports.sort_by(|one, other| one.name.cmp(&other.name));
        OvsBridgeFact { ports, controllers: self.controllers("Controller", controllers), ..bridge }
    }

    fn port(&mut self, mut row: Row) -> OvsPortFact {
        let odd = &mut self.odd;
        let interfaces = row.references("interfaces", odd);
        let qos = row.references("qos", odd).pop();
        let port = OvsPortFact {
            name: row.text("name", odd).unwrap_or_default(),
            tag: row.integer("tag", odd),
            vlan_mode: row.text("vlan_mode", odd),
            trunks: row.integers("trunks", odd),
            protected: row.flag("protected", odd),
            other_config: row.texts("other_config", odd),
            external_ids: row.texts("external_ids", odd),
            qos: qos.is_some(),
            // A row that is not there is of no known type.
            qos_type: qos.and_then(|uuid| self.tables.copy("QoS", &uuid)?.text("type", &mut self.odd)),
            interfaces: Vec::new(),
        };
        let interfaces = self.referred(&row.uuid, "Interface", interfaces);
        OvsPortFact { interfaces: interfaces.into_iter().map(|row| self.interface(row)).collect(), ..port }
    }

    fn interface(&mut self, mut row: Row) -> OvsInterfaceFact {
        let odd = &mut self.odd;
        OvsInterfaceFact {
            name: row.text("name", odd).unwrap_or_default(),
            kind: row.text("type", odd).unwrap_or_default(),
            ifindex: row.integer("ifindex", odd).map(IfIndex),
            ofport: row.integer("ofport", odd),
            mac_in_use: row.text("mac_in_use", odd),
            admin_state: row.text("admin_state", odd),
            link_state: row.text("link_state", odd),
            mtu: row.integer("mtu", odd),
            policing: row.integer("ingress_policing_rate", odd).filter(|rate| *rate > 0),
            error: row.text("error", odd),
            external_ids: row.texts("external_ids", odd),
            options: row.texts("options", odd),
            statistics: row.counters("statistics", odd),
            status: row.texts("status", odd),
        }
    }

    /// Controllers or managers; several bridges may share one.
    fn controllers(&mut self, table: &'static str, uuids: Vec<String>) -> Vec<ControllerFact> {
        let mut controllers = Vec::new();
        for uuid in uuids {
            let Some(mut row) = self.tables.copy(table, &uuid) else {
                self.odd.note(format_args!("{table} {uuid} is referred to and not there"));
                continue;
            };
            controllers.push(ControllerFact {
                target: row.text("target", &mut self.odd).unwrap_or_default(),
                connected: row.flag("is_connected", &mut self.odd),
            });
        }
        controllers.sort();
        controllers
    }

    /// Takes the rows a row refers to.
    fn referred(&mut self, by: &str, table: &'static str, uuids: Vec<String>) -> Vec<Row> {
        let mut rows = Vec::new();
        for uuid in uuids {
            match self.tables.take(table, &uuid) {
                Some(row) => rows.push(row),
                None => {
                    self.odd.note(format_args!("{by} refers to {table} {uuid}, which is not there or in use twice"));
                }
            }
        }
        rows
    }
}
