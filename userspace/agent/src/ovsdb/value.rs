//! The encodings of one column (RFC 7047 section 5.1). Flow: discover.
//!
//! One column changes its form from row to row: a set of one element is a bare atom, any other is `["set", […]]`.
//! Here both are a `Datum::Set`. What a column should hold is for the caller to know.

use serde_json::Value;

/// One value of a set, or one side of a pair of a map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Atom {
    /// A whole number.
    Integer(i64),
    /// A real number, or a whole one too large for an `i64`.
    Real(f64),
    /// A truth value.
    Boolean(bool),
    /// A text; hostile.
    String(String),
    /// A reference to a row.
    Uuid(String),
}

/// What a column of a row holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Datum {
    /// Any number of values, often one or none.
    Set(Vec<Atom>),
    /// Pairs.
    Map(Vec<(Atom, Atom)>),
}

impl Atom {
    /// None where the JSON is no atom.
    fn parse(value: Value) -> Option<Self> {
        match value {
            Value::Bool(truth) => Some(Self::Boolean(truth)),
            Value::String(text) => Some(Self::String(text)),
            Value::Number(number) => number.as_i64().map(Self::Integer).or_else(|| number.as_f64().map(Self::Real)),
            Value::Array(pair) => match <[Value; 2]>::try_from(pair) {
                Ok([Value::String(tag), Value::String(uuid)]) if tag == "uuid" => Some(Self::Uuid(uuid)),
                _ => None,
            },
            Value::Null | Value::Object(_) => None,
        }
    }
}

/// What an atom holds; none where it holds something else.
impl Atom {
    /// A text.
    pub(super) fn text(self) -> Option<String> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// A truth value.
    pub(super) fn truth(self) -> Option<bool> {
        if let Self::Boolean(truth) = self { Some(truth) } else { None }
    }

    /// A whole number that fits.
    pub(super) fn integer<T: TryFrom<i64>>(self) -> Option<T> {
        if let Self::Integer(number) = self { T::try_from(number).ok() } else { None }
    }

    /// The UUID of a row.
    pub(super) fn reference(self) -> Option<String> {
        if let Self::Uuid(uuid) = self { Some(uuid) } else { None }
    }
}

impl Datum {
    /// None where the JSON is in none of the encodings.
    pub(crate) fn parse(value: Value) -> Option<Self> {
        let Value::Array(mut tagged) = value else { return Atom::parse(value).map(|atom| Self::Set(vec![atom])) };
        match tagged.as_mut_slice() {
            [Value::String(tag), Value::Array(elements)] if tag == "set" => {
                elements.drain(..).map(Atom::parse).collect::<Option<_>>().map(Self::Set)
            }
            [Value::String(tag), Value::Array(pairs)] if tag == "map" => {
                pairs.drain(..).map(pair).collect::<Option<_>>().map(Self::Map)
            }
            _ => Atom::parse(Value::Array(tagged)).map(|atom| Self::Set(vec![atom])),
        }
    }
}

fn pair(value: Value) -> Option<(Atom, Atom)> {
    let Value::Array(sides) = value else { return None };
    let [key, value] = <[Value; 2]>::try_from(sides).ok()?;
    Some((Atom::parse(key)?, Atom::parse(value)?))
}

#[cfg(test)]
mod tests {
    use super::{Atom, Datum};
    use serde_json::json;

    #[test]
    fn a_set_of_one_is_the_same_bare_and_tagged() {
        let one = Datum::Set(vec![Atom::Integer(7)]);
        assert_eq!(Datum::parse(json!(7)), Some(one.clone()));
        assert_eq!(Datum::parse(json!(["set", [7]])), Some(one));
    }

    #[test]
    fn every_kind_of_atom_is_read() {
        let atoms =
            Datum::parse(json!(["set", [-1, 1.5, true, "text", ["uuid", "u"], 18_446_744_073_709_551_615_u64]]));
        let expected = [
            Atom::Integer(-1),
            Atom::Real(1.5),
            Atom::Boolean(true),
            Atom::String("text".into()),
            Atom::Uuid("u".into()),
            Atom::Real(18_446_744_073_709_551_615.0),
        ];
        assert_eq!(atoms, Some(Datum::Set(expected.into())));
    }

    #[test]
    fn a_bare_reference_is_a_set_of_one_reference() {
        assert_eq!(Datum::parse(json!(["uuid", "u"])), Some(Datum::Set(vec![Atom::Uuid("u".into())])));
    }

    #[test]
    fn a_map_keeps_its_pairs() {
        let map = Datum::parse(json!(["map", [["k", "v"], [1, ["uuid", "u"]]]]));
        let expected =
            [(Atom::String("k".into()), Atom::String("v".into())), (Atom::Integer(1), Atom::Uuid("u".into()))];
        assert_eq!(map, Some(Datum::Map(expected.into())));
    }

    #[test]
    fn what_is_in_no_encoding_is_refused() {
        for odd in [
            json!(null),
            json!({}),
            json!([]),
            json!(["set"]),
            json!(["set", 1]),
            json!(["set", [null]]),
            json!(["set", [["set", []]]]),
            json!(["map", [["k"]]]),
            json!(["map", [["k", "v", "w"]]]),
            json!(["map", ["k", "v"]]),
            json!(["uuid", 1]),
            json!(["uuid", "u", "v"]),
            json!(["other", []]),
        ] {
            assert_eq!(Datum::parse(odd.clone()), None, "{odd}");
        }
    }
}
