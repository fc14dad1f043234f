//! Transport parameters (RFC 9000 section 18; RFC 9368 section 3; draft-ietf-quic-ack-frequency section 3).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use rand::{Rng, RngExt};

use super::Side;
use super::cid::{ConnectionId, ResetToken};
use super::error::{TransportError, TransportErrorCode};
use super::frame::STREAMS_MAX;
use super::version_information::{self, VersionInformation};
use crate::base::coding::{Reader, UnexpectedEnd, Writer};
use crate::base::varint::varint_len;

/// What an endpoint declares about itself during the handshake. Defaults are what holds when a parameter is absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransportParameters {
    /// The client's first destination connection ID (server only).
    pub original_destination_connection_id: Option<ConnectionId>,
    /// Idle timeout in milliseconds; 0: none.
    pub max_idle_timeout_ms: u64,
    /// Reset token of the connection ID used in the handshake (server only).
    pub stateless_reset_token: Option<ResetToken>,
    /// The largest UDP payload the endpoint takes.
    pub max_udp_payload_size: u64,
    /// Connection flow control: initial limit.
    pub initial_max_data: u64,
    /// Flow control of bidirectional streams that the declaring endpoint opens.
    pub initial_max_stream_data_bidi_local: u64,
    /// Flow control of bidirectional streams that its peer opens.
    pub initial_max_stream_data_bidi_remote: u64,
    /// Flow control of unidirectional streams.
    pub initial_max_stream_data_uni: u64,
    /// Bidirectional streams the peer may open.
    pub initial_max_streams_bidi: u64,
    /// Unidirectional streams the peer may open.
    pub initial_max_streams_uni: u64,
    /// ACK Delay is in units of 2^this microseconds.
    pub ack_delay_exponent: u8,
    /// The longest delay of an acknowledgement in milliseconds.
    pub max_ack_delay_ms: u64,
    /// The peer must not change its address (but for NAT rebinding).
    pub disable_active_migration: bool,
    /// Where the server would rather be reached (server only).
    pub preferred_address: Option<PreferredAddress>,
    /// Connection IDs of the peer that the endpoint keeps.
    pub active_connection_id_limit: u64,
    /// Source connection ID of the endpoint's first packet.
    pub initial_source_connection_id: Option<ConnectionId>,
    /// Source connection ID of the Retry packet (server only).
    pub retry_source_connection_id: Option<ConnectionId>,
    /// The largest DATAGRAM frame taken, 0: none (RFC 9221).
    pub max_datagram_frame_size: u64,
    /// The QUIC bit may be random (RFC 9287).
    pub grease_quic_bit: bool,
    /// The least ACK delay that ACK_FREQUENCY may ask the endpoint for, in microseconds. `None`: it takes no such frames.
    pub min_ack_delay_us: Option<u64>,
    /// Versions chosen and available (RFC 9368).
    pub version_information: Option<VersionInformation>,
}

/// A server's preferred address (RFC 9000 section 18.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PreferredAddress {
    /// IPv4 address and port; all zero: none.
    pub v4: SocketAddrV4,
    /// IPv6 address and port; all zero: none.
    pub v6: SocketAddrV6,
    /// The connection ID to use there.
    pub cid: ConnectionId,
    /// Its reset token.
    pub reset_token: ResetToken,
}

impl Default for TransportParameters {
    fn default() -> Self {
        TransportParameters {
            original_destination_connection_id: None,
            max_idle_timeout_ms: 0,
            stateless_reset_token: None,
            max_udp_payload_size: 65527,
            initial_max_data: 0,
            initial_max_stream_data_bidi_local: 0,
            initial_max_stream_data_bidi_remote: 0,
            initial_max_stream_data_uni: 0,
            initial_max_streams_bidi: 0,
            initial_max_streams_uni: 0,
            ack_delay_exponent: 3,
            max_ack_delay_ms: 25,
            disable_active_migration: false,
            preferred_address: None,
            active_connection_id_limit: 2,
            initial_source_connection_id: None,
            retry_source_connection_id: None,
            max_datagram_frame_size: 0,
            grease_quic_bit: false,
            min_ack_delay_us: None,
            version_information: None,
        }
    }
}

