//! Why datagrams and packets are dropped, and how often it happened.

/// One list gives the reasons, their names and their number.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a datagram, or a packet in one, was not processed.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name),*];
        }
    };
}

drop_reasons! {
    /// The header ends early, or says what cannot be (RFC 8999 section 5).
    MalformedHeader,
    /// It says that it comes from port 0, to which nothing can be sent.
    SourcePortZero,
    /// No connection has this connection ID, and the packet opens none.
    UnknownConnection,
    /// A packet that would open a connection, on a port where nobody listens.
    NoListener,
    /// An Initial in a datagram of less than 1200 bytes (RFC 9000 section 14.1).
    InitialTooShort,
    /// An Initial whose connection ID is shorter than 8 bytes (RFC 9000 section 7.2).
    InitialCidTooShort,
    /// A version we do not speak, in a datagram too short or too frequent to answer.
    UnsupportedVersion,
    /// A version negotiation packet that no connection of ours waits for.
    UnexpectedVersionNegotiation,
    /// A token that we gave out but do not take: expired, replayed, or of another address.
    InvalidToken,
    /// The worker has as many connections or handshakes as it may have.
    Overloaded,
    /// The client's source has as many handshakes as one may have.
    SourceFull,
    /// The first packet of a connection could not be opened.
    InvalidInitial,
    /// More answers without a connection than one turn may send.
    StatelessLimit,
    /// The partition that the datagram belongs to has too many waiting, or has gone.
    HandoverFull,
    /// Keys for the packet are not there, and no more such packets can be kept.
    NoKeys,
    /// A 0-RTT packet that the server has not accepted, or that a client got (RFC 9001 sections 4.6.2 and 5.6).
    ZeroRttRejected,
    /// The packet could not be opened.
    DecryptionFailed,
    /// A packet number that was received before.
    Duplicate,
    /// A packet of a version other than the connection's.
    WrongVersion,
    /// A packet that came from an address from which the connection takes none.
    UnexpectedAddress,
    /// A packet behind one with another Destination Connection ID in its datagram (RFC 9000 section 12.2).
    CoalescedForOther,
    /// The connection is closing or draining.
    ConnectionClosing,
}

/// Number of drop reasons.
pub const DROP_REASONS: usize = DropReason::ALL.len();

/// Datagrams and packets dropped, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DropCounts([u64; DROP_REASONS]);

impl Default for DropCounts {
    fn default() -> Self {
        DropCounts([0; DROP_REASONS])
    }
}

impl DropCounts {
    /// Counts one.
    pub fn add(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many were dropped for this reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|&reason| (reason, self.get(reason)))
            .filter(|&(_, count)| count > 0)
    }
}
