//! Conversations with the kernel by netlink: a request, and all that it answers.

use std::fmt::Debug;
use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_MULTIPART, NetlinkBuffer, NetlinkDeserializable, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
#[cfg(feature = "af_xdp")]
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
#[cfg(feature = "af_xdp")]
use netlink_packet_route::{RouteNetlinkMessage, address::AddressMessage, link::LinkMessage};
#[cfg(feature = "af_xdp")]
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// More than the kernel puts into one reply.
pub(crate) const REPLY_BYTES_MAX: usize = 64 << 10;

/// A socket for requests of a protocol.
pub(crate) fn connect(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// Sends a request.
pub(crate) fn send<I: NetlinkSerializable>(
    socket: &Socket,
    mut message: NetlinkMessage<I>,
) -> io::Result<()> {
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// All links of this network namespace.
#[cfg(feature = "af_xdp")]
pub(crate) fn links(mut visit: impl FnMut(LinkMessage)) -> io::Result<()> {
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), |message| {
        if let RouteNetlinkMessage::NewLink(link) = message {
            visit(link);
        }
    })
}

/// All addresses of this network namespace.
#[cfg(feature = "af_xdp")]
pub(crate) fn addresses(mut visit: impl FnMut(AddressMessage)) -> io::Result<()> {
    dump(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message {
                visit(address);
            }
        },
    )
}

#[cfg(feature = "af_xdp")]
fn dump(request: RouteNetlinkMessage, visit: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    // A conversation of its own: what is left of one that failed would be taken for the next answer.
    let socket = connect(NETLINK_ROUTE)?;
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    send(&socket, message)?;
    receive(&socket, visit)
}

/// Takes what the kernel answers: one message, or several and an end. It answers before the call that asked returns. A message that is not
/// understood, as one of a newer kernel, is left out: it may be of another object than is wanted.
pub(crate) fn receive<I>(socket: &Socket, mut visit: impl FnMut(I)) -> io::Result<()>
where
    I: NetlinkDeserializable + Debug,
{
    let mut more = true;
    while more {
        let mut bytes = Vec::with_capacity(REPLY_BYTES_MAX);
        socket.recv(&mut bytes, 0)?;
        more = take(&bytes, |message| {
            if let Some(message) = message {
                visit(message);
            }
        })?;
    }
    Ok(())
}

/// Takes the messages of a datagram of the kernel; shows `None` in the place of one that is not understood. True if more of the answer is to come.
pub(crate) fn take<I>(bytes: &[u8], mut visit: impl FnMut(Option<I>)) -> io::Result<bool>
where
    I: NetlinkDeserializable + Debug,
{
    let invalid = |error: DecodeError| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut rest = bytes;
    let mut more = false;
    while !rest.is_empty() {
        let header = NetlinkBuffer::new_checked(rest).map_err(invalid)?;
        more = header.flags() & NLM_F_MULTIPART != 0;
        // Messages are padded to four bytes, the last one perhaps not.
        let len = (header.length() as usize).next_multiple_of(4);
        let message = NetlinkMessage::<I>::deserialize(rest);
        rest = rest.get(len.max(4)..).unwrap_or_default();
        let payload = match message {
            Ok(message) => message.payload,
            Err(error) => {
                tracing::debug!(%error, "a message of the kernel is not understood");
                visit(None);
                continue;
            }
        };
        match payload {
            NetlinkPayload::InnerMessage(message) => visit(Some(message)),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            // A dump that is refused ends at once, and says why.
            NetlinkPayload::Done(done) if done.code != 0 => {
                return Err(io::Error::from_raw_os_error(-done.code));
            }
            NetlinkPayload::Done(_) => return Ok(false),
            _ => {}
        }
    }
    Ok(more)
}
