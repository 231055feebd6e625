//! A hypervisor without a machine: a process that looks to its host as QEMU does when libvirt started it, holds the taps
//! of an instance open, and hands their frames to the guest's network cards.
//!
//! It is this program under another name. The taps are opened by whoever starts it, as libvirt opens them, and named on
//! its command line by their descriptors. Each card's other half is a socket, also on the command line; the guest behind
//! it (`guest`) is on no lab host, so what sees the host sees what it would see of a virtual machine, and nothing of the
//! guest.

use std::{
    env,
    ffi::OsString,
    fs,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::{
    io::FdFlags,
    mount::mount_bind,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::lab::{
    command, host,
    inventory::{Instance, Port},
    tap,
};

/// Name of the program, and where a lab host has it: `/usr` is the real host's.
const PROGRAM: &str = "qemu-system-x86_64";
const DIRECTORY: &str = "/run/netdiag-lab-qemu";
/// What the program is called on its command line.
const CALLED: &str = "/usr/bin/qemu-system-x86_64";
/// Where the guests' cards are plugged in.
const SOCKETS: &str = "/run/libvirt/qemu";

/// Whether this process was started under the hypervisor's name.
pub(crate) fn is_this_process() -> bool {
    let called = env::args_os().next().unwrap_or_default();
    Path::new(&called).file_name().is_some_and(|name| name == PROGRAM)
}

/// The socket of an instance's card, as its host has it.
pub(crate) fn socket(instance: &Instance, number: usize) -> PathBuf {
    Path::new(SOCKETS).join(format!("{}.net{number}", instance.name))
}

/// Lets a lab host have the program under its own name.
pub(crate) fn install() -> Result<()> {
    let program = Path::new(DIRECTORY).join(PROGRAM);
    for directory in [DIRECTORY, SOCKETS] {
        fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
    }
    fs::write(&program, "").with_context(|| format!("make {}", program.display()))?;
    let this = env::current_exe().context("find the path of this program")?;
    mount_bind(&this, &program).with_context(|| format!("show {} as {}", this.display(), program.display()))
}

/// Starts the hypervisor of an instance, which makes the taps of its ports, and returns its pid.
///
/// While a tap is inherited no other program may be started, or that would hold it open as well.
pub(crate) fn start(instance: &Instance) -> Result<u32> {
    let mut taps = Vec::new();
    for port in &instance.ports {
        let name = port.host_devices.first().context("a port without a device on the host")?;
        let tap = tap::open(name, true)?;
        rustix::io::fcntl_setfd(&tap, FdFlags::empty()).with_context(|| format!("let {name} be inherited"))?;
        taps.push(tap);
    }
    let log = format!("/var/log/{}.log", instance.name);
    let mut command = Command::new(Path::new(DIRECTORY).join(PROGRAM));
    let descriptors: Vec<_> = taps.iter().map(OwnedFd::as_raw_fd).collect();
    command.arg0(CALLED).args(command_line(instance, &descriptors)).env_clear();
    let child = host::daemon(&mut command, Path::new(&log))?;
    drop(taps);
    let sockets: Vec<_> = (0..instance.ports.len()).map(|number| socket(instance, number)).collect();
    host::wait_until("the start of a hypervisor", std::time::Duration::from_secs(10), || {
        Ok(sockets.iter().all(|socket| socket.exists()))
    })?;
    Ok(child.id())
}

/// Brings the taps up, with the MAC address libvirt gives them: the guest's, but for the first octet.
pub(crate) fn configure(instances: &[Instance]) -> Result<()> {
    use std::fmt::Write as _;
    let mut batch = String::new();
    for Port { mac, host_devices, mtu, .. } in instances.iter().flat_map(|instance| &instance.ports) {
        let tap = host_devices.first().context("a port without a device on the host")?;
        let (_, rest) = mac.split_at(2);
        writeln!(batch, "link set {tap} address fe{rest} mtu {mtu}\nlink set {tap} up")?;
    }
    command::feed("ip", ["-batch", "-"], &batch).map(drop)
}

/// The options of QEMU's that libvirt gives it, as far as they are about what is here.
fn command_line(instance: &Instance, taps: &[RawFd]) -> Vec<OsString> {
    let mut words: Vec<String> = ["-name", &format!("guest={},debug-threads=on", instance.name), "-S"]
        .into_iter()
        .chain(["-machine", "pc-i440fx-8.2,usb=off,dump-guest-core=off,memory-backend=pc.ram,hpet=off,acpi=on"])
        .chain(["-accel", "kvm", "-cpu", "host", "-m", "size=524288k", "-overcommit", "mem-lock=off"])
        .chain(["-smp", "1,sockets=1,dies=1,cores=1,threads=1", "-uuid", &instance.uuid.0])
        .chain(["-no-user-config", "-nodefaults", "-no-shutdown", "-boot", "strict=on"])
        .map(str::to_owned)
        .collect();
    for (number, (port, tap)) in instance.ports.iter().zip(taps).enumerate() {
        let socket = socket(instance, number);
        let card = format!(
            "virtio-net-pci,host_mtu={},netdev=hostnet{number},id=net{number},mac={},bus=pci.0,addr={:#x}",
            port.mtu,
            port.mac,
            number + 3
        );
        words.extend([
            "-chardev".to_owned(),
            format!("socket,id=charnet{number},path={},server=on,wait=off", socket.display()),
            "-netdev".to_owned(),
            format!("tap,fd={tap},id=hostnet{number}"),
            "-device".to_owned(),
            card,
        ]);
    }
    words.extend(["-msg", "timestamp=on"].map(str::to_owned));
    words.into_iter().map(OsString::from).collect()
}

/// Is the hypervisor: carries frames until the taps or the guest are gone.
pub(crate) fn run() -> Result<()> {
    let words: Vec<String> = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let taps = values(&words, "-netdev", "fd").map(|number| number.parse().context("a descriptor that is no number"));
    let taps = taps.collect::<Result<Vec<RawFd>>>()?;
    let listeners = values(&words, "-chardev", "path").map(listen).collect::<Result<Vec<_>>>()?;
    if taps.len() != listeners.len() {
        bail!("{} taps and {} cards", taps.len(), listeners.len());
    }
    let mut cards = Vec::new();
    for (tap, listener) in taps.into_iter().zip(listeners) {
        let card = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC).context("wait for the guest's card")?;
        cards.push(tap::splice(inherited(tap), card));
    }
    // Without its guest a hypervisor ends, and its taps with it.
    cards.into_iter().try_for_each(|card| card.join().map_err(|_| anyhow!("a card's thread panicked")))
}

#[expect(unsafe_code, reason = "a descriptor that was inherited is known by its number alone")]
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: who started this process opened it for the one use it is put to here.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The values of a key in every option of a name.
fn values<'a>(words: &'a [String], option: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = words.windows(2).filter(move |pair| pair[0] == option).flat_map(|pair| pair[1].split(','));
    pairs.filter_map(|pair| pair.split_once('=')).filter(move |(found, _)| *found == key).map(|(_, value)| value)
}

