//! Rows by table, as the answer of a monitor holds them, and the typed reading of their cells. Flow: discover.
//!
//! A cell that does not hold what it should is skipped and noted in `Oddities`; the rest of its row is kept.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::value::{Atom, Datum};
use crate::oddities::Oddities;

/// Rows by UUID.
type Rows = BTreeMap<String, Map<String, Value>>;

/// Rows by table and UUID.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    rows: BTreeMap<String, Rows>,
    /// What of the answer does not fit.
    pub(crate) odd: Oddities,
}

impl Tables {
    /// None where the answer is no object of tables.
    pub(crate) fn parse(answer: Value) -> Option<Self> {
        let Value::Object(tables) = answer else { return None };
        let mut parsed = Self::default();
        for (table, updates) in tables {
            let Value::Object(updates) = updates else {
                parsed.odd.note(format_args!("table {table}: expected rows"));
                continue;
            };
            let rows = parsed.rows.entry(table.clone()).or_default();
            for (uuid, update) in updates {
                match contents(update) {
                    Some(row) => drop(rows.insert(uuid, row)),
                    None => parsed.odd.note(format_args!("{table} {uuid}: expected a row")),
                }
            }
        }
        Some(parsed)
    }

    /// Takes a row out; none where it is not there, or was taken before.
    pub(crate) fn take(&mut self, table: &'static str, uuid: &str) -> Option<Row> {
        self.rows.get_mut(table)?.remove(uuid).map(|cells| Row { table, uuid: uuid.to_owned(), cells })
    }

    /// Copies a row that several others may refer to; none where it is not there.
    pub(crate) fn copy(&self, table: &'static str, uuid: &str) -> Option<Row> {
        self.rows.get(table)?.get(uuid).map(|cells| Row { table, uuid: uuid.to_owned(), cells: cells.clone() })
    }

    /// Takes all rows left of a table out, in the order of their UUIDs.
    pub(crate) fn take_all(&mut self, table: &'static str) -> Vec<Row> {
        let rows = self.rows.remove(table).unwrap_or_default();
        rows.into_iter().map(|(uuid, cells)| Row { table, uuid, cells }).collect()
    }
}

/// The cells of a first row: `initial` of `monitor_cond`, `new` of `monitor`.
fn contents(update: Value) -> Option<Map<String, Value>> {
    let Value::Object(mut update) = update else { return None };
    let row = update.remove("initial").or_else(|| update.remove("new"))?;
    if let Value::Object(row) = row { Some(row) } else { None }
}

/// A row. Its cells are taken out one by one; one that is missing holds the default of its column.
#[derive(Debug)]
pub(crate) struct Row {
    table: &'static str,
    /// Its `_uuid`.
    pub(crate) uuid: String,
    cells: Map<String, Value>,
}

impl Row {
    /// A text, if there is one.
    pub(crate) fn text(&mut self, column: &str, odd: &mut Oddities) -> Option<String> {
        self.optional(column, ("a text", Atom::text), odd)
    }

    /// A truth value; false if there is none.
    pub(crate) fn flag(&mut self, column: &str, odd: &mut Oddities) -> bool {
        self.optional(column, ("a truth value", Atom::truth), odd).unwrap_or(false)
    }

    /// A whole number, if there is one.
    pub(crate) fn integer<T: TryFrom<i64>>(&mut self, column: &str, odd: &mut Oddities) -> Option<T> {
        self.optional(column, ("a whole number in range", Atom::integer), odd)
    }

    /// A set of whole numbers.
    pub(crate) fn integers<T: TryFrom<i64>>(&mut self, column: &str, odd: &mut Oddities) -> Vec<T> {
        self.set(column, ("a set of whole numbers in range", Atom::integer), odd)
    }

    /// A set of references to other rows.
    pub(crate) fn references(&mut self, column: &str, odd: &mut Oddities) -> Vec<String> {
        self.set(column, ("a set of references", Atom::reference), odd)
    }

    /// A map from text to text.
    pub(crate) fn texts(&mut self, column: &str, odd: &mut Oddities) -> BTreeMap<String, String> {
        self.map(column, ("a map of texts", Atom::text), odd)
    }

    /// A map from text to a count.
    pub(crate) fn counters(&mut self, column: &str, odd: &mut Oddities) -> BTreeMap<String, u64> {
        self.map(column, ("a map of counters", Atom::integer), odd)
    }

    fn optional<T>(&mut self, column: &str, kind: Kind<T>, odd: &mut Oddities) -> Option<T> {
        let cell = self.cell(column, kind.0, odd, |datum| match datum {
            Datum::Set(atoms) if atoms.is_empty() => Some(None),
            Datum::Set(atoms) => <[Atom; 1]>::try_from(atoms).ok().and_then(|[atom]| kind.1(atom)).map(Some),
            Datum::Map(_) => None,
        });
        cell.flatten()
    }

