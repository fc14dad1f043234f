//! The settings of connections, and their defaults.

use std::time::Duration;

use ringway_engine::congestion::Algorithm as CongestionControl;
use ringway_engine::connection::config::Config;
use ringway_engine::crypto::tickets::ResumptionLevel;
use ringway_engine::streams::{Scheduling as StreamScheduling, StreamsConfig};
use ringway_engine::wire::Version;

use super::error::SettingsError;

/// What a connection may use, keep and offer. Any number of connections can share one value.
///
/// Defaults are MsQuic's (`QUIC_SETTINGS`) unless the field says otherwise. To change some of them:
///
/// ```
/// let settings = ringway::Settings { peer_bidi_stream_count: 100, ..ringway::Settings::default() };
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The version that a client starts with: better one that the server certainly speaks (RFC 9368 section 2.5). A server has no use for it.
    /// Default: version 1.
    pub version: Version,
    /// A client's versions, most preferred first, `version` among them (RFC 9368 section 3, Available Versions). The server may go over to
    /// another one of them without a round trip; and where it does not speak `version`, the client starts again with the first of these that it
    /// does. With `version` alone, neither happens. Default: `version`, then all others, so that nothing changes unless the server wants it.
    ///
    /// To get version 2 from servers that have it: `version: Version::V1, offered_versions: Some(vec![Version::V2, Version::V1])`.
    ///
    /// MsQuic: `OfferedVersions`.
    pub offered_versions: Option<Vec<Version>>,
    /// The versions that a server takes, most preferred first (RFC 9368 section 5, Acceptable Versions): a connection goes on in the first of
    /// these that its client offers. A client that has none of them is told these (RFC 9000 section 6), or, if a part of its ClientHello was
    /// acknowledged before the rest came, that none is accepted (`VERSION_NEGOTIATION_ERROR`). Default: all that Ringway speaks, and the client's
    /// order of preference decides.
    ///
    /// A listener has no settings: to a client that starts with a version that Ringway does not speak, it names all that Ringway speaks.
    ///
    /// MsQuic: `AcceptableVersions`.
    pub accepted_versions: Option<Vec<Version>>,
    /// The versions that every server of a deployment takes (RFC 9368 section 5, Fully Deployed Versions): by these, clients see whether a
    /// version negotiation packet was forged. Where several servers change their versions one after the other, a new version is added here when
    /// all take it, and an old one goes from here first. Each must be one that this server takes; there may be none. Default: those that this
    /// server takes.
    ///
    /// MsQuic: `FullyDeployedVersions`.
    pub fully_deployed_versions: Option<Vec<Version>>,
    /// How many bytes are sealed with one key before a key update. Default: 2^38 (256 GiB), which is also the maximum.
    pub max_bytes_per_key: u64,
    /// How long a handshake may be idle before it is abandoned. Default: 10 s.
    pub handshake_idle_timeout: Duration,
    /// How long a handshake may take before it is abandoned, whatever the peer sends. Until a listener has accepted a
    /// client, the default holds. MsQuic has the idle timeout only. Default: 20 s.
    pub handshake_timeout: Duration,
    /// How long a connection may be idle before it is closed (RFC 9000 section 10.1). Zero: for ever. Default:
    /// 30 s. One with data to send that the peer's limits keep back is not idle: the peer is told again (section 4.1), and answers for as long as it
    /// is there.
    pub idle_timeout: Duration,
    /// How long packets may be outstanding without any acknowledgement before the peer counts as gone. Default: 16 s. A probe goes out shortly
    /// before.
    pub disconnect_timeout: Duration,
    /// How long a connection may be silent before it sends a PING. Zero, the default: it sends none.
    pub keep_alive_interval: Duration,
    /// How many bytes the peer may send on a new stream before we consume any. Windows of streams that are read as fast as the peer sends grow,
    /// all together by what the initial windows of all permitted streams leave of `connection_flow_control_window`, or by half of it if they
    /// leave less; those that are read slowly shrink again. At least 1. Default: 64 KiB.
    pub stream_receive_window: u32,
    /// The same for bidirectional streams that we open, if different.
    pub stream_receive_window_bidi_local: Option<u32>,
    /// The same for bidirectional streams that the peer opens, if different.
    pub stream_receive_window_bidi_remote: Option<u32>,
    /// The same for unidirectional streams, if different.
    pub stream_receive_window_uni: Option<u32>,
    /// How many bytes the peer may send on all streams together before we consume any. This bounds what one connection
    /// can make us buffer. If the initial windows of all permitted streams take no more than half of it, no stream waits for another one to be
    /// read. At least 1. Default: 16 MiB.
    pub connection_flow_control_window: u32,
    /// How many bidirectional streams the peer may have open at a time, 2^60 at most (RFC 9000 section 4.6). One that may be open and is not takes no
    /// memory. Default: 0.
    pub peer_bidi_stream_count: u64,
    /// How many unidirectional streams the peer may have open at a time. Default: 0.
    pub peer_uni_stream_count: u64,
    /// The congestion controller. Default: CUBIC.
    pub congestion_control: CongestionControl,
    /// The initial congestion window in full-size packets. Default: 10.
    pub initial_window_packets: u32,
    /// After sending nothing for this long, the congestion window returns to its initial size. Zero: never. Default: 1
    /// s.
    pub send_idle_timeout: Duration,
    /// The round-trip time that is assumed before the first sample. Default: 333 ms.
    pub initial_rtt: Duration,
    /// How long an acknowledgement may be delayed. Default: 25 ms.
    pub max_ack_delay: Duration,
    /// Packets are spread over the round-trip time, if that is at least 1 ms. Default: true.
    pub pacing_enabled: bool,
    /// The UDP payload of the first full-size packets in bytes, 1200 to 65527. Path MTU discovery tries more as soon as the
    /// handshake is confirmed: first what Ethernet carries. Default: 1200, which every path carries (RFC 9000 section 14),
    /// also IPv6 through a tunnel with an MTU of 1280 (WireGuard, 6in4); MsQuic's is 1240.
    pub initial_datagram_size: u16,
    /// The largest UDP payload that path MTU discovery tries; over IPv6, whose header is longer, 20 bytes less. Default:
    /// 1472 (packets of 1500 bytes).
    pub maximum_datagram_size: u16,
    /// How many probes of one size may be lost before path MTU discovery gives that size up (RFC 8899 section 5.1.2, MAX_PROBES). At least 1.
    /// Default: 3. MsQuic: `MtuDiscoveryMissingProbeCount`.
    pub mtu_discovery_probes: u8,
    /// How long after a search path MTU discovery looks again whether the path carries more (RFC 8899 section 5.1.1, PMTU_RAISE_TIMER), 1 s to 40
    /// days. Default: 600 s. MsQuic: `MtuDiscoverySearchCompleteTimeoutUs`.
    pub mtu_discovery_interval: Duration,
    /// The peer may change its address (RFC 9000 section 9). Default: true.
    pub migration_enabled: bool,
    /// An accepted connection moves to the partition where RSS keeps bringing its packets. Default: true.
    pub follow_rss: bool,
    /// The peer may send DATAGRAM frames (RFC 9221). Default: false.
    pub datagram_receive_enabled: bool,
    /// Packets are marked ECT(0), and congestion marks are obeyed, on paths that carry ECN. Default: false.
    pub ecn_enabled: bool,
    /// The QUIC bit is randomised if the peer allows it, and the peer may do the same (RFC 9287). Default: false.
    pub grease_quic_bit_enabled: bool,
    /// The first slow start ends when round trips get longer, before the path's queue overflows: HyStart++ (RFC 9406). Default: false. MsQuic:
    /// `HyStartEnabled`.
    pub hystart_enabled: bool,
    /// After sending nothing for this long, the connection goes over to another connection ID of the peer, so that whoever watches the network does
    /// not see that before and after belong together. Zero: it does not. Default: 20 s. MsQuic: `DestCidUpdateIdleTimeoutMs`.
    pub remote_cid_idle_timeout: Duration,
    /// The handler is told what is known of the network, by [`NetworkStatistics`](crate::ConnectionEvent::NetworkStatistics), when an acknowledgement
    /// has changed it. Default: false. MsQuic: `NetStatsEventEnabled`.
    pub network_statistics_enabled: bool,
    /// Differentiated services codepoint of the packets (RFC 2474), 0 to 63, with which networks that know it forward them. Default: 0. MsQuic:
    /// `QUIC_PARAM_CONN_SEND_DSCP`.
    pub dscp: u8,
    /// What a server lets clients do with the tickets that [`Connection::send_resumption_ticket`](crate::Connection::send_resumption_ticket) gives
    /// them. Default: none.
    pub server_resumption_level: ResumptionLevel,
    /// How many tickets a server can give out on a connection. Each costs 5 µs of the handshake. Default: 1.
    pub tickets_per_connection: u8,
    /// How long a server's tickets serve, seven days at most. Default: one day.
    pub ticket_lifetime: Duration,
    /// A client keeps tickets that servers give it, and resumes sessions with them. Default: true.
    pub client_resumption_enabled: bool,
    /// How long after its handshake a connection of a client takes tickets, eight at most. So long it keeps its TLS session, which takes 6 KB;
    /// tickets that come later are not seen. [`Duration::MAX`]: as long as it lasts. Default: 5 s, in which servers give them that do so of
    /// themselves.
    pub client_ticket_wait: Duration,
    /// How streams of equal priority share the connection. Default: FIFO, as in MsQuic.
    pub stream_scheduling: StreamScheduling,
    /// Bytes on all streams of a connection that are queued or not acknowledged yet, from which on
    /// [`Stream::send`](crate::Stream::send) refuses more ([`CallError::QueueFull`](crate::CallError::QueueFull)); one send may go beyond it. 0: no
    /// limit. Default: 128 MiB.
    pub send_queue_limit: u64,
    /// Data goes on arriving while a handler has not completed what it has got: see [`StreamEvent::Receive`](crate::StreamEvent::Receive).
    /// Default: false. MsQuic: `StreamMultiReceiveEnabled`.
    pub stream_multi_receive_enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            version: Version::V1,
            offered_versions: None,
            accepted_versions: None,
            fully_deployed_versions: None,
            max_bytes_per_key: MAX_BYTES_PER_KEY,
            handshake_idle_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(30),
            disconnect_timeout: Duration::from_secs(16),
            keep_alive_interval: Duration::ZERO,
            stream_receive_window: 64 * 1024,
            stream_receive_window_bidi_local: None,
            stream_receive_window_bidi_remote: None,
            stream_receive_window_uni: None,
            connection_flow_control_window: 16 * 1024 * 1024,
            peer_bidi_stream_count: 0,
            peer_uni_stream_count: 0,
            congestion_control: CongestionControl::Cubic,
            initial_window_packets: 10,
            send_idle_timeout: Duration::from_secs(1),
            initial_rtt: Duration::from_millis(333),
            max_ack_delay: Duration::from_millis(25),
            pacing_enabled: true,
            initial_datagram_size: 1200,
            maximum_datagram_size: 1472,
            mtu_discovery_probes: 3,
            mtu_discovery_interval: Duration::from_secs(600),
            migration_enabled: true,
            follow_rss: true,
            datagram_receive_enabled: false,
            ecn_enabled: false,
            grease_quic_bit_enabled: false,
            hystart_enabled: false,
            remote_cid_idle_timeout: Duration::from_secs(20),
            network_statistics_enabled: false,
            dscp: 0,
            server_resumption_level: ResumptionLevel::None,
            tickets_per_connection: 1,
            ticket_lifetime: Duration::from_secs(24 * 3600),
            client_resumption_enabled: true,
            client_ticket_wait: Duration::from_secs(5),
            stream_scheduling: StreamScheduling::Fifo,
            send_queue_limit: 128 << 20,
            stream_multi_receive_enabled: false,
        }
    }
}

