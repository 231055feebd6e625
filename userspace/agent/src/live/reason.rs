//! What the kernel calls the reasons for which it gives packets up. Flow: observe.
//!
//! The upper half of a reason is a subsystem, whose reasons may be described by a module. Numbers differ from kernel to kernel,
//! so names are taken from the running one alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::btf::Btf;

/// The kernel's own reasons, and what their names begin with.
const REASONS: (&str, &str) = ("skb_drop_reason", "SKB_DROP_REASON_");
/// Subsystems, and what their names begin with.
const SUBSYSTEMS: (&str, &str) = ("skb_drop_reason_subsys", "SKB_DROP_REASON_SUBSYS_");
/// What the name of every enumeration of reasons ends with.
const ENUMERATION: &str = "drop_reason";
/// The kernel itself.
const CORE: &str = "core";

/// Names of reasons.
#[derive(Debug)]
pub(super) struct Reasons {
    btf: Option<Arc<Btf>>,
    names: BTreeMap<u32, String>,
    subsystems: BTreeMap<u32, String>,
    /// Subsystems whose reasons were looked for.
    looked_for: BTreeSet<u32>,
}

impl Reasons {
    /// Those of the kernel; with no description of it every reason is a number.
    pub(super) fn new(btf: Option<Arc<Btf>>) -> Self {
        let (mut names, mut subsystems) = (BTreeMap::new(), BTreeMap::new());
        if let Some(btf) = &btf {
            for (name, value) in btf.values(REASONS.0) {
                // What marks the end of the list is behind all reasons.
                names.entry(value).or_insert_with(|| name.strip_prefix(REASONS.1).unwrap_or(&name).to_owned());
            }
            for (name, value) in btf.values(SUBSYSTEMS.0) {
                subsystems.insert(value, name.strip_prefix(SUBSYSTEMS.1).unwrap_or(&name).to_ascii_lowercase());
            }
        }
        Self { btf, names, subsystems, looked_for: BTreeSet::from([0]) }
    }

    /// Name of a reason, and who names it.
    pub(super) fn name(&mut self, reason: u32) -> (String, String) {
        let number = reason >> 16;
        let subsystem = match (number, self.subsystems.get(&number)) {
            (_, Some(name)) => name.clone(),
            (0, None) => CORE.to_owned(),
            (_, None) => format!("subsystem {number}"),
        };
        if self.looked_for.insert(number) {
            self.look_for(number);
        }
        let name = self.names.get(&reason).cloned().unwrap_or_else(|| format!("{:#x}", reason & 0xffff));
        (name, subsystem)
    }

    /// Adds the reasons of a subsystem, whoever describes them.
    fn look_for(&mut self, subsystem: u32) {
        let Some(kernel) = &self.btf else { return };
        let modules = Btf::modules(kernel);
        for btf in modules.iter().chain([&**kernel]) {
            for (name, values) in btf.enumerations() {
                let own = values.into_iter().filter(|(_, value)| value >> 16 == subsystem);
                if name.ends_with(ENUMERATION) {
                    self.names.extend(own.map(|(name, value)| (value, name)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Btf, Reasons};

    #[test]
    fn a_reason_nobody_describes_is_a_number_of_its_subsystem() {
        let mut reasons = Reasons::new(None);
        assert_eq!(reasons.name(7), ("0x7".to_owned(), "core".to_owned()));
        assert_eq!(reasons.name(0x0003_0002), ("0x2".to_owned(), "subsystem 3".to_owned()));
    }

    #[test]
    fn the_running_kernels_reasons_have_names_without_their_prefix() {
        let Ok(btf) = Btf::kernel() else { return };
        let values = btf.values("skb_drop_reason");
        let (_, number) = values.iter().find(|(name, _)| name == "SKB_DROP_REASON_NETFILTER_DROP").unwrap();
        let mut reasons = Reasons::new(Some(btf));
        assert_eq!(reasons.name(*number), ("NETFILTER_DROP".to_owned(), "core".to_owned()));
    }
}
