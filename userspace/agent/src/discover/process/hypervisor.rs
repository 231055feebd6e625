//! What the command line of a hypervisor says of its virtual machine. Flow: discover.
//!
//! QEMU's options come as `key=value,…` with a doubled comma for a comma, or, from newer libvirt, as JSON. Anybody can
//! run a program by any name with any arguments, so nothing here is sure of anything: what makes no sense is left out.

use std::{collections::BTreeMap, iter::Peekable};

use netdiag_model::id::Mac;
use serde_json::Value;

/// A virtual machine monitor: a program that runs virtual machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vmm {
    Qemu,
    CloudHypervisor,
    Firecracker,
}

/// What a command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    /// Name of the machine.
    pub(super) name: Option<String>,
    /// UUID of the machine.
    pub(super) uuid: Option<String>,
    /// Its network cards.
    pub(super) cards: Vec<Card>,
}

/// A network card, and how its tap can be found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    /// Name of the tap.
    pub(super) tap: Option<String>,
    /// Descriptors of the tap, opened by whoever started the hypervisor.
    pub(super) descriptors: Vec<u32>,
    /// The guest's MAC address.
    pub(super) mac: Option<Mac>,
}

impl Vmm {
    /// The hypervisor at a path, by the name of the file; the kernel adds ` (deleted)` to a file that was replaced.
    pub(super) fn of(path: &str) -> Option<Self> {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        match path.rsplit('/').next().unwrap_or(path) {
            "qemu-kvm" | "kvm" => Some(Self::Qemu),
            "cloud-hypervisor" => Some(Self::CloudHypervisor),
            "firecracker" => Some(Self::Firecracker),
            name => name.starts_with("qemu-system-").then_some(Self::Qemu),
        }
    }

    /// Reads a command line as the kernel gives it: arguments that end with a NUL.
    pub(super) fn parse(self, command_line: &[u8]) -> CommandLine {
        let arguments =
            command_line.split(|byte| *byte == 0).skip(1).map(|bytes| String::from_utf8_lossy(bytes).into());
        match self {
            Self::Qemu => qemu(arguments),
            Self::CloudHypervisor => cloud_hypervisor(arguments),
            Self::Firecracker => firecracker(arguments),
        }
    }
}

/// Options in both of QEMU's notations; what comes first and has no key is under [`IMPLIED`].
type Options = BTreeMap<String, String>;

/// Key of a first value without one: `tap` in `-netdev tap,id=…`, the name in `-name x`.
const IMPLIED: &str = "";

fn qemu(mut arguments: impl Iterator<Item = String>) -> CommandLine {
    let mut machine = CommandLine::default();
    let mut backends = BTreeMap::new();
    let mut devices = Vec::new();
    while let Some(flag) = arguments.next() {
        // QEMU takes one dash or two.
        let flag = flag.strip_prefix("--").or_else(|| flag.strip_prefix('-')).unwrap_or_default();
        if !matches!(flag, "name" | "uuid" | "netdev" | "device" | "nic") {
            continue;
        }
        let Some(value) = arguments.next() else { break };
        let mut options = options(&value);
        match flag {
            "name" => machine.name = options.remove("guest").or_else(|| options.remove(IMPLIED)),
            "uuid" => machine.uuid = Some(value),
            "netdev" => drop(options.remove("id").map(|id| backends.insert(id, backend(&options)))),
            "nic" => machine.cards.push(Card { mac: mac(&options), ..backend(&options) }),
            _ => devices.extend(options.remove("netdev").map(|id| (id, mac(&options)))),
        }
    }
    for (id, mac) in devices {
        machine.cards.push(Card { mac, ..backends.remove(&id).unwrap_or_default() });
    }
    // A backend without a device is a card that was unplugged, whose tap is still there.
    machine.cards.extend(backends.into_values().filter(|card| *card != Card::default()));
    machine
}

/// The tap of a `-netdev`, or of the backend half of a `-nic`; nothing of a backend that has none.
fn backend(options: &Options) -> Card {
    let kind = options.get(IMPLIED).or_else(|| options.get("type"));
    if kind.is_none_or(|kind| kind != "tap") {
        return Card::default();
    }
    let descriptors = options.get("fds").or_else(|| options.get("fd")).map(String::as_str).unwrap_or_default();
    Card {
        tap: options.get("ifname").cloned(),
        descriptors: descriptors.split(':').filter_map(|number| number.parse().ok()).collect(),
        mac: None,
    }
}

