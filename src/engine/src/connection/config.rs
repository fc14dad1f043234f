//! What a connection may do, in the engine's terms.

use std::time::Duration;

use crate::congestion::{Algorithm, Controller};
use crate::path::mtu::{BASE_PLPMTU, MtuDiscovery, PROBES_MAX, RAISE_TIMER};
use crate::streams::StreamsConfig;
use crate::wire::Version;
use crate::wire::transport_parameters::TransportParameters;

/// What a connection may use, hold and offer. The API checks the ranges (`Settings`).
#[derive(Clone, Debug)]
pub struct Config {
    /// Version that a client starts with.
    pub version: Version,
    /// Client: versions in which the connection may go on, most preferred first, `version` among them. `None`: that one first, then the others.
    pub offered_versions: Option<Vec<Version>>,
    /// Server: versions that it takes, most preferred first. `None`: all, in the client's order of preference.
    pub accepted_versions: Option<Vec<Version>>,
    /// Server: versions that every server of the deployment takes. `None`: those that this one takes.
    pub fully_deployed_versions: Option<Vec<Version>>,
    /// Packets sealed with one key before a key update is started.
    pub packets_per_key: u64,
    /// Silence after which a handshake is given up.
    pub handshake_idle_timeout: Duration,
    /// Time after which a handshake is given up, whatever the peer sends.
    pub handshake_timeout: Duration,
    /// Silence after which a connection is given up; zero: never.
    pub idle_timeout: Duration,
    /// Time without an acknowledgement of anything outstanding after which the peer counts as gone.
    pub disconnect_timeout: Duration,
    /// A PING goes out after this much silence; zero: never.
    pub keep_alive_interval: Duration,
    /// Stream limits and flow control windows.
    pub streams: StreamsConfig,
    /// Congestion controller.
    pub congestion_control: Algorithm,
    /// Initial congestion window in full packets.
    pub initial_window_packets: u32,
    /// The congestion window goes back to its initial size after sending nothing for this long; zero: never.
    pub send_idle_timeout: Duration,
    /// Round trip time assumed before the first sample.
    pub initial_rtt: Duration,
    /// The longest that acknowledgements are held back.
    pub max_ack_delay: Duration,
    /// How long after the handshake a client takes tickets, and keeps the TLS session that it needs for them.
    pub ticket_wait: Duration,
    /// Packets are spread over the round trip time.
    pub pacing: bool,
    /// UDP payload of the first full-size packets.
    pub initial_datagram_size: u16,
    /// The largest UDP payload to try.
    pub maximum_datagram_size: u16,
    /// The peer may change its address.
    pub migration: bool,
    /// The caller may move it to the partition where RSS takes its packets.
    pub follow_rss: bool,
    /// The peer may send DATAGRAM frames.
    pub datagram_receive: bool,
    /// Packets are marked ECT(0).
    pub ecn: bool,
    /// The QUIC bit is random where the peer allows it (RFC 9287).
    pub grease_quic_bit: bool,
    /// The first slow start ends when round trips get longer (RFC 9406).
    pub hystart: bool,
    /// Probes of one size that may be lost before a path counts as too narrow for it.
    pub mtu_probes: u8,
    /// Time from one search for larger packets to the next.
    pub mtu_search_interval: Duration,
    /// After sending nothing for this long, another connection ID of the peer is used; zero: not for that.
    pub remote_cid_idle: Duration,
    /// Acknowledgements bring [`Event::NetworkStatistics`](super::events::Event::NetworkStatistics).
    pub network_statistics: bool,
    /// Differentiated services codepoint of all packets, 0 to 63.
    pub dscp: u8,
}

impl Default for Config {
    /// What holds on a server until the application has accepted a client and said more: the peer may open and send nothing.
    fn default() -> Self {
        Config {
            version: Version::V1,
            offered_versions: None,
            accepted_versions: None,
            fully_deployed_versions: None,
            packets_per_key: u64::MAX,
            handshake_idle_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(30),
            disconnect_timeout: Duration::from_secs(16),
            keep_alive_interval: Duration::ZERO,
            streams: StreamsConfig::default(),
            congestion_control: Algorithm::Cubic,
            initial_window_packets: 10,
            send_idle_timeout: Duration::from_secs(1),
            initial_rtt: Duration::from_millis(333),
            max_ack_delay: Duration::from_millis(25),
            ticket_wait: Duration::from_secs(5),
            pacing: true,
            initial_datagram_size: BASE_PLPMTU,
            maximum_datagram_size: BASE_PLPMTU,
            migration: true,
            follow_rss: true,
            datagram_receive: false,
            ecn: false,
            grease_quic_bit: false,
            hystart: false,
            mtu_probes: PROBES_MAX,
            mtu_search_interval: RAISE_TIMER,
            remote_cid_idle: Duration::from_secs(20),
            network_statistics: false,
            dscp: 0,
        }
    }
}

impl Config {
    /// The least delay of acknowledgements that a peer may ask for.
    pub(super) fn min_ack_delay(&self) -> Duration {
        MIN_ACK_DELAY.min(self.max_ack_delay)
    }

    /// The search for larger packets on a path.
    pub(super) fn mtu_discovery(&self, ipv6: bool) -> MtuDiscovery {
        MtuDiscovery::new(self.initial_datagram_size, self.maximum_datagram_size, ipv6)
            .with_search(self.mtu_probes, self.mtu_search_interval)
    }

    /// The controller of a path with packets of `mtu` bytes.
    pub(super) fn controller(&self, mtu: u16) -> Controller {
        Controller::new(self.congestion_control, mtu.into(), self.initial_window_packets)
            .with_hystart(self.hystart, self.pacing)
    }

    /// The transport parameters that say this to the peer. Connection IDs are added by the connection.
    pub(super) fn transport_parameters(&self) -> TransportParameters {
        let streams = &self.streams;
        TransportParameters {
            max_idle_timeout_ms: self.idle_timeout.as_millis() as u64,
            initial_max_data: streams.connection_window,
            initial_max_stream_data_bidi_local: streams.window_bidi_local,
            initial_max_stream_data_bidi_remote: streams.window_bidi_remote,
            initial_max_stream_data_uni: streams.window_uni,
            initial_max_streams_bidi: streams.peer_streams[0],
            initial_max_streams_uni: streams.peer_streams[1],
            max_ack_delay_ms: self.max_ack_delay.as_millis() as u64,
            disable_active_migration: !self.migration,
            active_connection_id_limit: super::cids::REMOTE_CIDS_MAX as u64,
            max_datagram_frame_size: if self.datagram_receive {
                u64::from(u16::MAX)
            } else {
                0
            },
            grease_quic_bit: self.grease_quic_bit,
            min_ack_delay_us: Some(self.min_ack_delay().as_micros() as u64),
            ..TransportParameters::default()
        }
    }
}

/// As exact as timers are at least.
const MIN_ACK_DELAY: Duration = Duration::from_millis(1);