impl Settings {
    /// Checks that every field is in its range. [`Configuration`](super::Configuration) calls this.
    ///
    /// # Errors
    ///
    /// The first field that is not, and its range.
    pub fn validate(&self) -> Result<(), SettingsError> {
        let check = |ok: bool, field: &'static str, range: &'static str| {
            if ok {
                Ok(())
            } else {
                Err(SettingsError { field, range })
            }
        };
        let is_list = |versions: &[Version]| {
            let repeated = |at: usize| versions[..at].contains(&versions[at]);
            !(0..versions.len()).any(repeated)
        };
        let offered = self.offered_versions.as_deref();
        check(
            offered.is_none_or(|offered| is_list(offered) && offered.contains(&self.version)),
            "offered_versions",
            "a list with `version` in it and no version twice",
        )?;
        let accepted = self.accepted_versions.as_deref();
        check(
            accepted.is_none_or(|accepted| is_list(accepted) && !accepted.is_empty()),
            "accepted_versions",
            "a list of at least one version and none twice",
        )?;
        let accepted = accepted.unwrap_or(&Version::SUPPORTED);
        let deployed = self.fully_deployed_versions.as_deref().unwrap_or_default();
        check(
            is_list(deployed) && deployed.iter().all(|version| accepted.contains(version)),
            "fully_deployed_versions",
            "a list of accepted versions with none twice",
        )?;
        let hour = Duration::from_secs(3600);
        check(
            (1..=MAX_BYTES_PER_KEY).contains(&self.max_bytes_per_key),
            "max_bytes_per_key",
            "1 to 2^38",
        )?;
        check(
            !self.handshake_idle_timeout.is_zero() && self.handshake_idle_timeout <= hour,
            "handshake_idle_timeout",
            "more than 0, at most 1 h",
        )?;
        check(
            !self.handshake_timeout.is_zero() && self.handshake_timeout <= hour,
            "handshake_timeout",
            "more than 0, at most 1 h",
        )?;
        // The peer is told it in milliseconds (RFC 9000 section 18.2), among which 0 would mean none.
        check(
            self.idle_timeout.is_zero()
                || (Duration::from_millis(1)..=1000 * hour).contains(&self.idle_timeout),
            "idle_timeout",
            "0 (none), or 1 ms to 1000 h",
        )?;
        check(
            !self.disconnect_timeout.is_zero() && self.disconnect_timeout <= Duration::from_secs(600),
            "disconnect_timeout",
            "more than 0, at most 600 s",
        )?;
        check(
            self.keep_alive_interval <= hour,
            "keep_alive_interval",
            "at most 1 h",
        )?;
        check(
            self.idle_timeout.is_zero() || self.keep_alive_interval < self.idle_timeout,
            "keep_alive_interval",
            "less than idle_timeout, or it would keep nothing alive",
        )?;
        let windows = [
            ("stream_receive_window", Some(self.stream_receive_window)),
            (
                "stream_receive_window_bidi_local",
                self.stream_receive_window_bidi_local,
            ),
            (
                "stream_receive_window_bidi_remote",
                self.stream_receive_window_bidi_remote,
            ),
            ("stream_receive_window_uni", self.stream_receive_window_uni),
            (
                "connection_flow_control_window",
                Some(self.connection_flow_control_window),
            ),
        ];
        for (field, window) in windows {
            check(
                window != Some(0),
                field,
                "at least 1: the peer could send nothing",
            )?;
        }
        check(
            self.initial_window_packets >= 1,
            "initial_window_packets",
            "at least 1",
        )?;
        check(
            self.initial_window_packets <= 10_000,
            "initial_window_packets",
            "at most 10,000",
        )?;
        check(
            !self.initial_rtt.is_zero() && self.initial_rtt <= Duration::from_secs(60),
            "initial_rtt",
            "more than 0, at most 60 s",
        )?;
        // max_ack_delay is a transport parameter of less than 2^14 ms (RFC 9000 section 18.2).
        check(
            self.max_ack_delay < Duration::from_millis(1 << 14),
            "max_ack_delay",
            "less than 16,384 ms",
        )?;
        check(
            (1..=16).contains(&self.tickets_per_connection),
            "tickets_per_connection",
            "1 to 16",
        )?;
        check(
            !self.ticket_lifetime.is_zero() && self.ticket_lifetime <= TICKET_LIFETIME_MAX,
            "ticket_lifetime",
            "more than 0, at most seven days (RFC 8446 section 4.6.1)",
        )?;
        for (field, count) in [
            ("peer_bidi_stream_count", self.peer_bidi_stream_count),
            ("peer_uni_stream_count", self.peer_uni_stream_count),
        ] {
            check(count <= STREAMS_MAX, field, "at most 2^60")?;
        }
        check(self.dscp < 64, "dscp", "0 to 63")?;
        check(
            self.mtu_discovery_probes >= 1,
            "mtu_discovery_probes",
            "at least 1",
        )?;
        check(
            (Duration::from_secs(1)..=960 * hour).contains(&self.mtu_discovery_interval),
            "mtu_discovery_interval",
            "1 s to 40 days",
        )?;
        check(
            (1200..=65527).contains(&self.initial_datagram_size),
            "initial_datagram_size",
            "1200 to 65527",
        )?;
        check(
            (self.initial_datagram_size..=65527).contains(&self.maximum_datagram_size),
            "maximum_datagram_size",
            "initial_datagram_size to 65527",
        )
    }
}

