//! quiche as a peer, on a blocking socket in one thread.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use quiche::{Config, Connection, ConnectionId, Header, RecvInfo, Type};
use rand::RngExt;
use ringway_interop::{
    ALPN, Args, CANNOT, ClientArgs, Command, DATAGRAM, Pattern, Request, Scenario, WINDOW, report,
};

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Server {
            listen,
            cert,
            key,
            retry,
        } => {
            let mut config = config()?;
            config.load_cert_chain_from_pem_file(&cert.to_string_lossy())?;
            config.load_priv_key_from_pem_file(&key.to_string_lossy())?;
            serve(listen, config, retry)
        }
        Command::Client(args) => client(&args),
    }
}

fn config() -> Result<Config> {
    let mut config = Config::new(quiche::PROTOCOL_VERSION)?;
    let window = u64::from(WINDOW);
    config.set_application_protos(&[ALPN])?;
    config.set_max_idle_timeout(30_000);
    config.set_max_recv_udp_payload_size(DATAGRAM.into());
    config.set_max_send_udp_payload_size(DATAGRAM.into());
    config.discover_pmtu(true);
    config.set_initial_max_data(window);
    config.set_initial_max_stream_data_bidi_local(window);
    config.set_initial_max_stream_data_bidi_remote(window);
    config.set_initial_max_streams_bidi(1000);
    config.set_max_connection_window(window);
    config.set_max_stream_window(window);
    Ok(config)
}

fn socket(local: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(local)?;
    let options = socket2::SockRef::from(&socket);
    options.set_recv_buffer_size(8 << 20)?;
    options.set_send_buffer_size(8 << 20)?;
    Ok(socket)
}

fn flush(socket: &UdpSocket, connection: &mut Connection) -> Result<()> {
    let mut out = [0; 2048];
    loop {
        match connection.send(&mut out) {
            Ok((len, info)) => {
                // What the kernel does not take is lost, like any packet.
                let _ = socket.send_to(&out[..len], info.to);
            }
            Err(quiche::Error::Done) => return Ok(()),
            Err(error) => bail!("send: {error}"),
        }
    }
}

fn new_id() -> [u8; 16] {
    let mut id = [0; 16];
    rand::rng().fill(&mut id);
    id
}

/// A response under way.
#[derive(Default)]
struct Stream {
    request: Request,
    response: Option<u64>,
    sent: u64,
}

struct Client {
    connection: Connection,
    streams: HashMap<u64, Stream>,
}

impl Client {
    /// What it finds wrong it tells us, and its peer only a code that stands for much.
    fn receive(&mut self, datagram: &mut [u8], info: RecvInfo) {
        if let Err(error) = self.connection.recv(datagram, info) {
            eprintln!("quiche: {error:?}");
        }
    }
}

fn serve(listen: SocketAddr, mut config: Config, retry: bool) -> Result<()> {
    let socket = socket(&listen.to_string())?;
    let local = socket.local_addr()?;
    println!("LISTENING {local}");
    let mut clients: HashMap<ConnectionId<'static>, Client> = HashMap::new();
    let mut buffer = [0; 65536];
    let pattern = Pattern::default();
    loop {
        let timeout = clients
            .values()
            .filter_map(|client| client.connection.timeout())
            .min();
        socket.set_read_timeout(Some(
            timeout
                .unwrap_or(Duration::from_secs(1))
                .max(Duration::from_micros(100)),
        ))?;
        socket.set_nonblocking(false)?;
        for _ in 0..64 {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                break;
            };
            socket.set_nonblocking(true)?;
            let datagram = &mut buffer[..len];
            let Ok(header) = Header::from_slice(datagram, 16) else {
                continue;
            };
            let id = ConnectionId::from_vec(header.dcid.to_vec());
            if !clients.contains_key(&id) {
                if header.ty != Type::Initial {
                    continue;
                }
                let mut out = [0; 2048];
                if !quiche::version_is_supported(header.version) {
                    let len = quiche::negotiate_version(&header.scid, &header.dcid, &mut out)?;
                    socket.send_to(&out[..len], from)?;
                    continue;
                }
                let token = header.token.clone().unwrap_or_default();
                let mut original = None;
                let mut scid = new_id().to_vec();
                if retry {
                    if token.is_empty() {
                        // A token for tests: the connection ID in the open.
                        let new = new_id();
                        let len = quiche::retry(
                            &header.scid,
                            &header.dcid,
                            &ConnectionId::from_ref(&new),
                            &[b"perf", &header.dcid[..]].concat(),
                            header.version,
                            &mut out,
                        )?;
                        socket.send_to(&out[..len], from)?;
                        continue;
                    }
                    original = Some(ConnectionId::from_vec(token[4..].to_vec()));
                    scid = header.dcid.to_vec();
                }
                let scid = ConnectionId::from_vec(scid);
                let connection = quiche::accept(&scid, original.as_ref(), local, from, &mut config)?;
                clients.insert(
                    scid.clone(),
                    Client {
                        connection,
                        streams: HashMap::new(),
                    },
                );
                if let Some(client) = clients.get_mut(&scid) {
                    client.receive(datagram, RecvInfo { from, to: local });
                }
                // The client's own connection ID leads here until it uses ours.
                continue;
            }
            if let Some(client) = clients.get_mut(&id) {
                client.receive(datagram, RecvInfo { from, to: local });
            }
        }
        for client in clients.values_mut() {
            if client
                .connection
                .timeout()
                .is_some_and(|timeout| timeout.is_zero())
            {
                client.connection.on_timeout();
            }
            answer(client, &pattern, &mut buffer);
            flush(&socket, &mut client.connection)?;
        }
        clients.retain(|_, client| !client.connection.is_closed());
    }
}

