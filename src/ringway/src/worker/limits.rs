//! Limits on what one turn does, and on what peers can make a worker hold.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a registration keeps for clients, whoever they are. Counts are for one partition each.
///
/// These hold before the application knows of a client, so they belong to no [`Settings`](crate::Settings).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How many connections there are at most, handshakes among them. What comes beyond is dropped, and the client
    /// asks again. Default: 1,048,576.
    pub connections: usize,
    /// How many incomplete handshakes of clients there are at most, each of about 10 KiB. If there are so many, a newcomer
    /// takes the place of the oldest one whose client has not proven its address; if all have, it is dropped. Default: 8192.
    pub handshakes: usize,
    /// From this many incomplete handshakes on, listeners with [`RetryPolicy::UnderLoad`](crate::RetryPolicy::UnderLoad)
    /// ask clients to prove their address. Default: 1024. MsQuic: `RetryMemoryLimit`, a share of the memory.
    pub handshakes_before_retry: usize,
    /// How many incomplete handshakes one source has at most, an address or a network of them (see `source_prefix_ipv4`).
    /// Clients that have proven their address, and those that only claim it, have this share each, so that nobody takes
    /// up another's share by sending in its name. Beyond it, a client must prove its address if the listener asks for
    /// that at all; else it is dropped. Default: 1024.
    pub handshakes_per_source: usize,
    /// How many bytes all connections of the process hold together at most, of its other registrations too: with what they
    /// have received and not consumed, but not what the application sends. At this bound new clients are refused with
    /// CONNECTION_REFUSED, and receive windows stop growing; what peers were allowed to send they may still send. Default
    /// (`None`): half of what the machine has, or of what the process's control group may use.
    pub memory: Option<u64>,
    /// New clients are refused, with CONNECTION_REFUSED, while datagrams and calls wait for their turn longer than this on average
    /// ([`WorkerStats::turn_delay`](crate::WorkerStats::turn_delay)): the processor has more to do than it can.
    /// Default: 250 ms. MsQuic: `MaxWorkerQueueDelayUs`.
    #[serde(with = "humantime_serde")]
    pub turn_delay: Duration,
    /// How many operations of other threads (calls, datagrams that are handed over) one turn runs at most, before packets are received and sent
    /// again. Default: 1024. MsQuic: `MaxOperationsPerDrain`, for each connection.
    pub operations_per_turn: usize,
    /// How many replies without a connection (version negotiation, Retry, refusal, stateless reset) one turn sends at most; what would need more of
    /// them is dropped. Default: 64. MsQuic: `MaxStatelessOperations`.
    pub stateless_replies_per_turn: usize,
    /// How many bits of an IPv4 address tell sources apart. Default: 32.
    pub source_prefix_ipv4: u8,
    /// How many bits of an IPv6 address tell sources apart. Default: 64, since a host has a network of its own there.
    pub source_prefix_ipv6: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1 << 20,
            handshakes: 8192,
            handshakes_before_retry: 1024,
            handshakes_per_source: 1024,
            memory: None,
            turn_delay: Duration::from_millis(250),
            operations_per_turn: 1024,
            stateless_replies_per_turn: 64,
            source_prefix_ipv4: 32,
            source_prefix_ipv6: 64,
        }
    }
}

impl Limits {
    /// The key of a field that says what cannot be, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, count) in [
            ("limits.connections", self.connections),
            ("limits.handshakes", self.handshakes),
            ("limits.handshakes_per_source", self.handshakes_per_source),
        ] {
            if count == 0 {
                return Err((key, "with 0, no client could connect".to_owned()));
            }
        }
        if self.operations_per_turn == 0 {
            return Err((
                "limits.operations_per_turn",
                "with 0, no call would ever run".to_owned(),
            ));
        }
        if self.memory == Some(0) {
            return Err((
                "limits.memory",
                "with 0, every client would be refused".to_owned(),
            ));
        }
        let most = self.handshakes.min(self.connections);
        if self.handshakes_before_retry > most {
            return Err((
                "limits.handshakes_before_retry",
                format!("there are at most {most} handshakes, by limits.handshakes and limits.connections"),
            ));
        }
        for (key, bits, max) in [
            ("limits.source_prefix_ipv4", self.source_prefix_ipv4, 32),
            ("limits.source_prefix_ipv6", self.source_prefix_ipv6, 128),
        ] {
            if bits > max {
                return Err((key, format!("{bits} is more bits than an address has: {max}")));
            }
        }
        Ok(())
    }
}

/// How many transmit slots one connection fills in one turn at most, so that connections share the device...
pub(crate) const SLOTS_PER_CONNECTION_PER_TURN: usize = 4;
/// ...and how many where a slot holds one datagram only: these go to the device together.
pub(crate) const DATAGRAMS_PER_CONNECTION_PER_TURN: usize = 64;
/// The longest such reply in bytes: a Retry with two 20-byte connection IDs and a token.
pub(crate) const STATELESS_BYTES_MAX: usize = 512;
/// The longest sleep, so that a lost deadline is recovered from.
pub(crate) const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Who sends what belongs to no connection, as the device has it: no slot has this index.
pub(super) const NO_SENDER: u32 = u32::MAX;
