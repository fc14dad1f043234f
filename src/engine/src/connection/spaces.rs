//! What each packet number space has of its own (RFC 9000 section 12.3).

use std::ops::{Index, IndexMut};
use std::time::Duration;

use super::crypto_stream::CryptoStream;
use crate::recovery::ack_tracker::AckTracker;
use crate::wire::Space;

/// What one space receives, and what it alone sends.
pub(super) struct PacketSpace {
    pub(super) acks: AckTracker,
    pub(super) crypto: CryptoStream,
    /// A PING is to be sent.
    pub(super) ping: bool,
}

impl PacketSpace {
    const fn new(max_ack_delay: Duration) -> Self {
        PacketSpace {
            acks: AckTracker::new(max_ack_delay),
            crypto: CryptoStream::new(),
            ping: false,
        }
    }
}

/// The three spaces. Those of the handshake take no memory once it is confirmed.
pub(super) struct PacketSpaces {
    data: PacketSpace,
    handshake: Option<Box<[PacketSpace; 2]>>,
}

impl PacketSpaces {
    /// Acknowledgements of 1-RTT packets are held back for at most `max_ack_delay`.
    pub(super) fn new(max_ack_delay: Duration) -> Self {
        PacketSpaces {
            data: PacketSpace::new(max_ack_delay),
            handshake: None,
        }
    }

    /// The keys of `space` are gone, and what its packets carried with them. Those of [`Space::Data`] stay for as long as the connection.
    pub(super) fn discard(&mut self, space: Space) {
        match space {
            Space::Initial => {
                if let Some(spaces) = &mut self.handshake {
                    spaces[0] = PacketSpace::new(Duration::ZERO);
                }
            }
            // The last of the two (RFC 9001 section 4.9).
            Space::Handshake => self.handshake = None,
            Space::Data => {}
        }
    }

    /// Bytes that they hold beside themselves.
    pub(super) fn memory(&self) -> usize {
        let handshake = self.handshake.iter().flat_map(|spaces| spaces.iter());
        let boxed = handshake.clone().count() * size_of::<PacketSpace>();
        let spaces = handshake.chain([&self.data]);
        boxed
            + spaces
                .map(|space| space.acks.memory() + space.crypto.memory())
                .sum::<usize>()
    }
}

/// A space of the handshake in which nothing has happened, or which is gone.
static EMPTY: PacketSpace = PacketSpace::new(Duration::ZERO);

impl Index<Space> for PacketSpaces {
    type Output = PacketSpace;

    #[inline]
    fn index(&self, space: Space) -> &PacketSpace {
        match (space, &self.handshake) {
            (Space::Data, _) => &self.data,
            (_, Some(spaces)) => &spaces[space as usize],
            (_, None) => &EMPTY,
        }
    }
}

impl IndexMut<Space> for PacketSpaces {
    #[inline]
    fn index_mut(&mut self, space: Space) -> &mut PacketSpace {
        match space {
            Space::Data => &mut self.data,
            Space::Initial | Space::Handshake => {
                let spaces = self
                    .handshake
                    .get_or_insert_with(|| Box::new([const { PacketSpace::new(Duration::ZERO) }; 2]));
                &mut spaces[space as usize]
            }
        }
    }
}
