//! Devices of the chains that are called for devices (`netdev`, and `inet` at ingress). Flow: explain.
//!
//! Old releases of nft leave them out of the JSON and print them as text alone; both are brought together here.

use std::collections::HashMap;

use serde_json::Value;

use super::objects;

/// The devices newer releases print: one, or a list.
pub(super) fn read(value: &Value) -> Vec<String> {
    super::matches::words(value).into_iter().map(str::to_owned).collect()
}

/// Whether chains that are called for devices do not say which.
pub fn lacks_devices(json: &str) -> bool {
    objects(json).unwrap_or_default().iter().any(|object| object.get("chain").is_some_and(lacks))
}

fn lacks(chain: &Value) -> bool {
    let hook = chain.get("hook").and_then(Value::as_str);
    matches!(hook, Some("ingress" | "egress")) && chain.get("dev").is_none()
}

/// The JSON with the devices `nft list chains` printed. Returned as it was where it cannot be read.
pub fn with_devices(json: &str, chains: &str) -> String {
    let Ok(mut objects) = objects(json) else { return json.to_owned() };
    let printed = printed(chains);
    for chain in objects.iter_mut().filter_map(|object| object.get_mut("chain")).filter(|chain| lacks(chain)) {
        let word = |key: &str| chain.get(key).and_then(Value::as_str).map(str::to_owned);
        let place = (word("family"), word("table"), word("name"));
        if let ((Some(family), Some(table), Some(name)), Some(object)) = (place, chain.as_object_mut())
            && let Some(devices) = printed.get(&(family, table, name))
        {
            object.insert("dev".to_owned(), serde_json::json!(devices));
        }
    }
    serde_json::json!({ "nftables": objects }).to_string()
}

/// Family, table and name of a chain.
type Place = (String, String, String);

/// The devices of each chain of `nft list chains`: `type filter hook ingress device "eth0" priority …` or
/// `devices = { eth0, eth1 }`.
fn printed(chains: &str) -> HashMap<Place, Vec<String>> {
    let mut found = HashMap::new();
    let (mut table, mut chain) = ((String::new(), String::new()), String::new());
    for line in chains.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, "{"] => table = (family.to_owned(), name.to_owned()),
            ["chain", name, "{"] => name.clone_into(&mut chain),
            ["type", _, "hook", _, "device", device, ..] => {
                let device = vec![device.trim_matches('"').to_owned()];
                found.insert((table.0.clone(), table.1.clone(), chain.clone()), device);
            }
            ["type", _, "hook", _, "devices", "=", ..] => {
                let list = line.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(list, _)| list);
                let devices = list.split(',').map(|device| device.trim().trim_matches('"').to_owned());
                found.insert((table.0.clone(), table.1.clone(), chain.clone()), devices.collect());
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{lacks_devices, with_devices};
    use crate::netfilter::nft;

    const JSON: &str = r#"{"nftables": [{"table": {"family": "netdev", "name": "f"}},
        {"chain": {"family": "netdev", "table": "f", "name": "c", "type": "filter", "hook": "ingress", "prio": 0}},
        {"chain": {"family": "netdev", "table": "f", "name": "e", "type": "filter", "hook": "egress", "prio": 0}}]}"#;

    const CHAINS: &str = "table netdev f {\n\tchain c {\n\t\ttype filter hook ingress device \"d0\" priority filter; \
        policy accept;\n\t}\n\tchain e {\n\t\ttype filter hook egress devices = { d0, d1 } priority filter;\n\t}\n}\n";

    fn devices(json: &str) -> Vec<Option<Vec<String>>> {
        let (tables, problems) = nft::parse(json);
        assert_eq!(problems, []);
        tables[0].chains().iter().map(|chain| chain.base.clone().unwrap().devices).collect()
    }

    #[test]
    fn devices_that_json_leaves_out_are_taken_from_the_text() {
        assert_eq!((lacks_devices(JSON), devices(JSON)), (true, vec![None, None]));
        let whole = with_devices(JSON, CHAINS);
        let named = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!((lacks_devices(&whole), devices(&whole)), (false, vec![named(&["d0"]), named(&["d0", "d1"])]));
    }

    #[test]
    fn devices_that_json_has_are_read_alone_or_as_a_list() {
        for (dev, count) in [(r#""d0""#, 1), (r#"["d0", "d1"]"#, 2)] {
            let json = JSON.replace(r#""hook": "ingress""#, &format!(r#""hook": "ingress", "dev": {dev}"#));
            assert_eq!(devices(&json)[0].as_ref().map(Vec::len), Some(count));
        }
    }

    #[test]
    fn what_is_neither_json_nor_chains_is_left_as_it_is() {
        assert_eq!(with_devices("no json", "table {"), "no json");
        assert!(lacks_devices(&with_devices(JSON, "chain { type filter hook ingress device")));
    }
}
