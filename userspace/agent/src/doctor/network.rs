//! Settings of the network stack that decide over packets without leaving a trace of it. Flow: discover.

use std::{fs, io};

use netdiag_model::doctor::Check;

use super::{Read, read, unreadable};

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGE: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const REVERSE_PATH: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";
const TRACKED: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const TRACKED_MOST: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
/// From how full a table on, in percent, it is warned about: what is left goes in seconds once a flood sets in.
const FULL: u64 = 90;

/// Every setting, in the namespace netdiag runs in.
pub(super) fn checks() -> Vec<Check> {
    vec![
        forwarding(&read(FORWARDING)),
        bridge(&read(BRIDGE), hybrid_bridges().as_ref().map(|&bridges| bridges)),
        reverse_path(&read(REVERSE_PATH)),
        connections(read(TRACKED), read(TRACKED_MOST)),
    ]
}

fn forwarding(read: &Read) -> Check {
    let name = "ip_forward";
    match read.as_ref().map(Option::as_deref) {
        Ok(Some("1")) => Check::ok(name, "on"),
        Ok(Some("0")) => Check::warning(name, "off on the host")
            .so("the host itself routes nothing: Docker networks and published ports do not work; router namespaces \
                 have a setting of their own")
            .fix("sysctl -w net.ipv4.ip_forward=1, if the host is to route"),
        Ok(other) => Check::unknown(name, format!("{FORWARDING}: {}", other.unwrap_or("does not exist"))),
        Err(error) => unreadable(name, FORWARDING, error),
    }
}

/// How many Linux bridges of the hybrid kind (`qbr...`) there are: those filter only through `br_netfilter`.
fn hybrid_bridges() -> io::Result<usize> {
    let devices = fs::read_dir("/sys/class/net")?;
    Ok(devices.flatten().filter(|device| device.file_name().as_encoded_bytes().starts_with(b"qbr")).count())
}

fn bridge(read: &Read, hybrid: Result<usize, &io::Error>) -> Check {
    let name = "bridge-nf-call-iptables";
    let off = match read.as_ref().map(Option::as_deref) {
        Ok(Some("1")) => return Check::ok(name, "on: iptables sees what bridges forward"),
        Ok(Some("0")) => "off",
        Ok(None) => "br_netfilter is not loaded",
        Ok(Some(other)) => return Check::unknown(name, format!("{BRIDGE} is {other}")),
        Err(error) => return unreadable(name, BRIDGE, error),
    };
    match hybrid {
        Ok(0) => Check::ok(name, format!("{off}, and no bridge here needs it")),
        Ok(bridges) => Check::fail(name, format!("{off}, and there are {bridges} qbr bridges"))
            .so("security groups on these bridges let everything pass")
            .fix(
                "modprobe br_netfilter && sysctl -w net.bridge.bridge-nf-call-iptables=1 \
                  net.bridge.bridge-nf-call-ip6tables=1",
            ),
        Err(error) => Check::unknown(name, format!("{off}; /sys/class/net: {error}")).fix("mount /sys"),
    }
}

fn reverse_path(read: &Read) -> Check {
    let name = "rp_filter";
    match read.as_ref().map(Option::as_deref) {
        Ok(Some("0")) => Check::ok(name, "off for all devices; each may have its own"),
        Ok(Some("2")) => Check::ok(name, "loose"),
        Ok(Some("1")) => Check::warning(name, "strict on every device of the host")
            .so("a packet that comes in where the route back to its sender does not lead is dropped, and nothing counts \
                 it but `nstat -az TcpExtIPReversePathFilter`")
            .fix("sysctl -w net.ipv4.conf.all.rp_filter=2, where paths are asymmetric"),
        Ok(other) => Check::unknown(name, format!("{REVERSE_PATH}: {}", other.unwrap_or("does not exist"))),
        Err(error) => unreadable(name, REVERSE_PATH, error),
    }
}

fn connections(count: Read, most: Read) -> Check {
    let name = "conntrack table";
    let (count, most) = match (count, most) {
        (Ok(Some(count)), Ok(Some(most))) => (count, most),
        (Err(error), _) => return unreadable(name, TRACKED, &error),
        (_, Err(error)) => return unreadable(name, TRACKED_MOST, &error),
        (Ok(None), _) | (_, Ok(None)) => return Check::ok(name, "connections are not tracked here"),
    };
    let (Ok(count), Ok(most)) = (count.parse::<u64>(), most.parse::<u64>()) else {
        return Check::unknown(name, format!("{count} of {most}: not numbers"));
    };
    let result = format!("{count} of {most} connections");
    // A maximum of 0 means that there is none.
    if most == 0 || count.saturating_mul(100) < most.saturating_mul(FULL) {
        return Check::ok(name, result);
    }
    Check::warning(name, result)
        .so("when it is full, packets of new connections are dropped (`dmesg`: table full, dropping packet)")
        .fix("`conntrack -S` counts the drops; raise net.netfilter.nf_conntrack_max")
}

#[cfg(test)]
mod tests {
    use super::{Read, bridge, connections, forwarding, reverse_path};
    use netdiag_model::doctor::Status;
    use std::io;

    #[test]
    fn bridges_that_filter_through_iptables_need_the_module() {
        let value = |text: &str| Read::Ok(Some(text.to_owned()));
        assert_eq!(bridge(&Ok(None), Ok(0)).status, Status::Ok);
        assert_eq!(bridge(&Ok(None), Ok(2)).status, Status::Fail);
        assert_eq!(bridge(&value("0"), Ok(1)).status, Status::Fail);
        assert_eq!(bridge(&value("1"), Ok(2)).status, Status::Ok);
        assert_eq!(bridge(&Ok(None), Err(&io::Error::other("gone"))).status, Status::Unknown);
    }

    #[test]
    fn a_table_that_is_nearly_full_is_warned_about() {
        let value = |text: &str| Read::Ok(Some(text.to_owned()));
        assert_eq!(connections(value("8999"), value("10000")).status, Status::Ok);
        assert_eq!(connections(value("9000"), value("10000")).status, Status::Warning);
        assert_eq!(connections(value("18446744073709551615"), value("1")).status, Status::Warning);
        assert_eq!(connections(value("5"), value("0")).status, Status::Ok);
        assert_eq!(connections(Ok(None), Ok(None)).status, Status::Ok);
        assert_eq!(connections(value("many"), value("0")).status, Status::Unknown);
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_unknown() {
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(forwarding(&denied()).status, Status::Unknown);
        assert_eq!(forwarding(&Ok(None)).status, Status::Unknown);
        assert_eq!(reverse_path(&denied()).status, Status::Unknown);
        assert_eq!(connections(denied(), Ok(None)).status, Status::Unknown);
    }
}
