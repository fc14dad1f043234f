//! Connections without a handshake and without protection, for benchmarks and fuzzing of the engine alone.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringway_types::Instant;

use super::cids::LocalCid;
use super::config::Config;
use super::{Connection, PathAddress};
use crate::crypto::one_rtt::OneRttKeys;
use crate::wire::cid::ConnectionId;
use crate::wire::transport_parameters::TransportParameters;
use crate::wire::{Side, Version};

/// A client and a server that talk to each other, as after a handshake. Packets are in the clear.
pub fn established_pair(
    now: Instant,
    config: &Arc<Config>,
    paths: [PathAddress; 2],
    cids: [LocalCid; 2],
) -> [Connection; 2] {
    [Side::Client, Side::Server].map(|side| {
        let own = side as usize;
        let (local, remote) = (cids[own], cids[1 - own].cid);
        let initial = ConnectionId::default();
        let rng = StdRng::seed_from_u64(own as u64);
        let mut connection = Connection::new(
            now,
            side,
            Version::V1,
            Arc::clone(config),
            paths[own],
            remote,
            initial,
            local,
            rng,
        );
        connection.path.validated = true;
        let params = TransportParameters {
            max_datagram_frame_size: 65_535,
            ..config.transport_parameters()
        };
        connection.content.streams.set_peer_params(&params);
        connection.handshake.peer.known = true;
        connection.handshake.peer.max_datagram_frame_size = params.max_datagram_frame_size;
        connection.handshake.one_rtt = Some(Box::new(OneRttKeys::null()));
        connection.handshake.complete = true;
        connection.handshake.received = true;
        connection.confirm_handshake();
        connection
    })
}
