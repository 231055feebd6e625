//! What the host can and cannot do: check, result, consequence, fix.

use std::sync::Arc;

use netdiag_model::doctor::{Check, Status};

use super::{Cell, Column, Details, Health, Order, Paint, Sheet};
use crate::tui::{
    filter::{Asked, Field},
    look::Look,
};

pub(super) const COLUMNS: [Column; 5] = [
    Column::new('s', "STATE", (9, 9), 0),
    Column::new('n', "CHECK", (14, 24), 0),
    Column::new('r', "RESULT", (24, 60), 0),
    Column::new('q', "CONSEQUENCE", (24, 70), 90),
    Column::new('f', "FIX", (24, 80), 132),
];

/// The checks.
pub(super) struct Doctor<'a> {
    pub(super) look: Option<&'a Arc<Look>>,
    pub(super) ascii: bool,
}

impl Doctor<'_> {
    fn checks(&self) -> &[Check] {
        self.look.map_or(&[], |look| &look.doctor.checks)
    }
}

/// How a check came out.
const fn health(status: Status) -> Health {
    match status {
        Status::Ok => Health::Ok,
        Status::Warning => Health::Warning,
        Status::Fail => Health::Broken,
        Status::Unknown => Health::Unknown,
    }
}

impl Sheet for Doctor<'_> {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn len(&self) -> usize {
        self.checks().len()
    }

    fn id(&self, row: usize) -> String {
        self.checks()[row].name.clone()
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        let check = &self.checks()[row];
        match column {
            0 => Cell::health(health(check.status), self.ascii),
            1 => Cell::new(Paint::Strong, &check.name),
            2 => Cell::plain(&check.result),
            3 => Cell::plain(&check.consequence),
            _ => Cell::plain(&check.fix),
        }
    }

    fn order(&self, row: usize, column: usize) -> Order {
        match column {
            0 => Order::Number(self.health(row) as u128),
            _ => Order::Text(self.cell(row, column).text),
        }
    }

    fn called(&self, row: usize) -> String {
        self.checks()[row].name.clone()
    }

    fn health(&self, row: usize) -> Health {
        health(self.checks()[row].status)
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        let check = &self.checks()[row];
        asked.say(Field::Verdict, check.status.name());
        for text in [&check.name, &check.result, &check.consequence, &check.fix] {
            asked.say(Field::Other, text);
        }
    }

    fn details(&self, row: usize) -> Details {
        let check = &self.checks()[row];
        let required = if check.required { "yes: without it nothing can be traced" } else { "no" };
        vec![
            ("check".to_owned(), check.name.clone()),
            ("state".to_owned(), check.status.name().to_owned()),
            ("result".to_owned(), check.result.clone()),
            ("consequence".to_owned(), check.consequence.clone()),
            ("fix".to_owned(), check.fix.clone()),
            ("required".to_owned(), required.to_owned()),
        ]
    }
}
