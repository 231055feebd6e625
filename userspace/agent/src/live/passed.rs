//! What devices have counted themselves: all that passed, where a probe sees a part. Flow: observe.

use std::{collections::HashMap, fs, io, os::unix::fs::MetadataExt as _};

use netdiag_model::{
    id::LinkKey,
    live::rates::{Amount, Passed},
};

/// What devices of this thread's namespace have counted since they were made, by their names. Those of other namespaces are left
/// out.
///
/// # Errors
/// `/proc` cannot be read.
pub fn passed<'n>(devices: impl Iterator<Item = (LinkKey, &'n str)>) -> io::Result<HashMap<LinkKey, Passed>> {
    let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let counted: HashMap<&str, Passed> = text.lines().filter_map(line).collect();
    let here = devices.filter(|(link, _)| link.netns.inode == own);
    Ok(here.filter_map(|(link, name)| Some((link, *counted.get(name)?))).collect())
}

/// A line of `/proc/net/dev` (`net/core/net-procfs.c`): name, bytes, packets and six more of what was received, and the same of
/// what was sent. The two lines above them have no numbers.
fn line(line: &str) -> Option<(&str, Passed)> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let amount = |at: usize| Some(Amount { bytes: *numbers.get(at)?, packets: *numbers.get(at + 1)? });
    Some((name.trim(), Passed { received: amount(0)?, sent: amount(8)? }))
}

#[cfg(test)]
mod tests {
    use netdiag_model::id::{IfIndex, NetnsId};

    use super::*;

    #[test]
    fn a_device_is_found_by_its_name_and_heads_are_no_devices() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n\
                    tap1a2b3c4d-5e:118446744073709 7 0 3 0 0 0 0 4096 9 0 0 0 0 0 0\n";
        let lines: Vec<_> = text.lines().filter_map(line).collect();
        let amount = |bytes, packets| Amount { packets, bytes };
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[1],
            ("tap1a2b3c4d-5e", Passed { received: amount(118_446_744_073_709, 7), sent: amount(4096, 9) })
        );
    }

    #[test]
    fn only_devices_of_this_namespace_are_told_of() {
        let inode = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let link = |inode| LinkKey { netns: NetnsId { inode, cookie: 1 }, ifindex: IfIndex(1) };
        let asked = [(link(inode), "lo"), (link(inode + 1), "lo"), (link(inode), "nosuch")];
        let told = passed(asked.into_iter()).unwrap();
        assert_eq!(told.keys().collect::<Vec<_>>(), [&link(inode)]);
    }
}
