//! The agent: state, policy, maps, hooks, lag, losses, cost.

use std::sync::Arc;

use super::{Cell, Column, Health, Order, Paint, Sheet};
use crate::tui::{
    filter::Field,
    look::{Fact, Look},
};

const COLUMNS: [Column; 4] = [
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
        let facts = self.facts();
        let fact = &facts[row];
        // Several lines may have one name: mistakes, files.
        let before = facts[..row].iter().filter(|other| other.part == fact.part && other.name == fact.name).count();
        format!("{}/{}/{before}", fact.part, fact.name)
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

    fn health(&self, row: usize) -> Health {
        self.facts()[row].health
    }

    fn fields(&self, row: usize, say: &mut dyn FnMut(Field, &str)) {
        let fact = &self.facts()[row];
        say(Field::Other, fact.part);
        say(Field::Other, &fact.name);
        say(Field::Other, &fact.value);
        say(Field::Verdict, fact.health.word());
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("part", 0)]
    }
}