mod id {
    pub(super) const ORIGINAL_DCID: u64 = 0x00;
    pub(super) const MAX_IDLE_TIMEOUT: u64 = 0x01;
    pub(super) const RESET_TOKEN: u64 = 0x02;
    pub(super) const MAX_UDP_PAYLOAD: u64 = 0x03;
    pub(super) const MAX_DATA: u64 = 0x04;
    pub(super) const MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
    pub(super) const MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
    pub(super) const MAX_STREAM_DATA_UNI: u64 = 0x07;
    pub(super) const MAX_STREAMS_BIDI: u64 = 0x08;
    pub(super) const MAX_STREAMS_UNI: u64 = 0x09;
    pub(super) const ACK_DELAY_EXPONENT: u64 = 0x0a;
    pub(super) const MAX_ACK_DELAY: u64 = 0x0b;
    pub(super) const DISABLE_MIGRATION: u64 = 0x0c;
    pub(super) const PREFERRED_ADDRESS: u64 = 0x0d;
    pub(super) const CID_LIMIT: u64 = 0x0e;
    pub(super) const INITIAL_SCID: u64 = 0x0f;
    pub(super) const RETRY_SCID: u64 = 0x10;
    pub(super) const VERSION_INFORMATION: u64 = super::version_information::ID;
    pub(super) const MAX_DATAGRAM: u64 = 0x20;
    pub(super) const GREASE_QUIC_BIT: u64 = 0x2ab2;
    pub(super) const MIN_ACK_DELAY: u64 = 0xff04_de1b;
    /// One more than the highest index in the bitmap of parameters seen.
    pub(super) const KNOWN: [u64; 21] = [
        ORIGINAL_DCID,
        MAX_IDLE_TIMEOUT,
        RESET_TOKEN,
        MAX_UDP_PAYLOAD,
        MAX_DATA,
        MAX_STREAM_DATA_BIDI_LOCAL,
        MAX_STREAM_DATA_BIDI_REMOTE,
        MAX_STREAM_DATA_UNI,
        MAX_STREAMS_BIDI,
        MAX_STREAMS_UNI,
        ACK_DELAY_EXPONENT,
        MAX_ACK_DELAY,
        DISABLE_MIGRATION,
        PREFERRED_ADDRESS,
        CID_LIMIT,
        INITIAL_SCID,
        RETRY_SCID,
        MAX_DATAGRAM,
        GREASE_QUIC_BIT,
        MIN_ACK_DELAY,
        VERSION_INFORMATION,
    ];
}

impl TransportParameters {
    /// Appends the parameters that differ from their defaults, and a reserved one that peers must ignore (RFC 9000 section 18.1).
    pub fn encode(&self, out: &mut Vec<u8>, rng: &mut impl Rng) {
        let default = TransportParameters::default();
        let mut put = |id: u64, value: &[u8]| {
            let mut buf = [0; 16];
            let mut writer = Writer::new(&mut buf);
            writer.varint(id);
            writer.varint(value.len() as u64);
            out.extend_from_slice(writer.into_written());
            out.extend_from_slice(value);
        };
        let grease = 31 * rng.random_range(0..1u64 << 32) + 27;
        put(grease, &rng.random::<[u8; 8]>()[..rng.random_range(0..=8)]);
        let integers = [
            (
                id::MAX_IDLE_TIMEOUT,
                self.max_idle_timeout_ms,
                default.max_idle_timeout_ms,
            ),
            (
                id::MAX_UDP_PAYLOAD,
                self.max_udp_payload_size,
                default.max_udp_payload_size,
            ),
            (id::MAX_DATA, self.initial_max_data, 0),
            (
                id::MAX_STREAM_DATA_BIDI_LOCAL,
                self.initial_max_stream_data_bidi_local,
                0,
            ),
            (
                id::MAX_STREAM_DATA_BIDI_REMOTE,
                self.initial_max_stream_data_bidi_remote,
                0,
            ),
            (id::MAX_STREAM_DATA_UNI, self.initial_max_stream_data_uni, 0),
            (id::MAX_STREAMS_BIDI, self.initial_max_streams_bidi, 0),
            (id::MAX_STREAMS_UNI, self.initial_max_streams_uni, 0),
            (
                id::ACK_DELAY_EXPONENT,
                u64::from(self.ack_delay_exponent),
                u64::from(default.ack_delay_exponent),
            ),
            (id::MAX_ACK_DELAY, self.max_ack_delay_ms, default.max_ack_delay_ms),
            (
                id::CID_LIMIT,
                self.active_connection_id_limit,
                default.active_connection_id_limit,
            ),
            (id::MAX_DATAGRAM, self.max_datagram_frame_size, 0),
        ];
        let integers = integers
            .into_iter()
            .filter(|(_, value, default)| value != default)
            .map(|(id, value, _)| (id, value));
        for (id, value) in integers.chain(self.min_ack_delay_us.map(|delay| (id::MIN_ACK_DELAY, delay))) {
            let mut buf = [0; 8];
            let mut writer = Writer::new(&mut buf);
            writer.varint(value);
            put(id, writer.into_written());
        }
        let cids = [
            (id::ORIGINAL_DCID, self.original_destination_connection_id),
            (id::INITIAL_SCID, self.initial_source_connection_id),
            (id::RETRY_SCID, self.retry_source_connection_id),
        ];
        for (id, cid) in cids {
            if let Some(cid) = cid {
                put(id, cid.as_bytes());
            }
        }
        if let Some(token) = self.stateless_reset_token {
            put(id::RESET_TOKEN, &token.0);
        }
        for (id, set) in [
            (id::DISABLE_MIGRATION, self.disable_active_migration),
            (id::GREASE_QUIC_BIT, self.grease_quic_bit),
        ] {
            if set {
                put(id, &[]);
            }
        }
        if let Some(information) = &self.version_information {
            put(id::VERSION_INFORMATION, &information.encode());
        }
        if let Some(address) = &self.preferred_address {
            let mut buf = [0; 4 + 2 + 16 + 2 + 1 + 20 + 16];
            let mut writer = Writer::new(&mut buf);
            writer.bytes(&address.v4.ip().octets());
            writer.u16(address.v4.port());
            writer.bytes(&address.v6.ip().octets());
            writer.u16(address.v6.port());
            writer.u8(address.cid.len() as u8);
            writer.bytes(address.cid.as_bytes());
            writer.bytes(&address.reset_token.0);
            put(id::PREFERRED_ADDRESS, writer.into_written());
        }
    }

