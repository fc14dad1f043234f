//! How streams are opened and started, and how data is sent.

use bitflags::bitflags;

bitflags! {
    /// How a stream is opened. MsQuic: `QUIC_STREAM_OPEN_FLAGS`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct OpenFlags: u8 {
        /// None of them.
        const NONE = 0;
        /// All that is sent on the stream may be sent in 0-RTT: as if [`SendFlags::ALLOW_0_RTT`] were set each time.
        const ALLOW_0_RTT = 1;
        /// Received data goes into buffers of the application from the beginning
        /// ([`Stream::provide_receive_buffers`](crate::Stream::provide_receive_buffers)).
        const APP_OWNED_BUFFERS = 2;
        /// Received data is delivered as it arrives, whatever is missing before it: see
        /// [`IncomingStream::read_unordered`](crate::IncomingStream::read_unordered).
        const UNORDERED = 4;
    }

    /// How a stream is started. MsQuic: `QUIC_STREAM_START_FLAGS`. Without a flag, `QUIC_STREAM_START_FLAG_SHUTDOWN_ON_FAIL` holds: a stream that
    /// cannot start ends.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct StartFlags: u8 {
        /// None of them.
        const NONE = 0;
        /// If the peer's limit is reached, the stream fails at once, rather than wait until the peer raises it.
        const FAIL_BLOCKED = 1;
        /// The peer hears of the stream at once, not with its first data.
        const IMMEDIATE = 2;
        /// [`PeerAccepted`](crate::StreamEvent::PeerAccepted) says when the peer allows the stream: right after
        /// [`StartComplete`](crate::StreamEvent::StartComplete), or, if it was started in 0-RTT under the limits of an earlier connection, when this
        /// connection's are known.
        const INDICATE_PEER_ACCEPT = 4;
        /// The call goes before those of other connections: see [`SendFlags::PRIORITY_WORK`].
        const PRIORITY_WORK = 8;
    }

    /// How data is sent. MsQuic: `QUIC_SEND_FLAGS`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct SendFlags: u8 {
        /// None of them.
        const NONE = 0;
        /// The sending side ends after this data.
        const FIN = 1;
        /// A client that has a ticket for it may send this data in 0-RTT, before the handshake is complete. **Others can have the server read it
        /// again**: it should only ask for what may be done twice. What the server does not take in 0-RTT, or what there is no ticket for, is sent
        /// when the handshake is complete. Of a stream, only the first data can go in 0-RTT, up to the first without this flag.
        const ALLOW_0_RTT = 2;
        /// Of datagrams: it goes before those that have no priority. MsQuic: `QUIC_SEND_FLAG_DGRAM_PRIORITY`.
        const DATAGRAM_PRIORITY = 4;
        /// Of datagrams: if it cannot be sent at once, because the congestion window is full, pacing holds it back or the handshake is not
        /// complete, it is canceled. MsQuic: `QUIC_SEND_FLAG_CANCEL_ON_BLOCKED`.
        const CANCEL_ON_BLOCKED = 8;
        /// Starts the stream, unless it has been started.
        const START = 16;
        /// From now on the stream is of no use once a packet with data of it counts as lost, or a probe timeout would send it again: both of its
        /// directions are aborted then, with the code that the handler of [`CancelOnLoss`](crate::StreamEvent::CancelOnLoss) gives. Holds for the
        /// whole stream.
        const CANCEL_ON_LOSS = 32;
        /// More is coming: the data need not go before the next send without this flag on the same stream. It may go earlier. MsQuic:
        /// `QUIC_SEND_FLAG_DELAY_SEND`.
        const DELAY = 64;
        /// A call of another thread, and with it the connection's calls before it, goes before the calls of other connections that wait for the
        /// worker. Calls of one connection keep their order. What of them is more than a turn has room for
        /// ([`Limits::operations_per_turn`](crate::Limits::operations_per_turn)) waits its turn, and with it perhaps the call itself.
        /// In handlers it means nothing: calls there take effect at once.
        const PRIORITY_WORK = 128;
    }
}
