//! Events of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::close::CloseReason;
use crate::crypto::tickets::ClientTicket;
use crate::crypto::tls::TlsInfo;
use crate::datagrams::DatagramSendState;

/// Something happened to the connection.
#[derive(Debug)]
pub enum Event {
    /// The handshake is complete.
    Connected(Arc<TlsInfo>),
    /// The peer has presented a certificate, and has its key. The handshake waits for [`Connection::set_certificate_valid`].
    ///
    /// [`Connection::set_certificate_valid`]: super::Connection::set_certificate_valid
    PeerCertificateReceived {
        /// The chain, end entity first.
        chain: Vec<CertificateDer<'static>>,
        /// What a verification that leaves the decision to the application has found.
        deferred_error: Option<String>,
    },
    /// A client shows a ticket that this server, or one with its keys, gave out with this data of the application. The handshake waits for
    /// [`Connection::complete_resumption`](super::Connection::complete_resumption). That the client has the ticket's secret is not known yet: whether
    /// the session is resumed, `Connected` says.
    Resuming(Vec<u8>),
    /// The server gave a ticket for a later connection.
    TicketReceived(ClientTicket),
    /// The connection begins to end.
    Closing(CloseReason),
    /// Packets of the peer arrive at another local address.
    LocalAddressChanged(SocketAddr),
    /// The peer has another address, and it is validated.
    PeerAddressChanged(SocketAddr),
    /// Datagrams can be sent, or no longer, or other sizes of them.
    DatagramStateChanged {
        /// The peer takes datagrams.
        send_enabled: bool,
        /// The most bytes in one now.
        max_send_len: usize,
    },
    /// What became of a datagram.
    DatagramSendStateChanged {
        /// What the caller gave with it.
        context: u64,
        /// The new state.
        state: DatagramSendState,
    },
    /// An acknowledgement has changed what is known of the network ([`Connection::stats`](super::Connection::stats)).
    NetworkStatistics,
    /// The server gave a token for a later connection.
    NewToken(Vec<u8>),
    /// A datagram came in a packet that arrived before its keys.
    DeferredDatagram {
        /// Its content.
        data: Vec<u8>,
        /// It came in 0-RTT.
        early: bool,
    },
}
