//! Whole handshakes, up to where neither side has anything left to send.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ringway_engine::connection::config::Config;
use ringway_engine::connection::{Connection, ServerStart};
use ringway_engine::crypto::suite::CipherSuite;
use ringway_engine::crypto::tickets::{
    ClientTicket, ResumptionLevel, ServerResumption, TicketKey, TicketKeys,
};
use ringway_engine::crypto::tls::{
    ClientCredentials, ClientTls, ServerCredentials, ServerTls, TlsSession, warm_up,
};
use ringway_engine::streams::{StreamEvent, StreamKey, Streams, StreamsConfig};
use ringway_engine::wire::Version;
use ringway_engine::wire::header::{self, ProtectedHeader};
use rustls::pki_types::{PrivateKeyDer, ServerName};

use crate::endpoint::{
    Application, CLIENT, Endpoint, Flight, ONE_WAY, Pair, SERVER, config, local_cid, paths, start,
};
use crate::meter::{Meter, Part};
use crate::output::print_line;

const WARM_UP: u32 = 2;
const COUNTED: u32 = 50;

/// Has nothing to send.
struct Silent;

impl Application for Silent {
    fn on_data(&mut self, _: &mut Streams, _: StreamKey, _: &[u8], _: bool) {}
    fn on_event(&mut self, _: &mut Streams, _: StreamEvent) {}
}

struct HandshakeSetup {
    config: Arc<Config>,
    client: ClientTls,
    server: ServerTls,
    name: ServerName<'static>,
    /// Servers give tickets, and clients use them.
    resumes: bool,
}

impl HandshakeSetup {
    fn new(resumes: bool) -> Self {
        warm_up();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let alpns = vec![b"perf".to_vec()];
        let mut server = ServerCredentials::new(chain.clone(), key);
        server.cipher_suites = vec![CipherSuite::Aes128Gcm];
        let mut server = ServerTls::new(server, alpns.clone()).expect("a server's TLS");
        let mut client = ClientTls::new(ClientCredentials::roots(chain), alpns).expect("a client's TLS");
        if resumes {
            let keys = TicketKeys::new(&[TicketKey::random().expect("random numbers")]);
            server = server.with_resumption(ServerResumption::new(ResumptionLevel::ResumeOnly, keys));
            client = client.with_resumption();
        }
        HandshakeSetup {
            config: Arc::new(config(StreamsConfig {
                peer_streams: [100, 100],
                ..StreamsConfig::default()
            })),
            client,
            server,
            name: ServerName::try_from("localhost").expect("a name"),
            resumes,
        }
    }

    /// A handshake that resumes the session of this ticket, if there is one. Gives the ticket that it has brought.
    fn handshake(&self, meter: &mut Meter, index: u32, ticket: Option<ClientTicket>) -> Option<ClientTicket> {
        let is_resumed = ticket.is_some();
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&index.to_le_bytes());
        let [client_path, server_path] = paths();
        let now = start();
        let mut flight = Flight::new(1);
        let client = meter.run(Part::Client, || {
            let connection = Connection::client(
                now,
                Arc::clone(&self.config),
                &self.client,
                self.name.clone(),
                client_path,
                local_cid(CLIENT, 1),
                Vec::new(),
                ticket,
                seed,
            );
            let mut client = Endpoint::new(connection, CLIENT, None);
            client.transmit(now, 1, &mut flight);
            client
        });
        let now = now + ONE_WAY;
        let accept = Some((Arc::clone(&self.config), self.server.clone()));
        let server = meter.run(Part::Server, || {
            let (datagram, segment) = flight.drain().next().expect("a client speaks first");
            let Ok(ProtectedHeader::Long(first)) = header::decode(datagram, 8) else {
                panic!("a client begins with an Initial")
            };
            let start = ServerStart {
                version: first.version,
                peer_cid: first.scid,
                original_dcid: first.dcid,
                initial_dcid: first.dcid,
                retry_scid: None,
                address_validated: false,
                path: server_path,
                local_cid: local_cid(SERVER, 1),
            };
            let mut server = Endpoint::new(Connection::server(now, &start, seed), SERVER, accept);
            server.tickets.gives = self.resumes;
            server.receive(now, datagram, segment, &mut Silent);
            server
        });
        let mut pair = Pair::new(client, server, now);
        pair.exchange(meter, &mut Silent, &mut Silent);
        assert!(pair.client.connection.is_established() && pair.server.connection.is_established());
        assert_eq!(pair.server.connection.stats(pair.now).resumed, is_resumed);
        pair.client.tickets.received
    }

    /// The part of a handshake that TLS alone takes on the server: what the engine adds is the difference.
    fn tls_alone(&self) -> Duration {
        let mut client =
            TlsSession::client(&self.client, Version::V1, self.name.clone(), vec![1, 1, 5], None)
                .expect("a client's session");
        let mut to_server = Vec::new();
        while client.write(&mut to_server).expect("keys").is_some() {}
        let start = std::time::Instant::now();
        let mut server =
            TlsSession::server(&self.server, Version::V1, vec![1, 1, 6]).expect("a server's session");
        server.read(&to_server).expect("a ClientHello");
        let mut flights = vec![Vec::new()];
        let mut keys = Vec::new();
        while let Some(change) = server
            .write(flights.last_mut().expect("one at least"))
            .expect("keys")
        {
            keys.push(change);
            flights.push(Vec::new());
        }
        let mut spent = start.elapsed();
        let mut finished = Vec::new();
        for flight in &flights {
            client.read(flight).expect("a flight of the server");
            while client.write(&mut finished).expect("keys").is_some() {}
        }
        let start = std::time::Instant::now();
        server.read(&finished).expect("a Finished");
        spent += start.elapsed();
        assert!(!server.is_handshaking());
        black_box(keys.len());
        spent
    }
}

pub(crate) fn run(meter: &mut Meter) -> u64 {
    let setup = HandshakeSetup::new(false);
    for index in 0..WARM_UP {
        setup.handshake(meter, index, None);
    }
    meter.begin();
    for index in WARM_UP..WARM_UP + COUNTED {
        setup.handshake(meter, index, None);
    }
    u64::from(COUNTED)
}

/// Prints the processor time of each side, of full handshakes and of those that resume a session. A thread that is taken off its processor
/// meanwhile is seen in the median only if it happens all the time.
pub(crate) fn time(count: u32) {
    let setup = HandshakeSetup::new(false);
    let mut alone: Vec<Duration> = (0..count).map(|_| setup.tls_alone()).collect();
    alone.sort();
    print_line(&format!(
        "server, TLS alone: {:.1} us median",
        micros(middle(&alone))
    ));
    let setups = [setup, HandshakeSetup::new(true)];
    let mut tickets = [None, None];
    let mut times: [[Vec<Duration>; 2]; 2] = Default::default();
    for index in 0..count {
        // By turns.
        for ((setup, ticket), times) in setups.iter().zip(&mut tickets).zip(&mut times) {
            let mut meter = Meter::new(None);
            *ticket = setup.handshake(&mut meter, index, ticket.take());
            times[0].push(meter.spent(Part::Client));
            times[1].push(meter.spent(Part::Server));
        }
    }
    for (times, kind) in times.into_iter().zip(["full", "resumed, with a new ticket"]) {
        for (mut times, who) in times.into_iter().zip(["client", "server"]) {
            times.sort();
            let low = times[times.len() / 10];
            print_line(&format!(
                "{who}, {kind}: {:.1} us median, {:.1} us 10th percentile",
                micros(middle(&times)),
                micros(low)
            ));
        }
    }
}

fn middle(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