    /// Reads what `sender` declared, and checks each value against RFC 9000 section 18.2.
    pub fn decode(bytes: &[u8], sender: Side) -> Result<Self, TransportError> {
        let mut params = TransportParameters::default();
        let mut seen = 0u32;
        let mut unknown = Vec::new();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let id = reader.varint().map_err(truncated)?;
            let value = reader.varint_bytes().map_err(truncated)?;
            let Some(index) = id::KNOWN.iter().position(|known| *known == id) else {
                unknown.push(id);
                continue;
            };
            if seen & 1 << index != 0 {
                return Err(error("transport parameter given twice"));
            }
            seen |= 1 << index;
            params.set(id, value, sender)?;
        }
        // Those that we do not know too (section 7.4).
        unknown.sort_unstable();
        if unknown.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(error("transport parameter given twice"));
        }
        if params
            .min_ack_delay_us
            .is_some_and(|delay| delay > params.max_ack_delay_ms * 1000)
        {
            return Err(error("min_ack_delay above max_ack_delay"));
        }
        Ok(params)
    }

    fn set(&mut self, id: u64, value: &[u8], sender: Side) -> Result<(), TransportError> {
        let server_only = [
            id::ORIGINAL_DCID,
            id::RESET_TOKEN,
            id::PREFERRED_ADDRESS,
            id::RETRY_SCID,
        ];
        if sender.is_client() && server_only.contains(&id) {
            return Err(error("server's transport parameter from a client"));
        }
        match id {
            id::ORIGINAL_DCID => self.original_destination_connection_id = Some(cid(value)?),
            id::INITIAL_SCID => self.initial_source_connection_id = Some(cid(value)?),
            id::RETRY_SCID => self.retry_source_connection_id = Some(cid(value)?),
            id::RESET_TOKEN => {
                let token = value
                    .try_into()
                    .map_err(|_| error("stateless_reset_token not of 16 bytes"))?;
                self.stateless_reset_token = Some(ResetToken(token));
            }
            id::PREFERRED_ADDRESS => self.preferred_address = Some(preferred_address(value)?),
            id::VERSION_INFORMATION => {
                self.version_information = Some(VersionInformation::decode(value, sender).map_err(error)?);
            }
            id::DISABLE_MIGRATION => self.disable_active_migration = flag(value)?,
            id::GREASE_QUIC_BIT => self.grease_quic_bit = flag(value)?,
            id::MAX_IDLE_TIMEOUT => self.max_idle_timeout_ms = integer(value)?,
            id::MAX_UDP_PAYLOAD => {
                self.max_udp_payload_size =
                    within(value, 1200..=u64::MAX, "max_udp_payload_size below 1200")?;
            }
            id::MAX_DATA => self.initial_max_data = integer(value)?,
            id::MAX_STREAM_DATA_BIDI_LOCAL => self.initial_max_stream_data_bidi_local = integer(value)?,
            id::MAX_STREAM_DATA_BIDI_REMOTE => self.initial_max_stream_data_bidi_remote = integer(value)?,
            id::MAX_STREAM_DATA_UNI => self.initial_max_stream_data_uni = integer(value)?,
            id::MAX_STREAMS_BIDI => {
                self.initial_max_streams_bidi =
                    within(value, 0..=STREAMS_MAX, "initial_max_streams_bidi above 2^60")?;
            }
            id::MAX_STREAMS_UNI => {
                self.initial_max_streams_uni =
                    within(value, 0..=STREAMS_MAX, "initial_max_streams_uni above 2^60")?;
            }
            id::ACK_DELAY_EXPONENT => {
                self.ack_delay_exponent = within(value, 0..=20, "ack_delay_exponent above 20")? as u8;
            }
            id::MAX_ACK_DELAY => {
                self.max_ack_delay_ms = within(value, 0..=(1 << 14) - 1, "max_ack_delay of 2^14 ms or more")?;
            }
            id::CID_LIMIT => {
                self.active_connection_id_limit =
                    within(value, 2..=u64::MAX, "active_connection_id_limit below 2")?;
            }
            id::MAX_DATAGRAM => self.max_datagram_frame_size = integer(value)?,
            id::MIN_ACK_DELAY => self.min_ack_delay_us = Some(integer(value)?),
            _ => {}
        }
        Ok(())
    }
}

