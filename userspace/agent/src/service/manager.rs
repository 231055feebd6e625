//! What the service manager is told, and asks. Flow: policy.
//!
//! The protocol of `sd_notify(3)`: lines in a datagram. Without a service manager nothing is said.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

/// The service manager, where there is one.
#[derive(Debug)]
pub(crate) struct Manager(Option<(UnixDatagram, SocketAddr)>);

impl Manager {
    /// The one that started this process.
    pub(crate) fn of_environment() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty());
        // One that cannot be reached has nothing to be told.
        Self(socket.and_then(|path| Self::reach(&path).ok()))
    }

    fn reach(path: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    }

    /// The agent enforces; in a few words how.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// In a few words how the agent is.
    pub(crate) fn status(&self, status: &str) {
        self.say(&format!("STATUS={}", line(status)));
    }

    /// The agent reads its files anew.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000));
    }

    /// The agent ends.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=stopped; what is loaded goes on to be enforced");
    }

    /// The agent is alive.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.0 {
            // A manager that does not listen now will be told again.
            drop(socket.send_to_addr(text.as_bytes(), address));
        }
    }
}

/// How often the service manager wants to hear from this process; none where it does not.
pub(crate) fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros)
}

/// Text from outside must not begin a line of its own.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::Manager;
    use std::os::unix::net::UnixDatagram;

    fn heard(say: impl FnOnce(&Manager)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        say(&Manager(Some(Manager::reach(path.to_str().unwrap()).unwrap())));
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_status_is_one_line_whatever_is_in_it() {
        assert_eq!(heard(|manager| manager.ready("2 ports\nREADY=0")), "READY=1\nSTATUS=2 ports READY=0");
    }

    #[test]
    fn a_reload_says_when_it_began() {
        let text = heard(Manager::reloading);
        let time = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
    }
}
