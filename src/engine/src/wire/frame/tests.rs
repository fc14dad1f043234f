use proptest::prelude::*;

use super::*;
use crate::base::coding::Writer;
use crate::base::varint::VARINT_MAX;
use crate::wire::cid::{ConnectionId, ResetToken};
use crate::wire::error::TransportErrorCode;

fn encoded(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buf = [0; 600];
    let mut writer = Writer::new(&mut buf);
    write(&mut writer);
    writer.into_written().to_vec()
}

/// One of each frame, as bytes.
fn samples() -> Vec<Vec<u8>> {
    let cid = ConnectionId::new(&[7; 8]).unwrap();
    let new_cid = NewConnectionId {
        sequence: 5,
        retire_prior_to: 2,
        cid,
        reset_token: ResetToken([9; 16]),
    };
    let ecn = Some(EcnCounts {
        ect0: 1,
        ect1: 2,
        ce: 70,
    });
    vec![
        encoded(encode_ping),
        encoded(|w| assert!(encode_ack(w, 25, [90..100, 50..60, 3..4].into_iter(), ecn, 100))),
        encoded(|w| encode_integers(w, ty::RESET_STREAM, &[4, 77, 12345])),
        encoded(|w| encode_integers(w, ty::STOP_SENDING, &[4, 77])),
        encoded(|w| encode_crypto(w, 1000, b"hello")),
        encoded(|w| encode_new_token(w, b"token")),
        encoded(|w| {
            encode_stream_header(w, 8, 4000, Some(3), true);
            w.bytes(b"abc");
        }),
        encoded(|w| encode_integers(w, ty::MAX_DATA, &[1 << 40])),
        encoded(|w| encode_integers(w, ty::MAX_STREAM_DATA, &[4, 1 << 20])),
        encoded(|w| encode_integers(w, ty::MAX_STREAMS_UNI, &[100])),
        encoded(|w| encode_integers(w, ty::DATA_BLOCKED, &[100])),
        encoded(|w| encode_integers(w, ty::STREAM_DATA_BLOCKED, &[4, 100])),
        encoded(|w| encode_integers(w, ty::STREAMS_BLOCKED_BIDI, &[100])),
        encoded(|w| encode_new_connection_id(w, &new_cid)),
        encoded(|w| encode_integers(w, ty::RETIRE_CONNECTION_ID, &[3])),
        encoded(|w| encode_path_challenge(w, [1; 8])),
        encoded(|w| encode_path_response(w, [2; 8])),
        encoded(|w| encode_connection_close(w, 10, Some(6), b"why", 100)),
        encoded(|w| encode_connection_close(w, 300, None, b"", 100)),
        encoded(|w| encode_integers(w, ty::HANDSHAKE_DONE, &[])),
        encoded(|w| encode_datagram(w, [&b"data"[..]].into_iter())),
        encoded(|w| encode_integers(w, ty::IMMEDIATE_ACK, &[])),
        encoded(|w| encode_integers(w, ty::ACK_FREQUENCY, &[3, 31, 25_000, 3])),
    ]
}

#[test]
fn every_frame_reads_back_and_no_truncation_of_it_does() {
    for bytes in samples() {
        let mut reader = FrameReader::new(&bytes);
        let frame = reader.next_frame().unwrap().unwrap();
        assert!(reader.next_frame().is_none(), "{frame:?} leaves bytes behind");
        let frame_type = reader.frame_type();
        for len in 1..bytes.len() {
            let error = FrameReader::new(&bytes[..len]).next_frame().unwrap().unwrap_err();
            assert_eq!(
                error.code,
                TransportErrorCode::FRAME_ENCODING_ERROR,
                "{frame:?} cut to {len}"
            );
            let type_len = crate::base::varint::varint_len(frame_type);
            assert_eq!(error.frame_type, if len < type_len { 0 } else { frame_type });
        }
    }
}

