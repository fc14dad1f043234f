//! How far the handshake has come: its keys, and what was agreed on.

use std::sync::Arc;

use rustls::pki_types::ServerName;

use super::content::ACK_DELAY_EXPONENT;
use super::resumption::{AfterHandshake, Early};
use crate::crypto::client_hello::ClientHelloInfo;
use crate::crypto::keys::Keys;
use crate::crypto::one_rtt::OneRttKeys;
use crate::crypto::post_handshake::PostHandshake;
use crate::crypto::tls::{ClientTls, TlsInfo, TlsSession};
use crate::wire::cid::ConnectionId;
use crate::wire::version_information::VersionInformation;
use crate::wire::{Space, Version};

/// Keys, and the state of the handshake.
pub(super) struct Handshake {
    /// `None` on a server until it is accepted, and on both sides when the handshake is complete.
    pub(super) tls: Option<Box<TlsSession>>,
    pub(super) initial: Option<Box<Keys>>,
    pub(super) handshake: Option<Box<Keys>>,
    pub(super) one_rtt: Option<Box<OneRttKeys>>,
    /// The space that the TLS session writes for.
    pub(super) write_space: Space,
    /// The beginning of the client's CRYPTO stream, until the connection is accepted.
    pub(super) hello: Vec<u8>,
    pub(super) hello_info: Option<Box<ClientHelloInfo>>,
    /// The ClientHello has been complete.
    pub(super) has_hello: bool,
    /// 0-RTT, while there may be some, or the application is asked about it.
    pub(super) early: Option<Box<Early>>,
    /// For tickets that are given out, or that come.
    pub(super) after: Option<Box<AfterHandshake>>,
    /// A client goes on from an earlier session: until the server is heard, its parameters are those of then.
    pub(super) remembers: bool,
    /// Checks what TLS messages a server sends later; `None` once something of them was not kept.
    pub(super) late: Option<PostHandshake>,
    /// The handshake is complete (RFC 9001 section 4.1.1).
    pub(super) complete: bool,
    /// And confirmed (section 4.1.2).
    pub(super) confirmed: bool,
    /// Client: the server has acknowledged a Handshake packet, and so has validated our address.
    pub(super) validated_by_peer: bool,
    /// A packet has been opened.
    pub(super) received: bool,
    /// Token for the Initial packets of a client.
    pub(super) token: Box<[u8]>,
    /// The connection ID that the client chose first.
    pub(super) original_dcid: ConnectionId,
    /// Connection ID of a Retry.
    pub(super) retry_scid: Option<ConnectionId>,
    /// Version of the client's first flight (RFC 9368 section 1.2: its Chosen Version).
    pub(super) original_version: Version,
    /// Opens Initial packets of that version, if another was negotiated: they may come for as long as there are Initial keys (RFC 9369
    /// section 4.1).
    pub(super) original_initial: Option<Box<Keys>>,
    /// The negotiated version is known, and does not change any more.
    pub(super) version_known: bool,
    /// Version of the packet with a long header that was opened last.
    pub(super) opened_version: Version,
    /// What the ClientHello says of versions, until the connection is accepted.
    pub(super) client_versions: Option<Box<VersionInformation>>,
    /// What a client needs to start again in another version, until it hears of the server.
    pub(super) restart: Option<Box<Restart>>,
    /// A client has started again because of a version negotiation packet.
    pub(super) restarted: bool,
    /// A server is to send a version negotiation packet.
    pub(super) negotiate_versions: bool,
    /// The peer's transport parameters, as far as they matter later.
    pub(super) peer: PeerParams,
    /// What has been agreed on, once the handshake is complete.
    pub(super) info: Option<Arc<TlsInfo>>,
    /// The application's word on the peer's certificate.
    pub(super) verdict: Verdict,
}

/// The connection IDs and the version of a client's first packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FirstPacket {
    /// Its version.
    pub version: Version,
    /// Where it was sent to.
    pub dcid: ConnectionId,
    /// Where it came from.
    pub scid: ConnectionId,
}

/// What a client needs to start again in another version.
pub(super) struct Restart {
    pub(super) tls: ClientTls,
    pub(super) server_name: ServerName<'static>,
}

/// What lasts of the peer's transport parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerParams {
    pub(super) known: bool,
    pub(super) max_idle_timeout_ms: u64,
    pub(super) ack_delay_exponent: u8,
    pub(super) max_datagram_frame_size: u64,
    pub(super) grease_quic_bit: bool,
}

/// Whether the application has been asked about the peer's certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Verdict {
    /// It has not.
    #[default]
    NotAsked,
    /// It has, and has not answered.
    Awaited,
    /// It trusts the peer.
    Trusted,
}

impl Handshake {
    pub(super) fn new(version: Version, original_dcid: ConnectionId, initial: Keys) -> Self {
        Handshake {
            tls: None,
            initial: Some(Box::new(initial)),
            handshake: None,
            one_rtt: None,
            write_space: Space::Initial,
            hello: Vec::new(),
            hello_info: None,
            has_hello: false,
            early: None,
            after: None,
            remembers: false,
            late: Some(PostHandshake::default()),
            complete: false,
            confirmed: false,
            validated_by_peer: false,
            received: false,
            token: Box::default(),
            original_dcid,
            retry_scid: None,
            original_version: version,
            original_initial: None,
            version_known: false,
            opened_version: version,
            client_versions: None,
            restart: None,
            restarted: false,
            negotiate_versions: false,
            peer: PeerParams {
                known: false,
                max_idle_timeout_ms: 0,
                ack_delay_exponent: ACK_DELAY_EXPONENT as u8,
                max_datagram_frame_size: 0,
                grease_quic_bit: false,
            },
            info: None,
            verdict: Verdict::NotAsked,
        }
    }

    /// Keys to send packets of a space with are there.
    #[inline]
    pub(super) fn can_send(&self, space: Space) -> bool {
        match space {
            Space::Initial => self.initial.is_some(),
            Space::Handshake => self.handshake.is_some(),
            // Nothing is sent to a client that has not finished its handshake, as it may be anybody, unless it had something to say in 0-RTT.
            Space::Data if self.complete => self.one_rtt.is_some(),
            Space::Data => match self.early.as_deref() {
                Some(Early::Sealing { .. }) => true,
                Some(Early::Opening { .. }) => self.one_rtt.is_some(),
                _ => false,
            },
        }
    }
}
