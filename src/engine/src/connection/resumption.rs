//! What a connection knows of tickets and of 0-RTT while there may be some.

use ringway_types::Instant;

use crate::crypto::keys::{DirectionalKeys, StoredKeys};
use crate::crypto::tickets::{IssueError, TicketIssuer};
use crate::crypto::tls::{Resumable, TlsSession};
use crate::wire::early_limits::EarlyLimits;

/// What a server's application says of a client that would resume a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumptionAnswer {
    /// It may, with 0-RTT if that is possible.
    Accept,
    /// It may, without 0-RTT.
    AcceptWithoutZeroRtt,
    /// It may not: it gets a full handshake, with certificates.
    Refuse,
}

/// Why a ticket is not given to the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketError {
    /// Clients give out none.
    #[error("only servers give out tickets")]
    NotServer,
    /// It is too early, or too late.
    #[error("tickets are given out while the connection is open and its handshake is complete")]
    NotConnected,
    /// It cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// 0-RTT of a connection: until the handshake is confirmed, and on a server a little longer.
pub(super) enum Early {
    /// A server waits for the application's answer.
    Asking {
        session: Box<TlsSession>,
        resumable: Resumable,
    },
    /// A server opens 0-RTT packets.
    Opening {
        keys: Box<DirectionalKeys>,
        /// When it stops: once the handshake is complete, packets that were overtaken have this long to arrive.
        expires: Option<Instant>,
    },
    /// A client seals 0-RTT packets.
    Sealing { keys: StoredKeys, limits: EarlyLimits },
    /// A client has other keys. Acknowledgements of packets before this one say nothing of what it has sent with those.
    Sealed { first_one_rtt: u64, rejected: bool },
}

/// For tickets after the handshake.
pub(super) enum AfterHandshake {
    /// A server gives them out.
    Issuer(TicketIssuer),
    /// A client takes so many more, until then.
    Receiver {
        session: Box<TlsSession>,
        left: u8,
        until: Instant,
    },
}

/// Tickets that a client takes on a connection: each costs it a key, and more than a few it has no use for.
pub(super) const TICKETS_MAX: u8 = 8;