#[test]
fn ack_ranges_read_back_in_order() {
    let ranges = [90..100, 50..60, 3..4, 0..1];
    let bytes = encoded(|w| assert!(encode_ack(w, 25, ranges.iter().cloned(), None, 100)));
    let Some(Ok(Frame::Ack(ack))) = FrameReader::new(&bytes).next_frame() else {
        panic!()
    };
    assert_eq!((ack.largest, ack.delay, ack.ecn), (99, 25, None));
    assert!(ack.ranges().eq(ranges));
}

#[test]
fn ack_leaves_out_the_oldest_ranges_when_room_is_short() {
    let ranges = (0..100u64).rev().map(|i| i * 1000..i * 1000 + 10);
    let bytes = encoded(|w| assert!(encode_ack(w, 0, ranges.clone(), None, 40)));
    assert!(bytes.len() <= 40);
    let Some(Ok(Frame::Ack(ack))) = FrameReader::new(&bytes).next_frame() else {
        panic!()
    };
    let read: Vec<_> = ack.ranges().collect();
    assert!(read.len() > 5);
    assert!(ranges.take(read.len()).eq(read));
}

#[test]
fn values_beyond_their_limits_are_encoding_errors() {
    let cases = [
        encoded(|w| encode_integers(w, ty::MAX_STREAMS_BIDI, &[STREAMS_MAX + 1])),
        encoded(|w| encode_integers(w, ty::STREAMS_BLOCKED_UNI, &[STREAMS_MAX + 1])),
        encoded(|w| encode_crypto(w, VARINT_MAX, b"x")),
        encoded(|w| {
            encode_stream_header(w, 0, VARINT_MAX, Some(1), false);
            w.u8(0);
        }),
        // An ACK that reaches below packet number zero, in the first range and in a later one.
        encoded(|w| encode_integers(w, ty::ACK, &[5, 0, 0, 6])),
        encoded(|w| encode_integers(w, ty::ACK, &[5, 0, 1, 0, 4, 0])),
        // Retires more than itself; connection IDs of no and of 21 bytes; an empty token.
        encoded(|w| encode_integers(w, ty::NEW_CONNECTION_ID, &[1, 2, 8])),
        encoded(|w| {
            encode_integers(w, ty::NEW_CONNECTION_ID, &[1, 0, 0]);
            w.zeros(16);
        }),
        encoded(|w| {
            encode_integers(w, ty::NEW_CONNECTION_ID, &[1, 0, 21]);
            w.zeros(37);
        }),
        encoded(|w| encode_new_token(w, b"")),
        encoded(|w| encode_integers(w, 0x3f, &[])),
    ];
    for bytes in cases {
        let error = FrameReader::new(&bytes).next_frame().unwrap().unwrap_err();
        assert_eq!(error.code, TransportErrorCode::FRAME_ENCODING_ERROR, "{bytes:x?}");
    }
    // PING in two bytes.
    let error = FrameReader::new(&[0x40, 0x01]).next_frame().unwrap().unwrap_err();
    assert_eq!(error.code, TransportErrorCode::PROTOCOL_VIOLATION);
}

#[test]
fn frames_are_allowed_where_table_3_of_rfc_9000_allows_them() {
    // I, H, 0, 1 in the order of `samples`; what section 12.5 says cannot be sent in 0-RTT is not taken.
    let table = [
        "IH01", "IH_1", "__01", "__01", "IH_1", "___1", "__01", "__01", "__01", "__01", "__01", "__01",
        "__01", "__01", "___1", "__01", "___1", "IH01", "__01", "___1", "__01", "___1", "___1",
    ];
    let kinds = [
        PacketType::Initial,
        PacketType::Handshake,
        PacketType::ZeroRtt,
        PacketType::OneRtt,
    ];
    for (bytes, row) in samples().iter().zip(table) {
        let frame = FrameReader::new(bytes).next_frame().unwrap().unwrap();
        for (kind, mark) in kinds.into_iter().zip(row.chars()) {
            assert_eq!(frame.is_allowed_in(kind), mark != '_', "{frame:?} in {kind:?}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = FrameReader::new(&bytes);
        while let Some(Ok(frame)) = reader.next_frame() {
            if let Frame::Ack(ack) = frame {
                // A range per two bytes at the most.
                prop_assert!(ack.ranges().count() <= bytes.len());
            }
        }
    }
}