fn error(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::TRANSPORT_PARAMETER_ERROR, reason)
}

fn truncated(_: UnexpectedEnd) -> TransportError {
    error("truncated transport parameters")
}

fn integer(value: &[u8]) -> Result<u64, TransportError> {
    let mut reader = Reader::new(value);
    let number = reader.varint().map_err(truncated)?;
    if varint_len_on_wire(value) != value.len() {
        return Err(error("bytes behind the value of a transport parameter"));
    }
    Ok(number)
}

/// The length that the first byte of a variable-length integer announces.
fn varint_len_on_wire(value: &[u8]) -> usize {
    value.first().map_or(0, |first| 1 << (first >> 6))
}

fn within(
    value: &[u8],
    range: std::ops::RangeInclusive<u64>,
    reason: &'static str,
) -> Result<u64, TransportError> {
    let number = integer(value)?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(error(reason))
    }
}

fn flag(value: &[u8]) -> Result<bool, TransportError> {
    if value.is_empty() {
        Ok(true)
    } else {
        Err(error("value in a transport parameter that has none"))
    }
}

fn cid(value: &[u8]) -> Result<ConnectionId, TransportError> {
    ConnectionId::new(value).ok_or_else(|| error("connection ID of more than 20 bytes"))
}

fn preferred_address(value: &[u8]) -> Result<PreferredAddress, TransportError> {
    let mut r = Reader::new(value);
    let mut read = || {
        let v4 = SocketAddrV4::new(Ipv4Addr::from(r.array::<4>()?), r.u16()?);
        let v6 = SocketAddrV6::new(Ipv6Addr::from(r.array::<16>()?), r.u16()?, 0, 0);
        let len = usize::from(r.u8()?);
        let cid = r.bytes(len)?;
        let reset_token = ResetToken(r.array()?);
        Ok((v4, v6, cid, reset_token, r.is_empty()))
    };
    let (v4, v6, bytes, reset_token, complete) = read().map_err(truncated)?;
    // RFC 9000 section 18.2: a zero-length connection ID is an error.
    if bytes.is_empty() || !complete {
        return Err(error("malformed preferred_address"));
    }
    Ok(PreferredAddress {
        v4,
        v6,
        cid: cid(bytes)?,
        reset_token,
    })
}

