//! Security groups: their rules, how often each was hit, which never was, who is in them.

use std::sync::Arc;

use netdiag_model::{
    groups::{RemoteRef, Standing},
    policy::show::service_words,
};

use super::{Cell, Column, Details, Health, Order, Paint, Sheet};
use crate::{
    text::{units, words},
    tui::{
        filter::{Asked, Field},
        look::{GroupRule, Look},
    },
};

pub(super) const COLUMNS: [Column; 9] = [
    Column::new('g', "GROUP", (10, 30), 0),
    Column::new('d', "DIR", (4, 4), 0),
    Column::new('f', "FAMILY", (7, 7), 80),
    Column::new('s', "ALLOWS", (12, 26), 0),
    Column::new('r', "REMOTE", (16, 40), 0),
    Column::number('h', "HITS", 9, 0),
    Column::new('t', "STATE", (9, 22), 80),
    Column::new('n', "INSTANCES", (10, 40), 100),
    Column::new('u', "RULE", (9, 36), 132),
];

/// Groups and rules.
pub(super) struct Policy<'a> {
    pub(super) look: Option<&'a Arc<Look>>,
    pub(super) ascii: bool,
}

impl Policy<'_> {
    fn rules(&self) -> &[GroupRule] {
        self.look.map_or(&[], |look| &look.rules)
    }

    /// Who is in a group, in lines.
    fn members(&self, id: &str) -> Details {
        let group = self.look.and_then(|look| look.groups.get(id));
        let members = group.iter().flat_map(|group| &group.members);
        members
            .map(|(instance, addresses)| {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                ("member".to_owned(), format!("{instance} {}", addresses.join(", ")))
            })
            .collect()
    }
}

/// Where what is loaded and what is asked meet.
const fn standing(standing: Standing) -> (Health, &'static str) {
    match standing {
        Standing::InForce => (Health::Ok, "in force"),
        Standing::Covered => (Health::Ok, "covered by others"),
        Standing::Nobody => (Health::Ok, "allows nobody"),
        Standing::Missing => (Health::Broken, "MISSING"),
        Standing::Unread => (Health::Unknown, "not read"),
        Standing::NotAsked => (Health::Broken, "NOT ASKED"),
        Standing::Unasked => (Health::Unknown, "nobody says"),
    }
}

/// What is known of a group's rule, or of its lack.
fn health(rule: &GroupRule) -> (Health, &'static str) {
    rule.rule.as_ref().map_or((Health::Ok, "no rule"), |rule| standing(rule.standing))
}

/// How often it was hit.
fn hits(rule: &GroupRule) -> Cell {
    match rule.rule.as_ref().and_then(|rule| rule.hits) {
        Some(0) => Cell::new(Paint::Dim, "never"),
        Some(hits) => Cell::plain(units::count(hits)),
        None => Cell::maybe(None::<String>),
    }
}

