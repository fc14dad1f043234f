//! Joins a client and a server in memory: a handshake, a request and its response on a stream, a clean close, all in virtual time.
//!
//! `cargo run -p ringway-engine --example in_memory` prints what happens. The engine reads no clock and no socket, so this is all there is
//! around it: a queue of datagrams that take 10 ms each way, and a time that jumps to whatever is due next.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use ringway_engine::connection::config::Config;
use ringway_engine::connection::drops::DropCounts;
use ringway_engine::connection::events::Event;
use ringway_engine::connection::receive::Delivery;
use ringway_engine::connection::transmit::TransmitLimits;
use ringway_engine::connection::{Connection, LocalCid, PathAddress, ServerStart, seed};
use ringway_engine::crypto::tls::{ClientCredentials, ClientTls, ServerCredentials, ServerTls};
use ringway_engine::streams::{AfterReceive, Dir, StreamEvent, StreamKey, StreamsConfig};
use ringway_engine::wire::Side;
use ringway_engine::wire::cid::{ConnectionId, ResetToken};
use ringway_engine::wire::header::{self, ProtectedHeader};
use ringway_engine::{Ecn, Instant, LOCAL_CID_LEN, PortId};
use rustls::pki_types::{PrivateKeyDer, ServerName};

/// How long a datagram is under way.
const ONE_WAY: Duration = Duration::from_millis(10);
/// No GSO: one datagram in each buffer.
const LIMITS: TransmitLimits = TransmitLimits {
    segments_max: 1,
    datagram_bytes_max: 1500,
};

fn main() -> Result<(), Box<dyn Error>> {
    let (server_tls, client_tls) = tls()?;
    let config = Arc::new(config());
    // Seeds must be unpredictable where packets leave the machine.
    let mut rng = StdRng::seed_from_u64(1);
    let mut now = Instant::from_nanos(0);

    let name = ServerName::try_from("localhost")?;
    let connection = Connection::client(
        now,
        Arc::clone(&config),
        &client_tls,
        name,
        path(client_address(), server_address()),
        local_cid(Side::Client, 0),
        Vec::new(),
        None,
        seed(&mut rng),
    );
    let mut client = End::new(Side::Client, connection);
    // A server is made by the first datagram that arrives.
    let mut server: Option<End> = None;
    let mut network: VecDeque<Datagram> = VecDeque::new();

    loop {
        // Door 3: datagrams out.
        for end in [Some(&mut client), server.as_mut()].into_iter().flatten() {
            end.transmit(now, &mut network);
        }

        // Door 4: the next deadline. Whatever comes first, a datagram or a deadline, is next.
        let arrival = network.front().map(|datagram| datagram.arrives);
        let ends = [Some(&client), server.as_ref()].into_iter().flatten();
        let deadline = ends.filter_map(|end| end.connection.deadline()).min();
        let Some(next) = [arrival, deadline].into_iter().flatten().min() else {
            break;
        };
        now = now.max(next);

        // Door 1: datagrams in.
        while network.front().is_some_and(|datagram| datagram.arrives <= now) {
            let Some(mut datagram) = network.pop_front() else {
                break;
            };
            if datagram.to == client_address() {
                client.receive(now, &mut datagram);
                continue;
            }
            let server = match &mut server {
                Some(server) => server,
                None => match incoming(now, &datagram, seed(&mut rng)) {
                    Some(connection) => server.insert(End::new(Side::Server, connection)),
                    None => continue,
                },
            };
            server.receive(now, &mut datagram);
            if let Some(hello) = server.connection.take_client_hello() {
                server.say(now, &format!("a client asks for {:?}", hello.server_name));
                server.connection.accept(now, Arc::clone(&config), &server_tls);
                server.on_events(now);
            }
        }

        // Door 2: timeout in.
        for end in [Some(&mut client), server.as_mut()].into_iter().flatten() {
            if end.connection.deadline().is_some_and(|deadline| deadline <= now) {
                end.connection.on_timeout(now);
                end.on_events(now);
            }
        }
    }

    let server = server.ok_or("no server")?;
    for end in [&client, &server] {
        assert!(end.connection.is_drained() && end.connection.peer_acknowledged_close());
        end.say(now, "done");
    }
    assert_eq!((&server.received[..], &client.received[..]), (REQUEST, RESPONSE));
    Ok(())
}

const REQUEST: &[u8] = b"What do you run on?";
const RESPONSE: &[u8] = b"On memory alone.";

/// A datagram under way.
struct Datagram {
    arrives: Instant,
    from: SocketAddr,
    to: SocketAddr,
    ecn: Ecn,
    bytes: Vec<u8>,
}

/// One end of the connection, and its application.
struct End {
    side: Side,
    connection: Connection,
    /// What arrived on the stream.
    received: Vec<u8>,
    cids_issued: u8,
    drops: DropCounts,
}

impl End {
    fn new(side: Side, connection: Connection) -> Self {
        End {
            side,
            connection,
            received: Vec::new(),
            cids_issued: 1,
            drops: DropCounts::default(),
        }
    }

    /// Sends what there is to send.
    fn transmit(&mut self, now: Instant, network: &mut VecDeque<Datagram>) {
        let mut buffer = [0; 1500];
        while let Some(transmit) = self.connection.transmit(now, &mut buffer, &LIMITS) {
            network.push_back(Datagram {
                arrives: now + ONE_WAY,
                from: transmit.path.local,
                to: transmit.path.remote,
                ecn: transmit.ecn,
                bytes: buffer[..transmit.len].to_vec(),
            });
        }
    }