impl Settings {
    /// The same settings in the engine's terms.
    pub(super) fn engine_config(&self) -> Config {
        let window = |specific: Option<u32>| u64::from(specific.unwrap_or(self.stream_receive_window));
        Config {
            version: self.version,
            offered_versions: self.offered_versions.clone(),
            accepted_versions: self.accepted_versions.clone(),
            fully_deployed_versions: self.fully_deployed_versions.clone(),
            // The engine counts packets: even a small one uses up as much of the key as a full one.
            packets_per_key: (self.max_bytes_per_key / 1200).max(1),
            handshake_idle_timeout: self.handshake_idle_timeout,
            handshake_timeout: self.handshake_timeout,
            idle_timeout: self.idle_timeout,
            disconnect_timeout: self.disconnect_timeout,
            keep_alive_interval: self.keep_alive_interval,
            streams: StreamsConfig {
                connection_window: u64::from(self.connection_flow_control_window),
                window_bidi_local: window(self.stream_receive_window_bidi_local),
                window_bidi_remote: window(self.stream_receive_window_bidi_remote),
                window_uni: window(self.stream_receive_window_uni),
                peer_streams: [self.peer_bidi_stream_count, self.peer_uni_stream_count],
                scheduling: self.stream_scheduling,
                send_queue_limit: self.send_queue_limit,
                multi_receive: self.stream_multi_receive_enabled,
            },
            congestion_control: self.congestion_control,
            initial_window_packets: self.initial_window_packets,
            send_idle_timeout: self.send_idle_timeout,
            initial_rtt: self.initial_rtt,
            max_ack_delay: self.max_ack_delay,
            ticket_wait: self.client_ticket_wait,
            pacing: self.pacing_enabled,
            initial_datagram_size: self.initial_datagram_size,
            maximum_datagram_size: self.maximum_datagram_size,
            migration: self.migration_enabled,
            follow_rss: self.follow_rss,
            datagram_receive: self.datagram_receive_enabled,
            ecn: self.ecn_enabled,
            grease_quic_bit: self.grease_quic_bit_enabled,
            hystart: self.hystart_enabled,
            mtu_probes: self.mtu_discovery_probes,
            mtu_search_interval: self.mtu_discovery_interval,
            remote_cid_idle: self.remote_cid_idle_timeout,
            network_statistics: self.network_statistics_enabled,
            dscp: self.dscp,
        }
    }
}