// The encoder's scratch of 16 bytes holds an identifier and a length.
const _: () = assert!(varint_len(crate::base::varint::VARINT_MAX) * 2 <= 16);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn full() -> TransportParameters {
        let cid = ConnectionId::new(&[1, 2, 3, 4]).unwrap();
        TransportParameters {
            original_destination_connection_id: Some(cid),
            max_idle_timeout_ms: 30_000,
            stateless_reset_token: Some(ResetToken([5; 16])),
            max_udp_payload_size: 1472,
            initial_max_data: 1 << 24,
            initial_max_stream_data_bidi_local: 1 << 16,
            initial_max_stream_data_bidi_remote: 1 << 17,
            initial_max_stream_data_uni: 1 << 18,
            initial_max_streams_bidi: 100,
            initial_max_streams_uni: STREAMS_MAX,
            ack_delay_exponent: 20,
            max_ack_delay_ms: 16383,
            disable_active_migration: true,
            preferred_address: Some(PreferredAddress {
                v4: "1.2.3.4:5".parse().unwrap(),
                v6: "[::1]:6".parse().unwrap(),
                cid,
                reset_token: ResetToken([6; 16]),
            }),
            active_connection_id_limit: 8,
            initial_source_connection_id: Some(ConnectionId::default()),
            retry_source_connection_id: Some(cid),
            max_datagram_frame_size: 65535,
            grease_quic_bit: true,
            min_ack_delay_us: Some(16_383_000),
            version_information: Some(VersionInformation {
                chosen: 1,
                available: vec![0x6b33_43cf, 1, 0x1a2a_3a4a],
            }),
        }
    }

    fn encode(params: &TransportParameters) -> Vec<u8> {
        let mut bytes = Vec::new();
        params.encode(&mut bytes, &mut StdRng::seed_from_u64(7));
        bytes
    }

    #[test]
    fn parameter_given_twice_is_an_error_whether_we_know_it_or_not() {
        for id in [id::MAX_DATA, 0x1234] {
            let mut bytes = [0; 32];
            let mut w = Writer::new(&mut bytes);
            for id in [id, 0x2345, id] {
                w.varint(id);
                w.varint(1);
                w.varint(5);
            }
            let error = TransportParameters::decode(w.into_written(), Side::Client).unwrap_err();
            assert_eq!(
                error.code,
                TransportErrorCode::TRANSPORT_PARAMETER_ERROR,
                "{id:x}"
            );
        }
    }

    #[test]
    fn parameters_round_trip() {
        for params in [full(), TransportParameters::default()] {
            assert_eq!(
                TransportParameters::decode(&encode(&params), Side::Server).unwrap(),
                params
            );
        }
    }

    #[test]
    fn parameter_given_twice_is_an_error() {
        let mut bytes = encode(&full());
        bytes.extend([0x04, 0x01, 0x05]);
        assert!(TransportParameters::decode(&bytes, Side::Server).is_err());
    }

    #[test]
    fn server_parameters_from_a_client_are_an_error() {
        for bytes in [
            &[0x00, 0x00][..],
            &[0x10, 0x00],
            &[&[0x02, 0x10][..], &[0; 16]].concat(),
        ] {
            assert!(TransportParameters::decode(bytes, Side::Server).is_ok());
            assert!(TransportParameters::decode(bytes, Side::Client).is_err());
        }
    }

    /// RUSTSEC-2026-0037: a length that promises more than the value has must not panic.
    #[test]
    fn truncated_integers_in_parameters_are_an_error() {
        for id in id::KNOWN.iter().filter(|id| **id < 0x40) {
            for value in [&[0x40][..], &[0x80, 0, 0], &[0xc0, 0, 0, 0, 0, 0, 0], &[]] {
                let mut bytes = vec![*id as u8, value.len() as u8];
                bytes.extend(value);
                let empty_allowed = [
                    id::ORIGINAL_DCID,
                    id::DISABLE_MIGRATION,
                    id::INITIAL_SCID,
                    id::RETRY_SCID,
                ];
                let is_cid = [id::ORIGINAL_DCID, id::INITIAL_SCID, id::RETRY_SCID].contains(id);
                let valid = is_cid || (value.is_empty() && empty_allowed.contains(id));
                assert_eq!(
                    TransportParameters::decode(&bytes, Side::Server).is_ok(),
                    valid,
                    "{bytes:x?}"
                );
            }
        }
    }

    #[test]
    fn values_outside_their_range_are_errors() {
        let cases: [&[u8]; 10] = [
            &[0x03, 2, 0x44, 0xaf],
            &[0x0a, 1, 21],
            &[0x0b, 4, 0x80, 0, 0x40, 0],
            &[0x0e, 1, 1],
            &[0x08, 8, 0xd0, 0, 0, 0, 0, 0, 0, 1],
            &[0x04, 2, 0x05, 0x05],
            &[0x11, 0],
            &[0x11, 5, 0, 0, 0, 1, 0],
            &[0x11, 8, 0, 0, 0, 1, 0, 0, 0, 0],
            // min_ack_delay of 25,001 us where max_ack_delay is the default, 25 ms.
            &[0xc0, 0, 0, 0, 0xff, 0x04, 0xde, 0x1b, 4, 0x80, 0, 0x61, 0xa9],
        ];
        for bytes in cases {
            let error = TransportParameters::decode(bytes, Side::Server).unwrap_err();
            assert_eq!(
                error.code,
                TransportErrorCode::TRANSPORT_PARAMETER_ERROR,
                "{bytes:x?}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(params) = TransportParameters::decode(&bytes, Side::Server) {
                prop_assert_eq!(TransportParameters::decode(&encode(&params), Side::Server).unwrap(), params);
            }
        }

        #[test]
        fn mutated_parameters_never_panic(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = encode(&full());
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = TransportParameters::decode(&bytes, Side::Server);
        }
    }
}