fn mac(options: &Options) -> Option<Mac> {
    options.get("mac").and_then(|mac| mac.parse().ok())
}

fn options(text: &str) -> Options {
    if !text.starts_with('{') {
        return comma_separated(text);
    }
    let Ok(Value::Object(pairs)) = serde_json::from_str(text) else { return Options::new() };
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    pairs.into_iter().filter_map(|(key, value)| Some((key, scalar(value)?))).collect()
}

fn comma_separated(text: &str) -> Options {
    let mut options = Options::new();
    let mut characters = text.chars().peekable();
    while characters.peek().is_some() {
        let option = until_comma(&mut characters);
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if options.is_empty() => (IMPLIED.to_owned(), option),
            // A switch such as `readonly` has no value worth keeping.
            None => continue,
        };
        options.insert(key, value);
    }
    options
}

/// Takes the text before the next comma, and that comma; two commas are one of the text.
fn until_comma(characters: &mut Peekable<impl Iterator<Item = char>>) -> String {
    let mut text = String::new();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            break;
        }
        text.push(character);
    }
    text
}

/// `--net` takes one value or more, each of a card.
fn cloud_hypervisor(arguments: impl Iterator<Item = String>) -> CommandLine {
    let mut machine = CommandLine::default();
    let mut in_net = false;
    for argument in arguments {
        if argument.starts_with("--") {
            in_net = argument == "--net";
        } else if in_net && !argument.is_empty() {
            let options = comma_separated(&argument);
            machine.cards.push(Card { tap: options.get("tap").cloned(), descriptors: Vec::new(), mac: mac(&options) });
        }
    }
    machine
}

/// `--id`; cards come by its API.
fn firecracker(arguments: impl Iterator<Item = String>) -> CommandLine {
    let name = arguments.skip_while(|argument| argument != "--id").nth(1);
    CommandLine { name, ..CommandLine::default() }
}

#[cfg(test)]
mod tests {
    use super::{Card, CommandLine, Vmm};

    fn parse(hypervisor: Vmm, arguments: &[&str]) -> CommandLine {
        hypervisor.parse(format!("program\0{}\0", arguments.join("\0")).as_bytes())
    }

    fn qemu(arguments: &[&str]) -> CommandLine {
        parse(Vmm::Qemu, arguments)
    }

    fn card(tap: Option<&str>, descriptors: &[u32], mac: Option<&str>) -> Card {
        Card { tap: tap.map(Into::into), descriptors: descriptors.into(), mac: mac.map(|mac| mac.parse().unwrap()) }
    }