/// RFC 9000 section 4.6.
const STREAMS_MAX: u64 = 1 << 60;
/// RFC 8446 section 4.6.1.
const TICKET_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// MsQuic's default and maximum. Keys also never outlast the confidentiality limit of their AEAD (RFC 9001 section
/// 6.6).
const MAX_BYTES_PER_KEY: u64 = 1 << 38;

#[cfg(test)]
mod tests {
    use super::Version::{V1, V2};
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let refused = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().err().map(|error| error.field)
        };
        let (zero, second) = (Duration::ZERO, Duration::from_secs(1));
        assert_eq!(refused(&|_| {}), None);
        assert_eq!(
            refused(&|s| s.stream_receive_window = 0),
            Some("stream_receive_window")
        );
        assert_eq!(
            refused(&|s| s.stream_receive_window_uni = Some(0)),
            Some("stream_receive_window_uni")
        );
        assert_eq!(
            refused(&|s| s.connection_flow_control_window = 0),
            Some("connection_flow_control_window")
        );
        assert_eq!(
            refused(&|s| s.idle_timeout = Duration::from_micros(999)),
            Some("idle_timeout")
        );
        assert_eq!(refused(&|s| s.idle_timeout = zero), None);
        let keep_alive =
            |interval, idle| refused(&|s| (s.keep_alive_interval, s.idle_timeout) = (interval, idle));
        assert_eq!(keep_alive(second, second), Some("keep_alive_interval"));
        assert_eq!(keep_alive(second, zero), None);
        assert_eq!(keep_alive(second, 2 * second), None);
        assert_eq!(refused(&|s| s.dscp = 64), Some("dscp"));
        assert_eq!(
            refused(&|s| s.mtu_discovery_probes = 0),
            Some("mtu_discovery_probes")
        );
        assert_eq!(
            refused(&|s| s.mtu_discovery_interval = zero),
            Some("mtu_discovery_interval")
        );
        assert_eq!(
            refused(&|s| s.peer_uni_stream_count = (1 << 60) + 1),
            Some("peer_uni_stream_count")
        );
        assert_eq!(refused(&|s| s.peer_bidi_stream_count = 1 << 60), None);
    }

    #[test]
    fn lists_of_versions_that_contradict_themselves_are_refused() {
        let refused = |settings: Settings| settings.validate().err().map(|error| error.field);
        let offered = |offered: &[Version]| {
            refused(Settings {
                offered_versions: Some(offered.to_vec()),
                ..Settings::default()
            })
        };
        for right in [&[V1][..], &[V1, V2], &[V2, V1]] {
            assert_eq!(offered(right), None);
        }
        for wrong in [&[][..], &[V2], &[V1, V2, V1]] {
            assert_eq!(offered(wrong), Some("offered_versions"));
        }
        let server = |accepted: Option<&[Version]>, deployed: &[Version]| {
            refused(Settings {
                accepted_versions: accepted.map(<[Version]>::to_vec),
                fully_deployed_versions: Some(deployed.to_vec()),
                ..Settings::default()
            })
        };
        assert_eq!(server(None, &[]), None);
        assert_eq!(server(None, &[V2, V1]), None);
        assert_eq!(server(Some(&[V2]), &[V2]), None);
        assert_eq!(server(Some(&[]), &[]), Some("accepted_versions"));
        assert_eq!(server(Some(&[V2, V2]), &[]), Some("accepted_versions"));
        assert_eq!(server(Some(&[V2]), &[V1]), Some("fully_deployed_versions"));
        assert_eq!(server(None, &[V1, V1]), Some("fully_deployed_versions"));
    }
}