    /// Takes a datagram in. Stream data in order comes out of it as a slice of the decrypted packet.
    fn receive(&mut self, now: Instant, datagram: &mut Datagram) {
        let path = path(datagram.to, datagram.from);
        let mut received = self.connection.receive(&path, datagram.ecn, &mut datagram.bytes);
        while let Some(delivery) = self.connection.receive_next(now, &mut received, &mut self.drops) {
            // Events come before the data behind them: a stream is opened before something arrives on it.
            self.on_events(now);
            if let Delivery::Stream {
                key,
                offset,
                data,
                fin,
                ..
            } = delivery
            {
                self.on_data(now, key, data, fin);
                let all = data.len();
                self.connection
                    .on_stream_delivered(now, key, offset, data, fin, all, AfterReceive::Continue);
            }
        }
        self.on_events(now);
    }

    /// Takes all events, and does what the caller of the engine has to do after each call.
    fn on_events(&mut self, now: Instant) {
        while let Some(event) = self.connection.next_event() {
            match event {
                Event::Connected { .. } => {
                    self.say(now, "connected");
                    if self.side.is_client() {
                        self.request();
                    }
                }
                Event::Closing(reason) => self.say(now, &format!("closing: {reason}")),
                _ => {}
            }
        }
        while let Some(event) = self.connection.streams_mut().next_event() {
            match event {
                StreamEvent::PeerOpened { id, .. } => {
                    self.say(now, &format!("the peer opened stream {}", id.value()))
                }
                StreamEvent::ShutdownComplete { key } => self.connection.streams_mut().release(key),
                _ => {}
            }
        }
        // Data that came out of order, which nothing does here.
        while let Some(key) = self.connection.streams_mut().next_readable() {
            let Some(ready) = self.connection.streams_mut().take_ready(key) else {
                continue;
            };
            let data = ready.slices().concat();
            self.on_data(now, key, &data, ready.fin());
            self.connection
                .on_ready_delivered(now, key, ready, data.len(), AfterReceive::Continue);
        }
        // The peer is given as many connection IDs as it wants. A caller with many connections looks them up by these IDs.
        for _ in 0..self.connection.local_cids_wanted() {
            let cid = local_cid(self.side, self.cids_issued);
            self.connection.add_local_cid(cid);
            self.cids_issued += 1;
        }
        while self.connection.next_retired_local_cid().is_some() {}
        while self.connection.next_reset_token_change().is_some() {}
    }

    /// The client asks on a stream of its own.
    fn request(&mut self) {
        let streams = self.connection.streams_mut();
        let stream = streams.create(Dir::Bi);
        let started = streams.start(stream, false);
        let sent = streams.send(stream, Bytes::from_static(REQUEST), 0, true);
        assert!(started.is_ok() && sent.is_ok());
    }

    /// The server answers; the client closes when it has its answer.
    fn on_data(&mut self, now: Instant, stream: StreamKey, data: &[u8], fin: bool) {
        self.received.extend_from_slice(data);
        if !fin {
            return;
        }
        self.say(
            now,
            &format!("received {:?}", String::from_utf8_lossy(&self.received)),
        );
        if self.side.is_client() {
            self.connection.close(now, 0);
        } else {
            let answer = Bytes::from_static(RESPONSE);
            let sent = self.connection.streams_mut().send(stream, answer, 0, true);
            assert!(sent.is_ok());
        }
    }

    #[allow(clippy::print_stdout, reason = "it shows what happens")]
    fn say(&self, now: Instant, what: &str) {
        println!("{:4} ms  {:?}: {what}", now.as_nanos() / 1_000_000, self.side);
    }
}

/// The server's connection, if a datagram opens one. A server with many would first look up the connection ID, and may validate the
/// client's address by a Retry.
fn incoming(now: Instant, datagram: &Datagram, seed: [u8; 32]) -> Option<Connection> {
    let Ok(ProtectedHeader::Long(initial)) = header::decode(&datagram.bytes, LOCAL_CID_LEN) else {
        return None;
    };
    let start = ServerStart {
        version: initial.version,
        peer_cid: initial.scid,
        original_dcid: initial.dcid,
        initial_dcid: initial.dcid,
        retry_scid: None,
        address_validated: false,
        path: path(datagram.to, datagram.from),
        local_cid: local_cid(Side::Server, 0),
    };
    Some(Connection::server(now, &start, seed))
}

/// A connection ID of ours. They must be unpredictable where packets leave the machine.
fn local_cid(side: Side, number: u8) -> LocalCid {
    let mut bytes = [side as u8; LOCAL_CID_LEN];
    bytes[LOCAL_CID_LEN - 1] = number;
    LocalCid {
        cid: ConnectionId::new(&bytes).expect("8 bytes are within the limit of 20"),
        token: ResetToken([number; 16]),
    }
}

fn path(local: SocketAddr, remote: SocketAddr) -> PathAddress {
    PathAddress {
        port: PortId(0),
        local,
        remote,
    }
}

fn client_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 50_000))
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 443))
}

/// What the peer may do; by default nothing.
fn config() -> Config {
    Config {
        streams: StreamsConfig {
            connection_window: 1 << 20,
            window_bidi_local: 1 << 16,
            window_bidi_remote: 1 << 16,
            window_uni: 1 << 16,
            peer_streams: [10, 10],
            ..StreamsConfig::default()
        },
        ..Config::default()
    }
}

/// A self-signed certificate for the server, which the client trusts.
fn tls() -> Result<(ServerTls, ClientTls), Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let alpns = vec![b"example".to_vec()];
    let server = ServerTls::new(ServerCredentials::new(chain.clone(), key), alpns.clone())?;
    let client = ClientTls::new(ClientCredentials::roots(chain), alpns)?;
    Ok((server, client))
}

#[cfg(test)]
mod tests {
    #[test]
    fn request_and_response_arrive_and_both_ends_close() {
        super::main().expect("it runs to its end");
    }
}
