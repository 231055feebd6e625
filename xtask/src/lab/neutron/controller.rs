//! The OpenFlow end of Neutron's agent: answers Open vSwitch's greetings and echo requests, and nothing else.
//!
//! The agent is an OpenFlow controller of every bridge. It writes the flows once, which the lab does in its place, and
//! stays connected; a bridge whose controller is not connected looks like one whose agent is down.

use std::{
    env,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result};

use crate::lab::host;

/// Where the agent listens (`of_listen_address`, `of_listen_port`).
pub(crate) const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 6633);

/// `OFP_VERSION` of OpenFlow 1.3, and the message types used here (OpenFlow 1.3.5, sections 7.1.1 and 7.5.1 to 7.5.3).
const VERSION: u8 = 4;
const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const HEADER: usize = 8;

/// Starts it in the background of a lab host.
pub(crate) fn start() -> Result<()> {
    let program = env::current_exe().context("find the path of this program")?;
    let mut command = Command::new(program);
    command.args(["lab", "controller"]);
    // It ends with the host, which collects it.
    host::daemon(&mut command, Path::new("/var/log/controller.log")).map(drop)
}

/// Serves every bridge that connects, until the end of the host.
pub(crate) fn run() -> Result<()> {
    let listener = TcpListener::bind(ADDRESS).with_context(|| format!("listen on {}:{}", ADDRESS.0, ADDRESS.1))?;
    loop {
        let (stream, _) = listener.accept().context("accept a bridge's connection")?;
        // A bridge that hangs up connects again.
        thread::spawn(move || serve(stream).ok());
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(&message(HELLO, [0; 4], &[]))?;
    loop {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let [_, kind, high, low, transaction @ ..] = header;
        let mut body = vec![0; usize::from(u16::from_be_bytes([high, low])).saturating_sub(HEADER)];
        stream.read_exact(&mut body)?;
        if kind == ECHO_REQUEST {
            stream.write_all(&message(ECHO_REPLY, transaction, &body))?;
        }
    }
}

fn message(kind: u8, transaction: [u8; 4], body: &[u8]) -> Vec<u8> {
    // A body never exceeds what a 16-bit length has announced.
    let [high, low] = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[VERSION, kind, high, low], transaction.as_slice(), body].concat()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, TcpListener, TcpStream},
        thread,
    };

    use super::serve;

    #[test]
    fn echo_request_comes_back_with_its_transaction_and_body() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut bridge = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let server = thread::spawn(move || serve(stream));
        bridge.write_all(&[4, 0, 0, 8, 0, 0, 0, 1]).unwrap();
        bridge.write_all(&[4, 2, 0, 10, 9, 8, 7, 6, b'h', b'i']).unwrap();
        let mut answer = [0; 18];
        bridge.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [4, 0, 0, 8, 0, 0, 0, 0, 4, 3, 0, 10, 9, 8, 7, 6, b'h', b'i']);
        drop(bridge);
        assert!(server.join().unwrap().is_err());
    }
}