    #[test]
    fn a_hypervisor_is_known_by_the_name_of_its_file() {
        for path in
            ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "kvm", "/usr/bin/qemu-system-arm (deleted)"]
        {
            assert_eq!(Vmm::of(path), Some(Vmm::Qemu), "{path}");
        }
        assert_eq!(Vmm::of("/usr/bin/cloud-hypervisor"), Some(Vmm::CloudHypervisor));
        assert_eq!(Vmm::of("/opt/firecracker"), Some(Vmm::Firecracker));
        for path in ["", "/", "/usr/bin/qemu-img", "kvm-nx-lpage-recovery-7", "/qemu-system-x86_64/sh"] {
            assert_eq!(Vmm::of(path), None, "{path}");
        }
    }

    #[test]
    fn a_machine_of_libvirt_is_read() {
        let machine = qemu(&[
            "-name",
            "guest=instance-0000002a,debug-threads=on",
            "-S",
            "-uuid",
            "1a2b3c4d-5e6f-4a1b-8c2d-000000000001",
            "-netdev",
            "tap,fd=33,id=hostnet0,vhost=on,vhostfd=35",
            "-device",
            "virtio-net-pci,host_mtu=1450,netdev=hostnet0,id=net0,mac=fa:16:3e:00:00:02,bus=pci.0,addr=0x3",
            "-device",
            "virtio-balloon-pci,id=balloon0",
        ]);
        assert_eq!(machine.name.as_deref(), Some("instance-0000002a"));
        assert_eq!(machine.uuid.as_deref(), Some("1a2b3c4d-5e6f-4a1b-8c2d-000000000001"));
        assert_eq!(machine.cards, [card(None, &[33], Some("fa:16:3e:00:00:02"))]);
    }

    #[test]
    fn options_in_json_are_read_like_the_others() {
        let machine = qemu(&[
            "-netdev",
            r#"{"type":"tap","fds":"33:34","vhost":true,"id":"hostnet0"}"#,
            "-device",
            r#"{"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"fa:16:3e:00:00:02","addr":3}"#,
        ]);
        assert_eq!(machine.cards, [card(None, &[33, 34], Some("fa:16:3e:00:00:02"))]);
    }

    #[test]
    fn devices_find_their_backends_in_any_order_and_notation() {
        let machine = qemu(&[
            "-device",
            "e1000,netdev=b,mac=fa:16:3e:00:00:0b",
            "--netdev",
            "tap,id=a,ifname=tapa,script=no",
            "-netdev",
            r#"{"type":"tap","ifname":"tapb","id":"b"}"#,
            "-device",
            "virtio-net-pci,netdev=a,mac=fa:16:3e:00:00:0a",
            "-netdev",
            "tap,id=unplugged,ifname=tapc",
            "-netdev",
            "user,id=u",
            "-nic",
            "tap,ifname=tapd,mac=fa:16:3e:00:00:0d",
        ]);
        let expected = [
            card(Some("tapd"), &[], Some("fa:16:3e:00:00:0d")),
            card(Some("tapb"), &[], Some("fa:16:3e:00:00:0b")),
            card(Some("tapa"), &[], Some("fa:16:3e:00:00:0a")),
            card(Some("tapc"), &[], None),
        ];
        assert_eq!(machine.cards, expected);
    }

    #[test]
    fn a_name_may_come_without_a_key_and_with_doubled_commas() {
        assert_eq!(qemu(&["-name", "web"]).name.as_deref(), Some("web"));
        assert_eq!(qemu(&["-name", "a,,b=c,process=x"]).name, None);
        assert_eq!(qemu(&["-name", "guest=a,,b,process=x"]).name.as_deref(), Some("a,b"));
    }

    #[test]
    fn hostile_text_comes_through_as_it_is() {
        let name = "web\n\u{1b}[2J\"'$(reboot)";
        assert_eq!(qemu(&["-name", &format!("guest={name}")]).name.as_deref(), Some(name));
    }

    #[test]
    fn values_that_are_missing_or_make_no_sense_are_left_out() {
        for arguments in [
            &["-name"][..],
            &[],
            &["-", "--", "-device", "", "-netdev", ",,,,", "-device", "netdev"],
            &["-netdev", "{", "-device", "{}", "-netdev", "{\"id\":[]}"],
            &["-netdev", &"[".repeat(100_000), "-device", &format!("{{\"netdev\":{}", "[".repeat(100_000))],
        ] {
            assert_eq!(qemu(arguments), CommandLine::default());
        }
        let machine = qemu(&["-netdev", "tap,id=a,fds=1:x:-1::2", "-device", "e1000,netdev=a,mac=nonsense"]);
        assert_eq!(machine.cards, [card(None, &[1, 2], None)]);
    }

    #[test]
    fn a_command_line_of_a_mebibyte_is_read() {
        let long = ",".repeat(1 << 20);
        assert_eq!(qemu(&["-name", &long]).name.map(|name| name.len()), Some(1 << 19));
        assert_eq!(qemu(&vec!["-device"; 1 << 17]), CommandLine::default());
        assert_eq!(Vmm::Qemu.parse(&vec![0xff; 1 << 20]), CommandLine::default());
        assert_eq!(Vmm::Qemu.parse(b""), CommandLine::default());
    }

    #[test]
    fn cards_of_cloud_hypervisor_are_read() {
        let machine =
            parse(Vmm::CloudHypervisor, &["--net", "tap=tapa,mac=fa:16:3e:00:00:0a", "tap=tapb", "--cpus", "boot=2"]);
        assert_eq!(machine.cards, [card(Some("tapa"), &[], Some("fa:16:3e:00:00:0a")), card(Some("tapb"), &[], None)]);
    }

    #[test]
    fn the_name_of_a_firecracker_is_its_id() {
        let machine = parse(Vmm::Firecracker, &["--api-sock", "/run/x", "--id", "web"]);
        assert_eq!(machine.name.as_deref(), Some("web"));
        assert_eq!(parse(Vmm::Firecracker, &["--id"]).name.as_deref(), Some(""));
    }
}