    fn set<T>(&mut self, column: &str, kind: Kind<T>, odd: &mut Oddities) -> Vec<T> {
        let cell = self.cell(column, kind.0, odd, |datum| match datum {
            Datum::Set(atoms) => atoms.into_iter().map(kind.1).collect(),
            Datum::Map(_) => None,
        });
        cell.unwrap_or_default()
    }

    fn map<T>(&mut self, column: &str, kind: Kind<T>, odd: &mut Oddities) -> BTreeMap<String, T> {
        let cell = self.cell(column, kind.0, odd, |datum| match datum {
            Datum::Map(pairs) => pairs.into_iter().map(|(key, value)| Some((key.text()?, kind.1(value)?))).collect(),
            Datum::Set(_) => None,
        });
        cell.unwrap_or_default()
    }

    fn cell<T>(
        &mut self,
        column: &str,
        expected: &str,
        odd: &mut Oddities,
        read: impl FnOnce(Datum) -> Option<T>,
    ) -> Option<T> {
        let value = self.cells.remove(column)?;
        let cell = Datum::parse(value).and_then(read);
        if cell.is_none() {
            odd.note(format_args!("{} {} {column}: expected {expected}", self.table, self.uuid));
        }
        cell
    }
}

/// What a cell should hold, in words, and how an atom of it is read.
type Kind<T> = (&'static str, fn(Atom) -> Option<T>);

#[cfg(test)]
mod tests {
    use super::Tables;
    use crate::oddities::Oddities;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn first_rows_of_both_monitors_are_read() {
        for key in ["initial", "new"] {
            let mut tables = Tables::parse(json!({ "Port": { "u": { key: { "name": "tap0" } } } })).unwrap();
            let name = tables.take("Port", "u").unwrap().text("name", &mut Oddities::default());
            assert_eq!(name.as_deref(), Some("tap0"), "{key}");
        }
    }

    #[test]
    fn a_row_is_taken_only_once() {
        let mut tables = Tables::parse(json!({ "Port": { "u": { "initial": {} } } })).unwrap();
        assert!(tables.take("Port", "u").is_some());
        assert!(tables.take("Port", "u").is_none());
        assert!(tables.take("Bridge", "u").is_none());
    }

    #[test]
    fn a_missing_cell_is_the_default_and_nothing_odd() {
        let mut tables = Tables::parse(json!({ "Port": { "u": { "initial": {} } } })).unwrap();
        let (mut row, mut odd) = (tables.take("Port", "u").unwrap(), Oddities::default());
        assert_eq!(row.text("name", &mut odd), None);
        assert_eq!(row.integer::<u16>("tag", &mut odd), None);
        assert!(!row.flag("fake_bridge", &mut odd));
        assert!(row.references("interfaces", &mut odd).is_empty());
        assert!(odd.is_empty());
    }

    #[test]
    fn a_cell_of_the_wrong_kind_is_skipped_noted_and_the_row_kept() {
        let cells = json!({
            "name": ["map", []], "tag": 65_536, "trunks": ["set", [1, "two"]], "fake_bridge": "yes",
            "interfaces": ["set", ["u"]], "external_ids": ["map", [["k", 1]]], "statistics": ["map", [["rx", -1]]],
            "vlan_mode": ["set", ["trunk", "access"]], "status": ["map", [["good", "cell"]]],
        });
        let mut tables = Tables::parse(json!({ "Port": { "u": { "initial": cells } } })).unwrap();
        let (mut row, mut odd) = (tables.take("Port", "u").unwrap(), Oddities::default());
        assert_eq!(row.text("name", &mut odd), None);
        assert_eq!(row.integer::<u16>("tag", &mut odd), None);
        assert!(row.integers::<u16>("trunks", &mut odd).is_empty());
        assert!(!row.flag("fake_bridge", &mut odd));
        assert!(row.references("interfaces", &mut odd).is_empty());
        assert!(row.texts("external_ids", &mut odd).is_empty());
        assert!(row.counters("statistics", &mut odd).is_empty());
        assert_eq!(row.text("vlan_mode", &mut odd), None);
        assert_eq!(row.texts("status", &mut odd), BTreeMap::from([("good".into(), "cell".into())]));
        assert_eq!(
            odd.to_string(),
            "Port u name: expected a text; Port u tag: expected a whole number in range; \
             Port u trunks: expected a set of whole numbers in range; and 5 more"
        );
    }

    #[test]
    fn rows_and_tables_of_the_wrong_shape_are_noted_and_the_others_kept() {
        let answer = json!({ "Port": { "a": 1, "b": { "delete": null }, "c": { "initial": {} } }, "Bridge": [] });
        let mut tables = Tables::parse(answer).unwrap();
        assert_eq!(tables.take_all("Port").len(), 1);
        assert_eq!(
            tables.odd.to_string(),
            "Port a: expected a row; Port b: expected a row; table Bridge: expected rows"
        );
    }

    #[test]
    fn an_answer_that_is_no_object_is_refused() {
        assert!(Tables::parse(json!([])).is_none());
    }
}
