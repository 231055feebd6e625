//! The JSON schemas of the published shapes, for `netdiag schema`.

use std::io::{self, Write};

use schemars::{Schema, generate::SchemaSettings};

use crate::{
    json,
    json_schema::{
        DoctorDocument, DropsLine, EventDocument, ExplainDocument, FloatingIpsDocument, FlowsDocument, GroupsDocument,
        ListDocument, LiveDocument, LiveLine, StatusDocument, TraceDocument, WatchLine,
    },
};

/// Which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of `netdiag trace -o json`.
    Trace,
    /// Of `netdiag list -o json`.
    List,
    /// Of `netdiag doctor -o json`.
    Doctor,
    /// Of `netdiag sg show -o json`.
    Sg,
    /// Of `netdiag sg explain -o json`.
    SgExplain,
    /// Of `netdiag fip -o json`.
    Fip,
    /// Of `netdiag flows -o json`.
    Flows,
    /// Of one line of `netdiag events -o json`.
    Events,
    /// Of `netdiag agent status -o json`.
    AgentStatus,
    /// Of `netdiag trace --live -o json`.
    Live,
    /// Of one line of `netdiag trace --live -o jsonl`.
    LiveLine,
    /// Of one line of `netdiag drops -o json`.
    Drops,
    /// Of one line of `netdiag watch -o jsonl`.
    Watch,
}

impl Kind {
    /// Every shape there is.
    pub const ALL: [Self; 13] = [
        Self::Trace,
        Self::List,
        Self::Doctor,
        Self::Sg,
        Self::SgExplain,
        Self::Fip,
        Self::Flows,
        Self::Events,
        Self::AgentStatus,
        Self::Live,
        Self::LiveLine,
        Self::Drops,
        Self::Watch,
    ];

    /// The command whose answer has this shape.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::List => "list",
            Self::Doctor => "doctor",
            Self::Sg => "sg",
            Self::SgExplain => "sg-explain",
            Self::Fip => "fip",
            Self::Flows => "flows",
            Self::Events => "events",
            Self::AgentStatus => "agent-status",
            Self::Live => "live",
            Self::LiveLine => "live-line",
            Self::Drops => "drops",
            Self::Watch => "watch",
        }
    }
}

/// Writes a schema (JSON Schema, draft 2020-12).
pub fn render(kind: Kind, out: &mut impl Write) -> io::Result<()> {
    json::write(&schema(kind), out)
}

