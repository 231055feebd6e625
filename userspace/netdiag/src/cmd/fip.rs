//! `netdiag fip`: gather, choose, render.

use std::net::Ipv4Addr;

use netdiag_model::{
    floating::show::{self, Listed, Standing, Wanted},
    inventory::Inventory,
    resolve::resolve,
};
use netdiag_views::{json, text, wide, yaml};

use super::{gather, not_found, print};
use crate::{
    cli::{ListOutput, Look, Source},
    config,
    exit::Exit,
};

/// Lists the floating IPs of this host and the ways they take.
pub(crate) async fn run(asked: Option<&str>, source: &Source, look: &Look, output: ListOutput) -> anyhow::Result<Exit> {
    let snapshot = gather(source).await?;
    let inventory = Inventory::build(&snapshot);
    let style = config::style(look);
    let listed = match choose(&inventory, asked) {
        Ok(listed) => listed,
        Err(unresolved) => return not_found(&unresolved, &snapshot, style.ascii),
    };
    print(|out| match output {
        ListOutput::Table => text::floating::render(&listed, &style, out),
        ListOutput::Wide => wide::floating(&listed, &style, out),
        ListOutput::Json => json::render(&listed, out),
        ListOutput::Yaml => yaml::render(&listed, out),
    })?;
    Ok(exit(&listed))
}

/// All floating IPs, the one of an address, or those of an instance.
fn choose(inventory: &Inventory<'_>, asked: Option<&str>) -> Result<Listed, netdiag_model::resolve::Unresolved> {
    let Some(asked) = asked else { return Ok(show::list(inventory, None)) };
    if let Ok(address) = asked.parse::<Ipv4Addr>() {
        let listed = show::list(inventory, Some(Wanted::Address(address)));
        if !listed.rows.is_empty() {
            return Ok(listed);
        }
    }
    let place = resolve(inventory, asked)?;
    Ok(show::list(inventory, Some(Wanted::Instance(&inventory.instances[place]))))
}

/// A list is answered whatever is in it; of what was asked for by name, the worst counts.
fn exit(listed: &Listed) -> Exit {
    let any = |standing: Standing| listed.rows.iter().any(|row| row.standing == standing);
    if listed.asked.is_some() && (any(Standing::Broken) || any(Standing::Held)) {
        Exit::Broken
    } else if any(Standing::Unknown) || !listed.gaps.is_empty() {
        Exit::Inconclusive
    } else {
        Exit::Works
    }
}
