//! Floating IPs: kept and given back, not served. Flow: policy.

use std::net::IpAddr;

use serde_json::Value;

/// What is said of every floating IP.
pub(crate) const HELD: &str = "floating IPs are not served by this version";

/// Checks the shape Neutron gives a floating IP.
///
/// # Errors
/// The field that does not fit, and why.
pub(crate) fn check(object: &Value) -> Result<(), (String, String)> {
    address(object, "floating_ip_address", true)?;
    address(object, "fixed_ip_address", false)?;
    for field in ["port_id", "router_id", "floating_network_id", "status", "description"] {
        if !object.get(field).is_none_or(|value| value.is_null() || value.is_string()) {
            return Err((field.to_owned(), "is no text".to_owned()));
        }
    }
    Ok(())
}

fn address(object: &Value, field: &str, needed: bool) -> Result<(), (String, String)> {
    let refuse = |why: &str| Err((field.to_owned(), why.to_owned()));
    match object.get(field) {
        None | Some(Value::Null) if needed => refuse("is missing"),
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.parse::<IpAddr>().is_ok() => Ok(()),
        Some(_) => refuse("is no IP address"),
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use serde_json::json;

    #[test]
    fn a_floating_ip_as_neutron_prints_it_fits_and_another_says_which_field_does_not() {
        let good = json!({ "id": "f", "floating_ip_address": "203.0.113.7", "fixed_ip_address": null, "port_id": null,
                           "router_id": "r", "tags": [], "status": "DOWN" });
        assert_eq!(check(&good), Ok(()));
        for (field, value) in [
            ("floating_ip_address", json!(null)),
            ("floating_ip_address", json!("203.0.113.7/24")),
            ("fixed_ip_address", json!("ten")),
            ("port_id", json!(7)),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert_eq!(check(&bad).unwrap_err().0, field);
        }
    }
}
