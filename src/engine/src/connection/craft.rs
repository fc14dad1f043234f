//! Packets as no honest peer sends them, for tests that attack.

use super::Connection;
use super::transmit::long_type;
use crate::base::coding::Writer;
use crate::crypto::packet::{begin_long, finish_long, seal};
use crate::crypto::suite::TAG_LEN;
use crate::wire::{Space, header, packet_number};

impl Connection {
    /// Seals a packet of these frames, whatever they are, with the keys of the connection, behind what is in `datagram`.
    /// The connection knows nothing of it. False if it has no keys for the space.
    pub fn craft(&mut self, space: Space, number: u64, frames: &[u8], datagram: &mut Vec<u8>) -> bool {
        let encoded = packet_number::encode(number, None);
        let mut room = vec![0; frames.len() + 128];
        let dcid = *self.content.remote_cids.current();
        let len = if space == Space::Data {
            let Some(keys) = &mut self.handshake.one_rtt else {
                return false;
            };
            let mut w = Writer::new(&mut room);
            header::encode_short(&mut w, &dcid, keys.phase(), encoded);
            let header_len = w.len();
            w.bytes(frames);
            w.zeros((header_len + 4 - encoded.len).saturating_sub(w.len()));
            let len = w.len() + TAG_LEN;
            seal(keys.local(), &mut room[..len], number, encoded, header_len, &[]);
            len
        } else {
            let keys = match space {
                Space::Initial => &self.handshake.initial,
                _ => &self.handshake.handshake,
            };
            let Some(keys) = keys else { return false };
            let token = (space == Space::Initial).then_some(&self.handshake.token[..]);
            room.resize(frames.len() + 128 + self.handshake.token.len(), 0);
            let cids = (&dcid, &self.content.local_cids.first().cid);
            let (mut w, header_len, length_offset) =
                begin_long(&mut room, self.version, long_type(space), cids, token, encoded);
            w.bytes(frames);
            w.zeros((header_len + 4 - encoded.len).saturating_sub(w.len()));
            let len = w.len() + TAG_LEN;
            let keys = keys.local.expand();
            finish_long(
                &mut room[..len],
                length_offset,
                &keys,
                number,
                encoded,
                header_len,
            );
            len
        };
        datagram.extend_from_slice(&room[..len]);
        true
    }
}