fn answer(client: &mut Client, pattern: &Pattern, buffer: &mut [u8]) {
    let Client { connection, streams } = client;
    for id in connection.readable() {
        let stream = streams.entry(id).or_default();
        while let Ok((len, fin)) = connection.stream_recv(id, buffer) {
            stream.request.take(&buffer[..len], pattern);
            if fin {
                stream.response = stream.request.response_len();
                if stream.response.is_none() {
                    let _ = connection.stream_shutdown(id, quiche::Shutdown::Write, 1);
                }
            }
        }
    }
    for (&id, stream) in streams.iter_mut() {
        while let Some(len) = stream.response {
            let piece = pattern.piece(stream.sent, len - stream.sent);
            let fin = stream.sent + piece.len() as u64 == len;
            match connection.stream_send(id, &piece, fin) {
                Ok(count) => {
                    stream.sent += count as u64;
                    if fin && stream.sent == len {
                        stream.response = None;
                    }
                }
                Err(_) => break,
            }
        }
    }
}

fn client(args: &ClientArgs) -> Result<()> {
    if args.key_update {
        // No call of its API starts a key update.
        std::process::exit(CANNOT);
    }
    let mut config = config()?;
    config.load_verify_locations_from_file(&args.ca.to_string_lossy())?;
    config.verify_peer(true);
    let socket = socket("127.0.0.1:0")?;
    let local = socket.local_addr()?;
    let id = new_id();
    let mut connection = quiche::connect(
        Some(&args.server_name),
        &ConnectionId::from_ref(&id),
        local,
        args.connect,
        &mut config,
    )?;
    let pattern = Pattern::default();
    let mut buffer = [0; 65536];
    let header = args.response_len().to_be_bytes();
    let len = args.upload_len();
    let (mut header_sent, mut sent, mut received, mut ended) = (false, 0, 0, false);
    let mut start = None;
    let mut end = None;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last_heard = Instant::now();
    loop {
        flush(&socket, &mut connection)?;
        let timeout = connection
            .timeout()
            .unwrap_or(Duration::from_secs(1))
            .max(Duration::from_micros(100));
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(timeout))?;
        let mut heard = false;
        for _ in 0..64 {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                break;
            };
            heard = true;
            last_heard = Instant::now();
            socket.set_nonblocking(true)?;
            let _ = connection.recv(&mut buffer[..len], RecvInfo { from, to: local });
        }
        if !heard && connection.timeout().is_some_and(|timeout| timeout.is_zero()) {
            connection.on_timeout();
        }
        if last_heard.elapsed() > Duration::from_millis(300) {
            last_heard = Instant::now();
            let _ = connection.send_ack_eliciting();
        }
        if connection.is_closed() {
            bail!(
                "the connection ended: {:?} {:?}",
                connection.peer_error(),
                connection.local_error()
            );
        }
        ensure!(args.seconds.is_some() || Instant::now() < deadline, "timeout");
        if !connection.is_established() {
            continue;
        }
        if start.is_none() {
            start = Some(Instant::now());
            end = args.end();
        }
        let over = end.is_some_and(|end| Instant::now() >= end);
        if !header_sent {
            header_sent = connection.stream_send(0, &header, len == 0)? == header.len();
            ensure!(header_sent, "no room for eight bytes");
        }
        while sent < len && !ended {
            let piece = pattern.piece(sent, len - sent);
            match connection.stream_send(0, &piece, sent + piece.len() as u64 == len) {
                Ok(count) => sent += count as u64,
                Err(_) => break,
            }
        }
        if over && !ended && len > 0 {
            ended = connection.stream_send(0, b"", true).is_ok();
        }
        let mut fin = false;
        while let Ok((len, end)) = connection.stream_recv(0, &mut buffer) {
            ensure!(
                args.seconds.is_some() || pattern.matches(received, &buffer[..len]),
                "wrong content"
            );
            received += len as u64;
            fin |= end;
        }
        if fin || (over && args.scenario == Scenario::Download) {
            break;
        }
    }
    let moved = if args.scenario == Scenario::Download {
        received
    } else {
        sent
    };
    ensure!(
        args.seconds.is_some() || moved == args.bytes,
        "{moved} bytes were transferred, not {}",
        args.bytes
    );
    report(moved, start.context("never connected")?);
    connection.close(true, 0, b"")?;
    flush(&socket, &mut connection)
}
