//! Settings of one connection that differ from those of its configuration, also while it is open.

use std::time::Duration;

use ringway_engine::connection::config::Config;
use ringway_engine::streams::Scheduling as StreamScheduling;

use super::error::{CallError, SettingsError};
use super::settings::Settings;
use crate::worker::calls::CallOutcome;
use crate::worker::handles::Connection;

/// Settings that one connection has instead of those of its configuration: what is named here, and nothing else.
///
/// There are three levels, and the later one wins: [`Registration::settings`](crate::Registration::settings) are what configurations begin with,
/// a [`Configuration`](crate::Configuration) has its [`Settings`], and a connection may change some, from its start
/// ([`ConnectTarget::settings`](crate::ConnectTarget::settings), [`Incoming::accept_with`](crate::Incoming::accept_with)) or while it is open
/// ([`Connection::change_settings`]). What is named twice has the later value. MsQuic: `QUIC_SETTINGS` with its `IsSet` flags, set on a connection.
///
/// ```
/// # use std::time::Duration;
/// let patient = ringway::SettingsChange::new().idle_timeout(Duration::from_secs(600)).keep_alive_interval(Duration::from_secs(20));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SettingsChange {
    idle_timeout: Option<Duration>,
    disconnect_timeout: Option<Duration>,
    keep_alive_interval: Option<Duration>,
    send_idle_timeout: Option<Duration>,
    remote_cid_idle_timeout: Option<Duration>,
    stream_receive_window: Option<u32>,
    connection_flow_control_window: Option<u32>,
    peer_bidi_stream_count: Option<u64>,
    peer_uni_stream_count: Option<u64>,
    stream_scheduling: Option<StreamScheduling>,
    pacing_enabled: Option<bool>,
    migration_enabled: Option<bool>,
    follow_rss: Option<bool>,
    datagram_receive_enabled: Option<bool>,
    network_statistics_enabled: Option<bool>,
    dscp: Option<u8>,
}

/// Each call names one setting; its range is that of the field of [`Settings`].
impl SettingsChange {
    /// Changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// [`Settings::idle_timeout`]. The peer has heard of the one before: a longer one has an effect as far as that was not what limits it.
    #[must_use]
    pub fn idle_timeout(mut self, value: Duration) -> Self {
        self.idle_timeout = Some(value);
        self
    }

    /// [`Settings::disconnect_timeout`].
    #[must_use]
    pub fn disconnect_timeout(mut self, value: Duration) -> Self {
        self.disconnect_timeout = Some(value);
        self
    }

    /// [`Settings::keep_alive_interval`].
    #[must_use]
    pub fn keep_alive_interval(mut self, value: Duration) -> Self {
        self.keep_alive_interval = Some(value);
        self
    }

    /// [`Settings::send_idle_timeout`].
    #[must_use]
    pub fn send_idle_timeout(mut self, value: Duration) -> Self {
        self.send_idle_timeout = Some(value);
        self
    }

    /// [`Settings::remote_cid_idle_timeout`].
    #[must_use]
    pub fn remote_cid_idle_timeout(mut self, value: Duration) -> Self {
        self.remote_cid_idle_timeout = Some(value);
        self
    }

    /// [`Settings::stream_receive_window`], of streams of every kind that begin from now on.
    #[must_use]
    pub fn stream_receive_window(mut self, bytes: u32) -> Self {
        self.stream_receive_window = Some(bytes);
        self
    }

    /// [`Settings::connection_flow_control_window`]. If it is smaller than before, what the peer may send already it may still send.
    #[must_use]
    pub fn connection_flow_control_window(mut self, bytes: u32) -> Self {
        self.connection_flow_control_window = Some(bytes);
        self
    }

    /// [`Settings::peer_bidi_stream_count`]. The peer is told at once if it may open more; fewer hold as streams end. MsQuic:
    /// `QUIC_PARAM_CONN_PEER_BIDI_STREAM_COUNT`.
    #[must_use]
    pub fn peer_bidi_stream_count(mut self, streams: u64) -> Self {
        self.peer_bidi_stream_count = Some(streams);
        self
    }

    /// The same for unidirectional streams.
    #[must_use]
    pub fn peer_uni_stream_count(mut self, streams: u64) -> Self {
        self.peer_uni_stream_count = Some(streams);
        self
    }

    /// [`Settings::stream_scheduling`]. MsQuic: `QUIC_PARAM_CONN_STREAM_SCHEDULING_SCHEME`.
    #[must_use]
    pub fn stream_scheduling(mut self, value: StreamScheduling) -> Self {
        self.stream_scheduling = Some(value);
        self
    }

    /// [`Settings::pacing_enabled`].
    #[must_use]
    pub fn pacing_enabled(mut self, value: bool) -> Self {
        self.pacing_enabled = Some(value);
        self
    }

