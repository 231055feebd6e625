//! Open vSwitch by its OVSDB server. Flow: discover.
//!
//! It asks for what this host's bridges, ports and interfaces are configured to do, and for what `ovs-vswitchd` says
//! became of it. What flows do is not in OVSDB, and neither are security groups.

use std::{
    io::{self, ErrorKind},
    path::Path,
    time::Duration,
};

use netdiag_model::fact::{Facts, Gap, SourceKind};

use self::switch::Builder;
use super::{Scope, cause, report};
use crate::ovsdb::{Client, OvsdbError, table::Tables};

/// Rows to facts.
mod switch;

const DATABASE: &str = "Open_vSwitch";

/// What is read, by table (ovs-vswitchd.conf.db(5)).
const WANTED: &[(&str, &[&str])] = &[
    ("Open_vSwitch", &["ovs_version", "external_ids", "other_config", "manager_options"]),
    (
        "Bridge",
        &[
            "name",
            "datapath_type",
            "datapath_id",
            "fail_mode",
            "ports",
            "controller",
            "mirrors",
            "netflow",
            "sflow",
            "ipfix",
            "external_ids",
            "other_config",
        ],
    ),
    ("Port", &["name", "interfaces", "tag", "vlan_mode", "trunks", "protected", "qos", "external_ids", "other_config"]),
    (
        "Interface",
        &[
            "name",
            "type",
            "ifindex",
            "ofport",
            "mac_in_use",
            "admin_state",
            "link_state",
            "mtu",
            "ingress_policing_rate",
            "error",
            "external_ids",
            "options",
            "statistics",
            "status",
        ],
    ),
    ("QoS", &["type"]),
    ("Controller", &["target", "is_connected"]),
    ("Manager", &["target", "is_connected"]),
];

/// Columns that old releases lack because they do not have what the column switches on.
const NEWER: [&str; 1] = ["Port.protected"];

/// Reads the switch of this host.
pub(super) async fn read(scope: &Scope) -> Facts {
    let path = &scope.options.ovsdb_socket;
    let how = format!("unix:{}", path.display());
    // Three requests at most follow each other, and together they must end before the source is cut off.
    let bound = scope.options.timeout * 3 / 10;
    match look(path, bound).await {
        Ok(look) => {
            let mut builder = Builder::new(look.tables);
            let mut switch = builder.switch(how.clone());
            switch.netns = scope.namespaces.first().map(|namespace| namespace.id);
            let gaps = look.missing.into_iter().chain(builder.odd()).map(|why| partial(&how, why)).collect();
            Facts { switches: vec![switch], ..report(SourceKind::Ovsdb, how, gaps) }
        }
        Err(error) => {
            let gap = unread(&how, &error);
            report(SourceKind::Ovsdb, how, vec![gap])
        }
    }
}

/// What the server answered.
struct Look {
    tables: Tables,
    /// What of the wanted columns it does not have, in words.
    missing: Option<String>,
}

async fn look(path: &Path, bound: Duration) -> Result<Look, OvsdbError> {
    let mut client = Client::connect(path, bound).await?;
    let (columns, mut missing) = client.schema(DATABASE).await?.common(WANTED);
    missing.retain(|column| !NEWER.contains(&column.as_str()));
    let tables = client.monitor(DATABASE, &columns).await?;
    let missing = (!missing.is_empty()).then(|| format!("its schema does not have {}", missing.join(", ")));
    Ok(Look { tables, missing })
}

/// The gap of an answer that did not fit in places.
fn partial(how: &str, why: String) -> Gap {
    Gap {
        source: SourceKind::Ovsdb,
        netns: None,
        object: format!("parts of {DATABASE} in {how}"),
        why,
        fix: format!("compare with `ovsdb-client dump {how} {DATABASE}`; the rest of the answer was read"),
        absent: false,
    }
}

/// The gap of a server that could not be read at all.
fn unread(how: &str, error: &OvsdbError) -> Gap {
    let absent = matches!(error, OvsdbError::Connect { source, .. } if source.kind() == ErrorKind::NotFound);
    let why = if absent {
        "there is no such socket: this host has no Open vSwitch, or its ovsdb-server does not run".to_owned()
    } else {
        cause::chain(error)
    };
    Gap { source: SourceKind::Ovsdb, netns: None, object: how.to_owned(), why, fix: fix(how, error), absent }
}

fn fix(how: &str, error: &OvsdbError) -> String {
    match error {
        OvsdbError::Connect { source, .. } => connect_fix(source),
        OvsdbError::Hangs { .. } => {
            format!(
                "see whether `ovsdb-client list-dbs {how}` answers; give it longer with --timeout, or look at its log"
            )
        }
        OvsdbError::Refused { .. } | OvsdbError::Shape { .. } => {
            format!("see whether `ovsdb-client list-dbs {how}` names {DATABASE}; name its socket otherwise")
        }
        OvsdbError::Io { .. } | OvsdbError::Closed { .. } | OvsdbError::Frame { .. } | OvsdbError::Message { .. } => {
            "see whether this is the socket of ovsdb-server, and its log; then try again".to_owned()
        }
    }
}

fn connect_fix(error: &io::Error) -> String {
    let kind = error.kind();
    let fix = if kind == ErrorKind::PermissionDenied {
        "run as root, or in the group that owns the socket"
    } else if kind == ErrorKind::WouldBlock {
        "ovsdb-server takes no connections: look at its log, restart it"
    } else {
        "start Open vSwitch (`systemctl start openvswitch-switch`), or name the socket of its ovsdb-server"
    };
    fix.to_owned()
}

#[cfg(test)]
mod tests;
