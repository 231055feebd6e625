//! The agent: state, policy, maps, hooks, lag, losses, cost.

use std::sync::Arc;

use super::{Cell, Column, Details, Health, Order, Paint, Sheet};
use crate::tui::{
    filter::{Asked, Field},
    look::{Fact, Look},
};

pub(super) const COLUMNS: [Column; 4] = [
    Column::new('p', "PART", (7, 9), 0),
    Column::new('s', "STATE", (9, 9), 0),
    Column::new('n', "WHAT", (14, 36), 0),
    Column::new('v', "VALUE", (20, 200), 0),
];

/// What the agent says and does.
pub(super) struct Agent<'a> {
    pub(super) look: Option<&'a Arc<Look>>,
    pub(super) ascii: bool,
}

impl Agent<'_> {
    fn facts(&self) -> &[Fact] {
        self.look.map_or(&[], |look| &look.agent)
    }
}

impl Sheet for Agent<'_> {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn len(&self) -> usize {
        self.facts().len()
    }

    fn id(&self, row: usize) -> String {
        let fact = &self.facts()[row];
        format!("{}/{}/{}", fact.part, fact.name, fact.before)
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        let fact = &self.facts()[row];
        match column {
            0 => Cell::new(Paint::Dim, fact.part),
            1 => Cell::health(fact.health, self.ascii),
            2 => Cell::new(Paint::Strong, &fact.name),
            _ => Cell::plain(&fact.value),
        }
    }

    fn order(&self, row: usize, column: usize) -> Order {
        let fact = &self.facts()[row];
        match column {
            0 => Order::Text(fact.part.to_owned()),
            1 => Order::Number(fact.health as u128),
            2 => Order::Text(fact.name.clone()),
            _ => Order::Text(fact.value.clone()),
        }
    }

    fn called(&self, row: usize) -> String {
        let fact = &self.facts()[row];
        format!("{} {}", fact.part, fact.name)
    }

    fn details(&self, row: usize) -> Details {
        let fact = &self.facts()[row];
        let lines = [("state", fact.health.word()), ("part", fact.part), ("what", &fact.name), ("value", &fact.value)];
        lines.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    fn health(&self, row: usize) -> Health {
        self.facts()[row].health
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        let fact = &self.facts()[row];
        asked.say(Field::Other, fact.part);
        asked.say(Field::Other, &fact.name);
        asked.say(Field::Other, &fact.value);
        asked.say(Field::Verdict, fact.health.word());
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("part", 0)]
    }
}