impl Sheet for Policy<'_> {
    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn len(&self) -> usize {
        self.rules().len()
    }

    fn id(&self, row: usize) -> String {
        let rule = &self.rules()[row];
        let id = rule.rule.as_ref().map_or("", |rule| &rule.id);
        format!("{}/{}/{id}", rule.group, rule.group_id)
    }

    fn cell(&self, row: usize, column: usize) -> Cell {
        let line = &self.rules()[row];
        let rule = line.rule.as_ref().and_then(|shown| shown.rule.as_ref());
        match COLUMNS[column].code {
            'g' => Cell::new(Paint::Strong, &line.group),
            'd' => Cell::maybe(rule.map(|rule| words::way(rule.direction))),
            'f' => Cell::maybe(rule.map(|rule| words::family(rule.ethertype))),
            's' => Cell::maybe(rule.map(|rule| service_words(rule.service))),
            'r' => Cell::maybe(rule.map(|rule| words::remote(&rule.remote))),
            'h' => hits(line),
            't' => {
                let (health, word) = health(line);
                Cell::new(health.paint(), format!("{} {word}", health.glyph(self.ascii)))
            }
            'n' => Cell::plain(match line.instances.as_slice() {
                [first, rest @ ..] if !rest.is_empty() => format!("{first} +{}", rest.len()),
                all => all.join(""),
            }),
            _ => Cell::maybe(line.rule.as_ref().map(|shown| &shown.id)),
        }
    }

    fn order(&self, row: usize, column: usize) -> Order {
        match COLUMNS[column].code {
            'h' => Order::maybe(self.rules()[row].rule.as_ref().and_then(|rule| rule.hits)),
            't' => Order::Number(u128::from(self.health(row) as u8)),
            _ => Order::Text(self.cell(row, column).text),
        }
    }

    fn called(&self, row: usize) -> String {
        let line = &self.rules()[row];
        let rule = line.rule.as_ref().and_then(|shown| shown.rule.as_ref());
        let words = rule.map(|rule| format!(": {}", words::rule(rule))).unwrap_or_default();
        format!("{}{words}", line.group)
    }

    fn health(&self, row: usize) -> Health {
        health(&self.rules()[row]).0
    }

    fn fields(&self, row: usize, asked: &mut Asked<'_>) {
        let line = &self.rules()[row];
        asked.say(Field::Group, &line.group);
        asked.say(Field::Group, &line.group_id);
        for instance in &line.instances {
            asked.say(Field::Instance, instance);
        }
        asked.say(Field::Verdict, health(line).1);
        let Some(shown) = &line.rule else { return };
        asked.say(Field::Reason, &shown.id);
        if shown.hits == Some(0) {
            asked.say(Field::Verdict, "never");
        }
        let Some(rule) = &shown.rule else { return };
        asked.say(Field::Other, words::way(rule.direction));
        asked.say(Field::Other, words::family(rule.ethertype));
        let service = || service_words(rule.service);
        asked.made(Field::Other, service);
        asked.made(Field::Port, || service().rsplit_once(' ').map(|(_, port)| port.to_owned()).unwrap_or_default());
        let remote = match &rule.remote {
            RemoteRef::Group(..) | RemoteRef::AddressGroup(..) => Field::Group,
            RemoteRef::Any | RemoteRef::Prefix(_) => Field::Address,
        };
        asked.made(remote, || words::remote(&rule.remote));
        asked.say(Field::Other, &rule.description);
    }

    fn details(&self, row: usize) -> Details {
        let line = &self.rules()[row];
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let mut lines = vec![pair("group", line.group.clone()), pair("group id", line.group_id.clone())];
        if let Some(shown) = &line.rule {
            lines.push(pair("rule", shown.id.clone()));
            lines.push(pair("state", health(line).1.to_owned()));
            let hits = shown.hits.map_or_else(|| "not loaded".to_owned(), |hits| hits.to_string());
            lines.push(pair("hits", if shown.hits == Some(0) { "never".to_owned() } else { hits }));
            let loaded: Vec<&str> = shown.loaded.iter().map(|direction| words::way(*direction)).collect();
            lines.push(pair("loaded", loaded.join(", ")));
            if let Some(rule) = &shown.rule {
                lines.push(pair("allows", words::rule(rule)));
                lines.push(pair("description", rule.description.clone()));
                if let RemoteRef::Group(group, number) = &rule.remote {
                    lines.push(pair(
                        "",
                        format!(
                            "{} of remote group {}, those of this host:",
                            units::things(*number, "address"),
                            group.called()
                        ),
                    ));
                    lines.extend(self.members(&group.id));
                }
            }
        }
        lines.push(pair("", "members of the group on this host:".to_owned()));
        lines.extend(self.members(&line.group_id));
        lines.push(pair("", "it holds at the ports of:".to_owned()));
        lines.extend(line.instances.iter().map(|instance| pair("instance", instance.clone())));
        lines
    }

    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[("group", 0), ("state", 6)]
    }
}
