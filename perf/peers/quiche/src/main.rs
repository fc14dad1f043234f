//! quiche, with the command line of ringperf. quiche does no I/O: one thread waits at one socket and serves all connections.

mod client;
mod connections;
mod http3;
mod server;

use std::process::ExitCode;

use anyhow::Result;
use bytes::Bytes;
use quiche::{BufFactory, Config, CongestionControlAlgorithm};
use ringway_peers::{ALPN, CONNECTION_WINDOW, DATAGRAM, Group, STREAM_WINDOW, STREAMS};

/// Of our connection IDs.
const ID_LEN: usize = 16;
/// Silence that ends a connection.
const IDLE_TIMEOUT_MS: u64 = 30_000;

fn main() -> ExitCode {
    ringway_peers::with_http3(
        |args| server::run(&args),
        |args| client::run(&args),
        |args| http3::server(&args),
        |args| http3::client(&args),
    )
}

/// Lets quiche send what it is given without a copy.
#[derive(Clone, Debug, Default)]
struct Buffers;

impl BufFactory for Buffers {
    type Buf = Bytes;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(data: &[u8]) -> Bytes {
        Bytes::copy_from_slice(data)
    }

    fn dgram_buf_from_slice(data: &[u8]) -> Vec<u8> {
        data.to_vec()
    }
}

type Connection = quiche::Connection<Buffers>;

/// What both ends have.
fn config(group: Group) -> Result<Config> {
    let mut config = Config::new(quiche::PROTOCOL_VERSION)?;
    config.set_application_protos(&[ALPN])?;
    config.set_curves_list(match group {
        Group::X25519 => "X25519:P-256:P-384",
        Group::X25519MlKem768 => "X25519MLKEM768:X25519:P-256:P-384",
    })?;
    if std::env::var_os("SSLKEYLOGFILE").is_some() {
        config.log_keys();
    }
    config.set_cc_algorithm(CongestionControlAlgorithm::CUBIC);
    config.set_max_idle_timeout(IDLE_TIMEOUT_MS);
    config.set_max_recv_udp_payload_size(DATAGRAM.into());
    config.set_max_send_udp_payload_size(DATAGRAM.into());
    config.set_initial_max_data(CONNECTION_WINDOW.into());
    config.set_max_connection_window(CONNECTION_WINDOW.into());
    config.set_initial_max_stream_data_bidi_local(STREAM_WINDOW.into());
    config.set_initial_max_stream_data_bidi_remote(STREAM_WINDOW.into());
    config.set_max_stream_window(STREAM_WINDOW.into());
    config.set_initial_max_streams_bidi(STREAMS.into());
    Ok(config)
}

/// A new connection ID.
fn new_id() -> [u8; ID_LEN] {
    rand::random()
}
