//! The files in `docs/examples`.

use super::*;

/// A file there, read as policy.
fn example(name: &str, text: &str) -> Policy {
    policy(&[Document { name: name.to_owned(), text: text.to_owned() }]).unwrap()
}

#[test]
fn the_documented_examples_are_understood() {
    let tiers = example("web-db.yaml", include_str!("../../../../../../docs/examples/web-db.yaml"));
    assert_eq!((tiers.groups.len(), tiers.ports.len()), (2, 0));
    let all = example("all-fields.yaml", include_str!("../../../../../../docs/examples/all-fields.yaml"));
    assert_eq!((all.groups.len(), all.address_groups.len(), all.ports.len(), all.members.len()), (1, 1, 2, 1));
    assert_eq!(all.floating_ips.len(), 1);
}

#[test]
fn the_documented_files_of_neutron_are_one_policy() {
    let documents = [
        ("group-web.json", include_str!("../../../../../../docs/examples/neutron/group-web.json")),
        ("port-web-1.json", include_str!("../../../../../../docs/examples/neutron/port-web-1.json")),
    ];
    let documents = documents.map(|(name, text)| Document { name: name.to_owned(), text: text.to_owned() });
    let both = policy(&documents).unwrap();
    assert_eq!((both.groups.len(), both.ports.len()), (1, 1));
}