fn listen(path: &str) -> Result<OwnedFd> {
    let what = || format!("listen on {path}");
    let socket = seqpacket().with_context(what)?;
    let address = SocketAddrUnix::new(path).with_context(what)?;
    rustix::net::bind(&socket, &address).with_context(what)?;
    rustix::net::listen(&socket, 1).with_context(what)?;
    Ok(socket)
}

/// Plugs a guest's card into a hypervisor.
pub(crate) fn plug(path: &Path) -> Result<OwnedFd> {
    let what = || format!("connect to {}", path.display());
    let socket = seqpacket().with_context(what)?;
    let address = SocketAddrUnix::new(path).with_context(what)?;
    rustix::net::connect(&socket, &address).with_context(what)?;
    Ok(socket)
}

/// A socket that keeps frames apart.
fn seqpacket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use super::{command_line, values};
    use crate::lab::{inventory::Profile, profile, spec::Spec};

    #[test]
    fn the_hypervisor_finds_on_its_command_line_what_it_is_to_carry() {
        let spec = Spec { name: "lab".into(), profile: Profile::Vm, instances: 0, no_docker: false };
        let lab = profile::plan(&spec);
        let instance = lab.instances.iter().find(|instance| instance.ports.len() == 2).unwrap();
        let words: Vec<_> =
            command_line(instance, &[7, 9]).into_iter().map(|word| word.into_string().unwrap()).collect();
        assert_eq!(values(&words, "-netdev", "fd").collect::<Vec<_>>(), ["7", "9"]);
        let sockets: Vec<_> = values(&words, "-chardev", "path").collect();
        let expected = [0, 1].map(|number| format!("/run/libvirt/qemu/{}.net{number}", instance.name));
        assert_eq!(sockets, expected);
        assert_eq!(
            values(&words, "-device", "mac").collect::<Vec<_>>(),
            [&instance.ports[0].mac, &instance.ports[1].mac]
        );
        assert_eq!(values(&words, "-name", "guest").collect::<Vec<_>>(), [&instance.name]);
    }
}
