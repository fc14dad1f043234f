//! When we want the peer to acknowledge what we send (draft-ietf-quic-ack-frequency).
//!
//! Where packets come one by one, both ends of a bulk transfer spend much of their time on acknowledgements of every second packet. Once the
//! congestion window holds many packets, we ask for one for each eighth of it: soon enough for it to grow and to see losses.

use crate::base::coding::Writer;
use crate::recovery::PACKET_THRESHOLD;
use crate::wire::frame::{self, ty};

/// What we ask the peer for.
#[derive(Debug, Default)]
pub(super) struct AckFrequency {
    /// The max_ack_delay of the peer in milliseconds: it is asked for no other. `None`: it takes no ACK_FREQUENCY.
    max_delay_ms: Option<u16>,
    /// Packets beside the first that may wait for an acknowledgement.
    extra: u32,
    /// A request with this is to be sent, with the next sequence number.
    is_pending: bool,
    sequence: u32,
    /// The next packet asks for an acknowledgement at once.
    immediate_ack_wanted: bool,
}

impl AckFrequency {
    /// The peer takes ACK_FREQUENCY.
    pub(super) fn allow(&mut self, max_delay_ms: u64) {
        self.max_delay_ms = u16::try_from(max_delay_ms).ok();
    }

    /// The congestion window has changed, and holds so many packets now.
    #[inline]
    pub(super) fn on_window(&mut self, packets: u64) {
        if self.max_delay_ms.is_none() {
            return;
        }
        let share = packets / SHARE;
        let extra = if share < SHARE_MIN {
            0
        } else {
            share.min(SHARE_MAX) as u32 - 1
        };
        // Not each change is worth a frame.
        if extra > 2 * self.extra || (extra < self.extra && extra <= self.extra / 2) {
            self.extra = extra;
            self.is_pending = true;
        }
    }

    /// The peer may hold back more than is usual.
    #[inline]
    pub(super) fn is_relaxed(&self) -> bool {
        self.extra > 0
    }

    /// The next packet asks for an acknowledgement at once, if the peer would not send one anyway.
    pub(super) fn request_immediate_ack(&mut self) {
        self.immediate_ack_wanted = self.is_relaxed();
    }

    /// A frame is to be sent.
    #[inline]
    pub(super) fn has_frames(&self) -> bool {
        self.is_pending || self.immediate_ack_wanted
    }

    /// Writes what is to be sent, and gives the sequence number of a request.
    pub(super) fn write(&mut self, w: &mut Writer<'_>) -> Option<u64> {
        if self.immediate_ack_wanted && w.remaining() > 0 {
            self.immediate_ack_wanted = false;
            write_immediate_ack(w);
        }
        let request = self.request();
        if !self.is_pending || w.remaining() < frame::integers_len(ty::ACK_FREQUENCY, &request) {
            return None;
        }
        self.is_pending = false;
        self.sequence += 1;
        frame::encode_integers(w, ty::ACK_FREQUENCY, &request);
        Some(request[0])
    }

    fn request(&self) -> [u64; 4] {
        let micros = u64::from(self.max_delay_ms.unwrap_or_default()) * 1000;
        [
            u64::from(self.sequence),
            u64::from(self.extra) + 1,
            micros,
            PACKET_THRESHOLD,
        ]
    }

    /// A request was lost: the last one is repeated, with another sequence number.
    pub(super) fn on_lost(&mut self, sequence: u64) {
        self.is_pending |= sequence + 1 == u64::from(self.sequence);
    }
}

/// Writes IMMEDIATE_ACK.
pub(super) fn write_immediate_ack(w: &mut Writer<'_>) {
    frame::encode_integers(w, ty::IMMEDIATE_ACK, &[]);
}

/// Acknowledgements for each congestion window...
const SHARE: u64 = 8;
/// ...and how many packets may wait for each: at least so many, or it is not worth a request, and at most, as more save hardly anything.
const SHARE_MIN: u64 = 8;
const SHARE_MAX: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{Frame, FrameReader};

    fn allowed() -> AckFrequency {
        let mut frequency = AckFrequency::default();
        frequency.allow(25);
        frequency
    }

    /// The threshold and the sequence number of the request that is due, if one is.
    fn requested(frequency: &mut AckFrequency) -> Option<(u64, u64)> {
        let mut buf = [0; 32];
        let mut w = Writer::new(&mut buf);
        let sequence = frequency.write(&mut w);
        let Some(Ok(Frame::AckFrequency(request))) = FrameReader::new(w.into_written()).next_frame() else {
            assert_eq!(sequence, None);
            return None;
        };
        assert_eq!(sequence, Some(request.sequence));
        assert_eq!((request.max_delay_us, request.reordering), (25_000, 3));
        Some((request.threshold, request.sequence))
    }

    #[test]
    fn requests_follow_the_window_in_steps_and_stay_away_where_the_peer_does_not_let_itself_be_asked() {
        let mut frequency = allowed();
        let mut asked = Vec::new();
        for packets in (10..2000).chain((5..2000).rev()) {
            frequency.on_window(packets);
            asked.extend(requested(&mut frequency).map(|(threshold, _)| threshold));
        }
        assert_eq!(asked, [8, 16, 32, 64, 128, 64, 32, 16, 8, 1]);
        let mut silent = AckFrequency::default();
        silent.on_window(1000);
        silent.request_immediate_ack();
        assert!(!silent.has_frames() && !silent.is_relaxed());
    }

    #[test]
    fn last_request_is_repeated_when_it_is_lost_and_older_ones_are_not() {
        let mut frequency = allowed();
        frequency.on_window(100);
        assert_eq!(requested(&mut frequency), Some((12, 0)));
        frequency.on_window(2000);
        assert_eq!(requested(&mut frequency), Some((128, 1)));
        frequency.on_lost(0);
        assert_eq!(requested(&mut frequency), None);
        frequency.on_lost(1);
        assert_eq!(requested(&mut frequency), Some((128, 2)));
    }

    #[test]
    fn acknowledgement_at_once_is_asked_for_only_where_the_peer_may_hold_many_back() {
        let mut frequency = allowed();
        frequency.request_immediate_ack();
        assert!(!frequency.has_frames());
        frequency.on_window(1000);
        requested(&mut frequency);
        frequency.request_immediate_ack();
        let mut buf = [0; 4];
        let mut w = Writer::new(&mut buf);
        frequency.write(&mut w);
        assert_eq!(
            FrameReader::new(w.into_written()).next_frame(),
            Some(Ok(Frame::ImmediateAck))
        );
        assert!(!frequency.has_frames());
    }
}
