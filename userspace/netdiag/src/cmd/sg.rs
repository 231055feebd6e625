//! `netdiag sg show` and `netdiag sg explain`: gather, ask, render.

use netdiag_model::{
    event::Decision,
    fact::enforcement::has_ports,
    groups::{self, Asking, Unclear},
    inventory::Inventory,
    resolve::resolve,
};
use netdiag_views::{json, text, wide, yaml};

use super::{gather, gather_with_flows, not_found, print};
use crate::{
    cli::{ListOutput, Look, ReportOutput, SgExplain, Source},
    config,
    exit::{Bad, Exit},
};

/// Shows what is enforced at the ports of an instance.
pub(crate) async fn show(instance: &str, source: &Source, look: &Look, output: ListOutput) -> anyhow::Result<Exit> {
    let snapshot = gather(source).await?;
    let inventory = Inventory::build(&snapshot);
    let style = config::style(look);
    let place = match resolve(&inventory, instance) {
        Ok(place) => place,
        Err(unresolved) => return not_found(&unresolved, &snapshot, style.ascii),
    };
    let shown = groups::show(&inventory, &inventory.instances[place]);
    print(|out| match output {
        ListOutput::Table => text::groups::render(&shown, &style, out),
        ListOutput::Wide => wide::groups(&shown, &style, out),
        ListOutput::Json => json::render(&shown, out),
        ListOutput::Yaml => yaml::render(&shown, out),
    })?;
    Ok(shown.verdict.into())
}

/// Says what would become of a packet.
pub(crate) async fn explain(asked: &SgExplain) -> anyhow::Result<Exit> {
    let protocol = config::protocol(&asked.proto)?;
    let service = service(asked, protocol)?;
    let source =
        Source { from: asked.snapshot.clone(), sockets: asked.sockets.clone(), enforced: asked.enforced.clone() };
    let snapshot = gather_with_flows(&source).await?;
    let inventory = Inventory::build(&snapshot);
    let style = config::style(&asked.look);
    let place = match resolve(&inventory, &asked.instance) {
        Ok(place) => place,
        Err(unresolved) => return not_found(&unresolved, &snapshot, style.ascii),
    };
    let asking = Asking { from: &asked.from, to: &asked.to, protocol, service };
    let explained = match groups::explain(&inventory, &inventory.instances[place], &asking) {
        Ok(explained) => explained,
        Err(Unclear::Unresolved(unresolved)) => return not_found(&unresolved, &snapshot, style.ascii),
        Err(Unclear::Ends(why)) => return Err(Bad::usage(why)),
    };
    print(|out| match asked.output {
        ReportOutput::Table => text::explain::render(&explained, &style, out),
        ReportOutput::Json => json::render(&explained, out),
        ReportOutput::Yaml => yaml::render(&explained, out),
    })?;
    Ok(match explained.loaded.map(|answer| answer.decision) {
        Some(Decision::Allow) => Exit::Works,
        Some(Decision::Deny) => Exit::Broken,
        None => Exit::Inconclusive,
    })
}

/// The port, or ICMP type and code, that are asked for; a question without what its protocol needs is none.
fn service(asked: &SgExplain, protocol: u8) -> anyhow::Result<Option<u16>> {
    let icmp = matches!(protocol, 1 | 58);
    let name = &asked.proto;
    match (asked.port, asked.icmp_type) {
        (None, _) if has_ports(protocol) => Err(Bad::usage(format!("{name} has ports: say which with --port"))),
        (Some(_), _) if !has_ports(protocol) => Err(Bad::usage(format!("{name} has no ports"))),
        (_, Some(_)) if !icmp => Err(Bad::usage(format!("{name} has no ICMP type: say --proto icmp"))),
        (port, None) => Ok(port),
        (_, Some(kind)) => Ok(Some(u16::from_be_bytes([kind, asked.icmp_code.unwrap_or_default()]))),
    }
}
