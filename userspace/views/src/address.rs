//! Which addresses of a device say something.

use ipnet::IpNet;

/// The addresses of a device without those every device gives itself (`fe80::`).
pub(crate) fn given(addresses: &[IpNet]) -> impl Iterator<Item = &IpNet> {
    addresses.iter().filter(|net| !matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local()))
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    #[test]
    fn an_address_every_device_gives_itself_says_nothing() {
        let all: Vec<IpNet> = ["10.0.0.1/24", "fe80::1/64", "2001:db8::1/64"].map(|net| net.parse().unwrap()).into();
        assert_eq!(super::given(&all).collect::<Vec<_>>(), [&all[0], &all[2]]);
    }
}
