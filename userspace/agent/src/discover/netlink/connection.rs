//! A netlink socket inside one namespace, and the requests over it. Flow: discover.
//!
//! Answers are kept as the kernel's bytes and taken apart attribute by attribute. The codec of the library drops a whole
//! message when it cannot read one attribute of it; here a link with a name that is no UTF-8, or a route with an
//! encapsulation nobody knows yet, is a link or a route all the same.

use std::{convert::Infallible, io};

use futures_util::StreamExt as _;
use netdiag_model::id::NetnsId;
use netlink_packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::proto::{
    ConnectionHandle, NetlinkCodec,
    sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::runtime;

use crate::netns::{Namespace, NetnsError};

/// How often a dump is asked for that the kernel says changed under way.
const ATTEMPTS: usize = 4;

/// A netlink socket inside one namespace. It is closed when this is dropped.
pub(super) struct Connection {
    handle: ConnectionHandle<Message>,
}

/// Why there is no netlink socket.
#[derive(Debug, thiserror::Error)]
pub(in crate::discover) enum ConnectError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The socket could not be made.
    #[error("open a netlink socket in {id}")]
    Socket {
        /// Where.
        id: NetnsId,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The kernel refused.
    #[error(transparent)]
    Refused(io::Error),
    /// The socket broke.
    #[error("the netlink socket was closed")]
    Closed,
}

/// What a dump returned.
pub(super) struct Dump {
    /// The objects.
    pub(super) answers: Vec<Answer>,
    /// False where the table changed during every attempt, so that objects may be missing or be there twice.
    pub(super) consistent: bool,
}

/// One object of an answer, in the kernel's own bytes.
#[derive(Clone, Debug)]
pub(crate) struct Answer(pub(crate) Vec<u8>);

impl Answer {
    /// The attributes that follow a header of `header` bytes.
    pub(super) fn attributes(&self, header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
        attributes(self.0.get(header..).unwrap_or_default())
    }
}

/// The attributes in a payload, as far as they are well-formed.
pub(super) fn attributes(payload: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(payload).map_while(Result::ok)
}

impl Connection {
    /// Opens a socket inside a namespace; the runtime that calls this drives it.
    pub(super) async fn open(namespace: &Namespace) -> Result<Self, ConnectError> {
        let runtime = runtime::Handle::current();
        let socket = namespace
            .run(move || {
                // The thread is none of the runtime's, and the socket must be registered with it.
                let _entered = runtime.enter();
                TokioSocket::new(NETLINK_ROUTE)
            })
            .await?
            .map_err(|source| ConnectError::Socket { id: namespace.id, source })?;
        let (mut connection, handle, _) =
            rtnetlink::proto::from_socket_with_codec::<Message, TokioSocket, NetlinkCodec>(socket);
        // The end of a dump carries its error, and the flag that it is inconsistent.
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Asks for all objects of a kind, again where the kernel says that the table changed under way.
    pub(super) async fn dump(&self, request: &RouteNetlinkMessage) -> Result<Dump, RequestError> {
        let mut dump = Dump { answers: Vec::new(), consistent: false };
        for _ in 0..ATTEMPTS {
            dump = self.exchange(request.clone(), NLM_F_DUMP).await?;
            if dump.consistent {
                break;
            }
        }
        Ok(dump)
    }

    /// Asks for one object.
    pub(super) async fn get(&self, request: RouteNetlinkMessage) -> Result<Answer, RequestError> {
        self.exchange(request, 0).await?.answers.pop().ok_or(RequestError::Closed)
    }

    async fn exchange(&self, request: RouteNetlinkMessage, flags: u16) -> Result<Dump, RequestError> {
        let mut message = NetlinkMessage::from(Message::Request(Box::new(request)));
        message.header.flags = NLM_F_REQUEST | flags;
        let kernel = SocketAddr::new(0, 0);
        let mut stream = self.handle.request(message, kernel).map_err(|_| RequestError::Closed)?;
        let mut dump = Dump { answers: Vec::new(), consistent: true };
        // A dump ends with a message of its own; what ends without one was cut off.
        let mut ended = flags & NLM_F_DUMP == 0;
        while let Some(message) = stream.next().await {
            dump.consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(Message::Answer(answer)) => dump.answers.push(answer),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(RequestError::Refused(error.to_io()));
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(RequestError::Refused(io::Error::from_raw_os_error(-done.code)));
                }
                NetlinkPayload::Done(_) => ended = true,
                _ => {}
            }
        }
        if ended { Ok(dump) } else { Err(RequestError::Closed) }
    }
}

/// What goes over the socket.
#[derive(Debug)]
pub(super) enum Message {
    /// Ours.
    Request(Box<RouteNetlinkMessage>),
    /// The kernel's.
    Answer(Answer),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Request(request) => request.message_type(),
            // Answers are never sent.
            Self::Answer(_) => netlink_packet_core::NLMSG_NOOP,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Request(request) => Emitable::buffer_len(request.as_ref()),
            Self::Answer(Answer(payload)) => payload.len(),
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        match self {
            Self::Request(request) => request.emit(buffer),
            Self::Answer(Answer(payload)) => buffer.copy_from_slice(payload),
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self::Answer(Answer(payload.to_vec())))
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
impl Answer {
    /// The answer the kernel would give with a message.
    pub(super) fn with(message: &impl Emitable) -> Self {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, attributes};

    #[test]
    fn attributes_end_where_they_are_cut_short() {
        // A whole attribute of kind 1, and one that says it is longer than the message.
        let payload = [6, 0, 1, 0, 7, 8, 0, 0, 200, 0, 2, 0, 1];
        let kinds: Vec<_> = attributes(&payload).map(|nla| (nla.kind(), nla.value().to_vec())).collect();
        assert_eq!(kinds, [(1, vec![7, 8])]);
    }

    #[test]
    fn an_answer_shorter_than_its_header_has_no_attributes() {
        assert_eq!(Answer(vec![0; 3]).attributes(16).count(), 0);
    }
}