    /// [`Settings::migration_enabled`]. The peer has heard of the one before; its packets from other addresses are dropped all the same.
    #[must_use]
    pub fn migration_enabled(mut self, value: bool) -> Self {
        self.migration_enabled = Some(value);
        self
    }

    /// [`Settings::follow_rss`].
    #[must_use]
    pub fn follow_rss(mut self, value: bool) -> Self {
        self.follow_rss = Some(value);
        self
    }

    /// [`Settings::datagram_receive_enabled`]: from the start only, since the peer is told in the handshake and never again (RFC 9221 section 3).
    /// MsQuic: `QUIC_PARAM_CONN_DATAGRAM_RECEIVE_ENABLED`.
    #[must_use]
    pub fn datagram_receive_enabled(mut self, value: bool) -> Self {
        self.datagram_receive_enabled = Some(value);
        self
    }

    /// [`Settings::network_statistics_enabled`].
    #[must_use]
    pub fn network_statistics_enabled(mut self, value: bool) -> Self {
        self.network_statistics_enabled = Some(value);
        self
    }

    /// [`Settings::dscp`]. MsQuic: `QUIC_PARAM_CONN_SEND_DSCP`.
    #[must_use]
    pub fn dscp(mut self, value: u8) -> Self {
        self.dscp = Some(value);
        self
    }

    /// Checks that every setting that is named is in its range.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let usual = Settings::default();
        let changed = Settings {
            // A keep-alive must be shorter than an idle timeout that comes with it, of which nothing is known otherwise.
            idle_timeout: self.idle_timeout.unwrap_or(Duration::ZERO),
            disconnect_timeout: self.disconnect_timeout.unwrap_or(usual.disconnect_timeout),
            keep_alive_interval: self.keep_alive_interval.unwrap_or(Duration::ZERO),
            stream_receive_window: self.stream_receive_window.unwrap_or(usual.stream_receive_window),
            connection_flow_control_window: self
                .connection_flow_control_window
                .unwrap_or(usual.connection_flow_control_window),
            peer_bidi_stream_count: self.peer_bidi_stream_count.unwrap_or_default(),
            peer_uni_stream_count: self.peer_uni_stream_count.unwrap_or_default(),
            dscp: self.dscp.unwrap_or_default(),
            ..usual
        };
        changed.validate()
    }

    /// Puts what is named into a configuration.
    pub(crate) fn apply(&self, config: &mut Config) {
        fn set<T: Copy>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        set(&mut config.idle_timeout, self.idle_timeout);
        set(&mut config.disconnect_timeout, self.disconnect_timeout);
        set(&mut config.keep_alive_interval, self.keep_alive_interval);
        set(&mut config.send_idle_timeout, self.send_idle_timeout);
        set(&mut config.remote_cid_idle, self.remote_cid_idle_timeout);
        let streams = &mut config.streams;
        let window = self.stream_receive_window.map(u64::from);
        set(&mut streams.window_bidi_local, window);
        set(&mut streams.window_bidi_remote, window);
        set(&mut streams.window_uni, window);
        set(
            &mut streams.connection_window,
            self.connection_flow_control_window.map(u64::from),
        );
        set(&mut streams.peer_streams[0], self.peer_bidi_stream_count);
        set(&mut streams.peer_streams[1], self.peer_uni_stream_count);
        set(&mut streams.scheduling, self.stream_scheduling);
        set(&mut config.pacing, self.pacing_enabled);
        set(&mut config.migration, self.migration_enabled);
        set(&mut config.follow_rss, self.follow_rss);
        set(&mut config.datagram_receive, self.datagram_receive_enabled);
        set(&mut config.network_statistics, self.network_statistics_enabled);
        set(&mut config.dscp, self.dscp);
    }
}

impl Connection {
    /// Changes settings of this connection, from now on. Those of its configuration, and of other connections, stay. MsQuic: `SetParam` of a
    /// connection, with `QUIC_PARAM_CONN_SETTINGS` and others.
    ///
    /// # Errors
    ///
    /// [`CallError::Settings`]: a value is out of its range. [`CallError::InvalidState`]:
    /// [`datagram_receive_enabled`](SettingsChange::datagram_receive_enabled) is named, of which the peer can be told in the handshake only: name
    /// it in [`ConnectTarget::settings`](crate::ConnectTarget::settings) or [`Incoming::accept_with`](crate::Incoming::accept_with).
    /// [`CallError::Closed`]: the connection has ended.
    pub fn change_settings(&self, change: &SettingsChange) -> Result<(), CallError> {
        change.check().map_err(CallError::Settings)?;
        if change.datagram_receive_enabled.is_some() {
            return Err(CallError::InvalidState(
                "whether datagrams are received is said in the handshake: set it where the connection begins",
            ));
        }
        let change = change.clone();
        let call = self
            .0
            .call(move |hosted, _| hosted.reconfigure(|config| change.apply(config)));
        match call {
            CallOutcome::Completed(()) | CallOutcome::Queued => Ok(()),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }
}
