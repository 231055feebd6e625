//! Docker's process for a published port, by its command line. Flow: discover.

use std::{fs, path::Path};

use netdiag_model::fact::{NamespaceFact, ProxyFact, PublishedPort};

/// Reads what a `docker-proxy` was started for; none where it went meanwhile, or where its arguments are not those of one.
pub(super) fn read(dir: &Path, pid: u32, comm: &str) -> Option<ProxyFact> {
    let line = (comm == NamespaceFact::DOCKER_PROXY).then(|| fs::read(dir.join("cmdline")).ok())??;
    parse(pid, &line)
}

/// `docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80`, as `/proc` has it.
fn parse(pid: u32, line: &[u8]) -> Option<ProxyFact> {
    let words: Vec<&str> = line.split(|byte| *byte == 0).map(|word| str::from_utf8(word).unwrap_or_default()).collect();
    // Go's flags: one dash or two, the value behind it or behind an equals sign.
    let value = |flag: &str| {
        words.iter().enumerate().find_map(|(place, word)| {
            let rest = word.trim_start_matches('-').strip_prefix(flag).filter(|_| word.starts_with('-'))?;
            if rest.is_empty() { words.get(place + 1).copied() } else { rest.strip_prefix('=') }
        })
    };
    let port = PublishedPort {
        protocol: value("proto")?.to_owned(),
        host_address: value("host-ip")?.parse().ok()?,
        host_port: value("host-port")?.parse().ok()?,
        container_port: value("container-port")?.parse().ok()?,
    };
    Some(ProxyFact { pid, port, to: value("container-ip")?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn served(line: &str) -> Option<String> {
        let proxy = parse(7, line.replace(' ', "\0").as_bytes())?;
        let port = proxy.port;
        Some(format!("{} {}:{} {}:{}", port.protocol, port.host_address, port.host_port, proxy.to, port.container_port))
    }

    #[test]
    fn the_port_and_where_it_leads_are_read_however_the_flags_are_written() {
        let expected = Some("udp :::53 172.17.0.2:5353".to_owned());
        let docker =
            "/usr/bin/docker-proxy -proto udp -host-ip :: -host-port 53 -container-ip 172.17.0.2 -container-port 5353";
        assert_eq!(served(docker), expected);
        assert_eq!(served(&format!("{docker} -use-listen-fd")), expected);
        assert_eq!(
            served("x --proto=udp --host-ip=:: --host-port=53 --container-ip=172.17.0.2 --container-port=5353"),
            expected
        );
    }

    #[test]
    fn other_arguments_are_not_guessed_at() {
        for line in
            ["", "docker-proxy", "docker-proxy -proto tcp -host-ip x -host-port 8080", "docker-proxy -host-port"]
        {
            assert_eq!(served(line), None, "{line}");
        }
        let beyond = "docker-proxy -proto tcp -host-ip :: -host-port 65536 -container-ip 172.17.0.2 -container-port 80";
        assert_eq!(served(beyond), None);
    }
}