/// The schema of a shape, of what is written rather than of what would be accepted.
fn schema(kind: Kind) -> Schema {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    match kind {
        Kind::Trace => generator.into_root_schema_for::<TraceDocument>(),
        Kind::List => generator.into_root_schema_for::<ListDocument>(),
        Kind::Doctor => generator.into_root_schema_for::<DoctorDocument>(),
        Kind::Sg => generator.into_root_schema_for::<GroupsDocument>(),
        Kind::SgExplain => generator.into_root_schema_for::<ExplainDocument>(),
        Kind::Fip => generator.into_root_schema_for::<FloatingIpsDocument>(),
        Kind::Flows => generator.into_root_schema_for::<FlowsDocument>(),
        Kind::Events => generator.into_root_schema_for::<EventDocument>(),
        Kind::AgentStatus => generator.into_root_schema_for::<StatusDocument>(),
        Kind::Live => generator.into_root_schema_for::<LiveDocument>(),
        Kind::LiveLine => generator.into_root_schema_for::<LiveLine>(),
        Kind::Drops => generator.into_root_schema_for::<DropsLine>(),
        Kind::Watch => generator.into_root_schema_for::<WatchLine>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Kind, schema};
    use crate::{
        fixtures::{self, enforced, live::EPOCH},
        json,
        json_schema::{DropDocument, DropsLine, LiveDocument, LiveLine, PacketDocument, Published},
    };

    /// What [`json::render`] writes, read back.
    fn written(model: &impl Published) -> Value {
        let mut out = Vec::new();
        json::render(model, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    /// The schema a reference leads to.
    fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
        schema.get("$ref").and_then(Value::as_str).map_or(schema, |path| root.pointer(&path[1..]).unwrap())
    }

    /// Holds a value against a schema: types, required and unknown properties, items, alternatives, enumerations.
    fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
        let schema = resolve(root, schema);
        if let Some(choices) = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array) {
            let errors: Vec<String> = choices.iter().filter_map(|choice| check(root, choice, value).err()).collect();
            return if errors.len() < choices.len() { Ok(()) } else { Err(errors.join("; ")) };
        }
        if schema.get("const").is_some_and(|constant| constant != value) {
            return Err(format!("{value} is not {schema}"));
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array) {
            words.contains(value).then_some(()).ok_or(format!("{value} is none of {words:?}"))?;
        }
        check_type(schema, value)?;
        for (place, item) in value.as_array().into_iter().flatten().enumerate() {
            check(root, &schema["items"], item).map_err(|error| format!("[{place}]: {error}"))?;
        }
        check_object(root, schema, value)
    }

    fn check_type(schema: &Value, value: &Value) -> Result<(), String> {
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = match schema.get("type") {
            None => true,
            Some(Value::Array(types)) => types.iter().any(|name| name == is),
            Some(name) => name == is,
        };
        fits.then_some(()).ok_or(format!("{value} is {is}, not {}", schema["type"]))
    }

    fn check_object(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
        let Some(object) = value.as_object() else { return Ok(()) };
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            object.contains_key(name.as_str().unwrap()).then_some(()).ok_or(format!("no {name}"))?;
        }
        for (name, field) in object {
            let fields = schema.get("properties").and_then(|fields| fields.get(name));
            let expected = fields.or(schema.get("additionalProperties")).ok_or(format!("unknown property {name}"))?;
            check(root, expected, field).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }

    #[test]
    fn every_change_has_the_shape_its_schema_promises() {
        let root = schema(Kind::Watch).to_value();
        for watched in fixtures::watch::changes() {
            check(&root, &root, &written(&watched)).unwrap();
        }
    }

    #[test]
    fn every_document_has_the_shape_its_schema_promises() {
        let trace = schema(Kind::Trace).to_value();
        for (name, fixture) in fixtures::traces() {
            check(&trace, &trace, &written(&fixture)).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let list = schema(Kind::List).to_value();
        check(&list, &list, &written(&fixtures::listing())).unwrap();
        let doctor = schema(Kind::Doctor).to_value();
        check(&doctor, &doctor, &written(&fixtures::report())).unwrap();
        let groups = schema(Kind::Sg).to_value();
        check(&groups, &groups, &written(&enforced::groups())).unwrap();
        let explained = schema(Kind::SgExplain).to_value();
        check(&explained, &explained, &written(&enforced::explained())).unwrap();
        let flows = schema(Kind::Flows).to_value();
        check(&flows, &flows, &written(&enforced::flows())).unwrap();
        let status = schema(Kind::AgentStatus).to_value();
        check(&status, &status, &written(&enforced::status())).unwrap();
    }

    #[test]
    fn a_line_of_the_stream_has_the_shape_its_schema_promises_and_is_one_line() {
        // Each alternative names the event and refers to the rest of its shape.
        let root = schema(Kind::Events).to_value();
        for event in enforced::events() {
            let mut out = Vec::new();
            json::line(&event, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), 1);
            let mut line: Value = serde_json::from_str(&text).unwrap();
            let word = line.as_object_mut().unwrap().remove("event").unwrap();
            let shapes = root["oneOf"].as_array().unwrap();
            let shape = shapes.iter().find(|shape| shape["properties"]["event"]["const"] == word).unwrap();
            let rest = root.pointer(&shape["$ref"].as_str().unwrap()[1..]).unwrap();
            check(&root, rest, &line).unwrap();
        }
    }

    #[test]
    fn what_is_seen_live_has_the_shape_its_schemas_promise() {
        let run = fixtures::live::evil();
        let packets: Vec<PacketDocument> =
            run.told.iter().map(|told| PacketDocument::of(told, &run.points, EPOCH)).collect();
        let root = schema(Kind::LiveLine).to_value();
        let lines = packets.iter().map(|packet| LiveLine::Packet(Box::new(packet.clone())));
        let ends = [LiveLine::Watch((&run.watch).into()), LiveLine::Summary(Box::new((&run.summary).into()))];
        for line in lines.chain(ends) {
            check_line(&root, &line);
        }
        let root = schema(Kind::Drops).to_value();
        let (drops, census) = fixtures::live::drops();
        for one in &drops {
            check_line(&root, &DropsLine::Drop(DropDocument::of(one, EPOCH)));
        }
        check_line(&root, &DropsLine::Summary((&census).into()));
        let root = schema(Kind::Live).to_value();
        let whole = LiveDocument { watch: (&run.watch).into(), packets, summary: (&run.summary).into() };
        check(&root, &root, &written(&whole)).unwrap();
    }

    /// One line, whose first property names the alternative it is.
    fn check_line(root: &Value, line: &impl Published) {
        let mut out = Vec::new();
        json::line(line, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1);
        let mut line: Value = serde_json::from_str(&text).unwrap();
        let word = line.as_object_mut().unwrap().remove("line").unwrap();
        let shapes = root["oneOf"].as_array().unwrap();
        let shape = shapes.iter().find(|shape| shape["properties"]["line"]["const"] == word).unwrap();
        check(root, root.pointer(&shape["$ref"].as_str().unwrap()[1..]).unwrap(), &line).unwrap();
    }

    #[test]
    fn the_check_notices_a_missing_and_a_foreign_property() {
        let trace = schema(Kind::Trace).to_value();
        let whole = written(&fixtures::healthy());
        let mut without = whole.clone();
        without["interfaces"][0]["hops"][0].as_object_mut().unwrap().remove("state");
        assert!(check(&trace, &trace, &without).is_err());
        let mut foreign = whole;
        foreign["instance"]["colour"] = Value::from("red");
        assert!(check(&trace, &trace, &foreign).is_err());
    }

    #[test]
    fn every_property_says_what_it_is() {
        fn undescribed(place: &str, schema: &Value, found: &mut Vec<String>) {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if property.get("description").is_none() {
                    found.push(format!("{place}.{name}"));
                }
            }
        }
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let root = schema(kind).to_value();
            undescribed(kind.name(), &root, &mut found);
            for (name, definition) in root["$defs"].as_object().unwrap() {
                undescribed(name, definition, &mut found);
            }
        }
        assert!(found.is_empty(), "{found:?}");
    }
}
