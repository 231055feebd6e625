//! `netdiag flows`: gather, choose, render.

use netdiag_model::{
    groups::{self, FlowFilter, FlowOrder, Known},
    inventory::Inventory,
    policy::types::Direction,
    resolve::resolve,
};
use netdiag_views::{json, text, wide, yaml};

use super::{gather_with_flows, not_found, print};
use crate::{
    cli::{FlowSort, Flows, ListOutput, Way},
    config,
    exit::Exit,
};

/// Lists the flows that are tracked.
pub(crate) async fn run(asked: &Flows) -> anyhow::Result<Exit> {
    let filter = filter(asked)?;
    let snapshot = gather_with_flows(&asked.source).await?;
    let inventory = Inventory::build(&snapshot);
    let style = config::style(&asked.look);
    let instance = match asked.instance.as_deref().map(|query| resolve(&inventory, query)).transpose() {
        Ok(place) => place.map(|place| &inventory.instances[place]),
        Err(unresolved) => return not_found(&unresolved, &snapshot, style.ascii),
    };
    let flows = groups::flows(&inventory, instance, &filter, order(asked.sort));
    print(|out| match asked.output {
        ListOutput::Table => text::flows::render(&flows, &style, out),
        ListOutput::Wide => wide::flows(&flows, &style, out),
        ListOutput::Json => json::render(&flows, out),
        ListOutput::Yaml => yaml::render(&flows, out),
    })?;
    Ok(match flows.known {
        Known::Read | Known::NotEnforced => Exit::Works,
        Known::Unread => Exit::Inconclusive,
    })
}

fn filter(asked: &Flows) -> anyhow::Result<FlowFilter> {
    Ok(FlowFilter {
        address: asked.ip.as_deref().map(config::prefix).transpose()?,
        port: asked.port,
        protocol: asked.proto.as_deref().map(config::protocol).transpose()?,
        direction: asked.direction.map(|way| match way {
            Way::In => Direction::Ingress,
            Way::Out => Direction::Egress,
        }),
        state: asked.state.clone(),
        rule: asked.rule.clone(),
    })
}

const fn order(sort: FlowSort) -> FlowOrder {
    match sort {
        FlowSort::Address => FlowOrder::Address,
        FlowSort::Idle => FlowOrder::Idle,
        FlowSort::Age => FlowOrder::Age,
    }
}
