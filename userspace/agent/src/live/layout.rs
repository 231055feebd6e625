//! Where the running kernel has what the programs read. Flow: observe.

use std::{io, sync::Arc};

use netdiag_common::abi::live::Layout;

use super::btf::{Btf, Structure};

/// The type of the tracepoint's function: a pointer that leads to what it takes.
const TRACEPOINT: &str = "btf_trace_kfree_skb";
/// Its arguments, behind the one that is the tracepoint's own.
const ARGUMENTS: [&str; 3] = ["sk_buff", "", "skb_drop_reason"];
/// What some kernels add.
const RECEIVER: &str = "sock";

/// Offsets of the running kernel, and its description for whoever wants more of it.
pub(super) fn read() -> io::Result<(Layout, Arc<Btf>)> {
    let btf = Btf::kernel()?;
    let layout = layout(&btf)
        .map_err(|missing| io::Error::new(io::ErrorKind::NotFound, format!("the kernel's BTF has no {missing}")))?;
    Ok((layout, btf))
}

fn layout(btf: &Btf) -> Result<Layout, String> {
    let [skb, device, net, route, socket] = ["sk_buff", "net_device", "net", "dst_entry", "sock"]
        .map(|name| btf.structure(name).map(|found| (found, name)).ok_or_else(|| format!("struct {name}")));
    let [skb, device, net, route, socket] = [skb?, device?, net?, route?, socket?];
    let at = |(structure, name): (Structure, &str), path: &[&str]| {
        let field = btf.field(structure, path).filter(|field| field.bit % 8 == 0);
        field.map(|field| field.bit / 8).ok_or_else(|| format!("{name}.{}", path.join(".")))
    };
    let (skb_tagged, skb_tagged_mask) = tagged(btf, skb.0)?;
    let (skb_ingress, skb_ingress_mask) = bit(btf, skb.0, "tc_at_ingress").unwrap_or_default();
    Ok(Layout {
        skb_dev: at(skb, &["dev"])?,
        skb_head: at(skb, &["head"])?,
        skb_data: at(skb, &["data"])?,
        skb_tail: at(skb, &["tail"])?,
        skb_len: at(skb, &["len"])?,
        skb_mark: at(skb, &["mark"])?,
        skb_mac_header: at(skb, &["mac_header"])?,
        skb_network_header: at(skb, &["network_header"])?,
        skb_vlan_tci: at(skb, &["vlan_tci"])?,
        skb_tagged,
        skb_tagged_mask,
        skb_ingress,
        skb_ingress_mask,
        skb_iif: at(skb, &["skb_iif"])?,
        skb_dst: at(skb, &["_skb_refdst"])?,
        skb_sk: at(skb, &["sk"])?,
        dev_ifindex: at(device, &["ifindex"])?,
        dev_net: at(device, &["nd_net", "net"])?,
        dev_type: at(device, &["type"])?,
        net_cookie: at(net, &["net_cookie"])?,
        net_inode: at(net, &["ns", "inum"])?,
        net_loopback: at(net, &["loopback_dev"])?,
        dst_dev: at(route, &["dev"])?,
        sk_net: at(socket, &["__sk_common", "skc_net", "net"])?,
        sk_family: at(socket, &["__sk_common", "skc_family"])?,
        consumed: consumed(btf),
        receiver: u32::from(arguments(btf).is_some_and(|names| names.get(3).is_some_and(|name| name == RECEIVER))),
    })
}

/// The word that says whether a tag is beside the frame, and its bits that say so: tag and protocol together, or before
/// Linux 6.2 a bit of its own.
fn tagged(btf: &Btf, skb: Structure) -> Result<(u32, u32), String> {
    if let Some(field) = btf.field(skb, &["vlan_all"]) {
        return Ok((field.bit / 8, u32::MAX));
    }
    bit(btf, skb, "vlan_present").ok_or_else(|| "sk_buff.vlan_all".to_owned())
}

/// The word in which there is a field of one bit, and that bit.
fn bit(btf: &Btf, skb: Structure, name: &str) -> Option<(u32, u32)> {
    let field = btf.field(skb, &[name])?;
    // The bits of a field are counted from the least significant one of its byte on; so they are in a word that begins there.
    let bit = if cfg!(target_endian = "little") { field.bit % 8 } else { 31 - field.bit % 8 };
    Some((field.bit / 8, 1 << bit))
}

/// The reason of packets that were used up, not given up; none has this number where the kernel has no such reason.
fn consumed(btf: &Btf) -> u32 {
    let values = btf.values("skb_drop_reason");
    values.into_iter().find(|(name, _)| name == "SKB_CONSUMED").map_or(u32::MAX, |(_, value)| value)
}

fn arguments(btf: &Btf) -> Option<Vec<String>> {
    btf.arguments(TRACEPOINT).and_then(|names| names.get(1..).map(<[_]>::to_vec))
}

/// Whether the tracepoint takes what the program expects; else what it takes.
pub(super) fn knows_drops(btf: &Btf) -> Result<(), String> {
    let Some(names) = arguments(btf) else {
        return Err("the kernel has no tracepoint skb:kfree_skb in its BTF".to_owned());
    };
    if names.iter().zip(ARGUMENTS).filter(|(name, wanted)| name == wanted).count() == ARGUMENTS.len() {
        return Ok(());
    }
    Err(format!("the kernel's tracepoint skb:kfree_skb takes ({})", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{knows_drops, read};

    #[test]
    fn the_running_kernel_has_everything_that_is_read() {
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return;
        }
        let (layout, btf) = read().unwrap();
        knows_drops(&btf).unwrap();
        assert_ne!(layout.skb_head, layout.skb_data);
        assert_ne!(layout.skb_mac_header, layout.skb_network_header);
        assert_ne!(layout.skb_tagged_mask, 0);
        assert_ne!(layout.skb_ingress_mask, 0);
    }
}
