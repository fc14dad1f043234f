//! The transport parameters of a server that a client keeps to in 0-RTT, and that the server must not reduce then (RFC 9000 section 7.4.1,
//! RFC 9221 section 3).

use super::transport_parameters::TransportParameters;

/// Limits that a server has given a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EarlyLimits {
    active_connection_id_limit: u64,
    initial_max_data: u64,
    initial_max_stream_data_bidi_local: u64,
    initial_max_stream_data_bidi_remote: u64,
    initial_max_stream_data_uni: u64,
    initial_max_streams_bidi: u64,
    initial_max_streams_uni: u64,
    max_datagram_frame_size: u64,
}

impl EarlyLimits {
    /// Those of these parameters.
    pub fn of(params: &TransportParameters) -> Self {
        EarlyLimits {
            active_connection_id_limit: params.active_connection_id_limit,
            initial_max_data: params.initial_max_data,
            initial_max_stream_data_bidi_local: params.initial_max_stream_data_bidi_local,
            initial_max_stream_data_bidi_remote: params.initial_max_stream_data_bidi_remote,
            initial_max_stream_data_uni: params.initial_max_stream_data_uni,
            initial_max_streams_bidi: params.initial_max_streams_bidi,
            initial_max_streams_uni: params.initial_max_streams_uni,
            max_datagram_frame_size: params.max_datagram_frame_size,
        }
    }

    /// None of them is smaller than in `remembered`.
    pub fn cover(&self, remembered: &EarlyLimits) -> bool {
        self.values()
            .into_iter()
            .zip(remembered.values())
            .all(|(now, then)| now >= then)
    }

    pub(crate) const COUNT: usize = 8;

    /// All of them, in an order of our own.
    pub(crate) fn values(&self) -> [u64; Self::COUNT] {
        [
            self.active_connection_id_limit,
            self.initial_max_data,
            self.initial_max_stream_data_bidi_local,
            self.initial_max_stream_data_bidi_remote,
            self.initial_max_stream_data_uni,
            self.initial_max_streams_bidi,
            self.initial_max_streams_uni,
            self.max_datagram_frame_size,
        ]
    }

    /// The same back.
    pub(crate) fn from_values(values: [u64; Self::COUNT]) -> Self {
        let [
            active_connection_id_limit,
            initial_max_data,
            initial_max_stream_data_bidi_local,
            initial_max_stream_data_bidi_remote,
            initial_max_stream_data_uni,
            initial_max_streams_bidi,
            initial_max_streams_uni,
            max_datagram_frame_size,
        ] = values;
        EarlyLimits {
            active_connection_id_limit,
            initial_max_data,
            initial_max_stream_data_bidi_local,
            initial_max_stream_data_bidi_remote,
            initial_max_stream_data_uni,
            initial_max_streams_bidi,
            initial_max_streams_uni,
            max_datagram_frame_size,
        }
    }
}
