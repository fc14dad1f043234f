//! HTTP/3, by quiche's own.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use quiche::Config;
use quiche::h3::{self, Event, Header, NameValue};
use ringway_peers::{ALPN_HTTP3, Files, Group, Http3ClientArgs, Http3ServerArgs, STREAM_WINDOW};
use ringway_peers_sans_io::{connect, readable};
use rustc_hash::FxHashMap;

use crate::connections::{Connections, Hosted};
use crate::server::{Service, listen};
use crate::{Buffers, Connection, config, new_id};

/// The control streams of both ends, and those of QPACK, leave some for more.
const UNI_STREAMS: u64 = 16;
/// How long nothing may arrive before a client gives up.
const SILENCE: Duration = Duration::from_secs(30);

fn http3_config() -> Result<Config> {
    let mut config = config(Group::X25519)?;
    config.set_application_protos(&[ALPN_HTTP3])?;
    config.set_initial_max_streams_uni(UNI_STREAMS);
    config.set_initial_max_stream_data_uni(STREAM_WINDOW.into());
    Ok(config)
}

pub fn server(args: &Http3ServerArgs) -> Result<()> {
    let service = Http3 {
        files: Files::read(&args.root)?,
        config: h3::Config::new()?,
        buffer: vec![0; 1 << 16],
    };
    listen(&args.server(), http3_config()?, service)
}

struct Http3 {
    files: Files,
    config: h3::Config,
    buffer: Vec<u8>,
}

/// HTTP/3 on a connection.
#[derive(Default)]
struct Answers {
    http: Option<h3::Connection>,
    /// Paths of requests that are not complete.
    asked: FxHashMap<u64, String>,
    /// What is not sent of responses.
    responses: FxHashMap<u64, Response>,
}

struct Response {
    headers: Option<[Header; 2]>,
    content: Bytes,
}

impl Response {
    /// Gives quiche as much as it takes. Whether anything is left to give.
    fn write(&mut self, http: &mut h3::Connection, connection: &mut Connection, id: u64) -> bool {
        if let Some(headers) = &self.headers {
            match http.send_response::<_, Buffers>(connection, id, headers, self.content.is_empty()) {
                Ok(()) => self.headers = None,
                Err(h3::Error::StreamBlocked) => return true,
                // The client has given up.
                Err(_) => return false,
            }
        }
        while !self.content.is_empty() {
            match http.send_body(connection, id, &self.content, true) {
                Ok(taken) => drop(self.content.split_to(taken)),
                Err(h3::Error::Done) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

impl Service for Http3 {
    type State = Answers;

    fn work(&mut self, connection: &mut Connection, state: &mut Answers) {
        if state.http.is_none() && connection.is_established() {
            state.http = h3::Connection::with_transport(connection, &self.config).ok();
        }
        let Some(http) = &mut state.http else { return };
        if !state.responses.is_empty() {
            for id in connection.writable() {
                if let Some(mut response) = state.responses.remove(&id)
                    && response.write(http, connection, id)
                {
                    state.responses.insert(id, response);
                }
            }
        }
        loop {
            match http.poll(connection) {
                Ok((id, Event::Headers { list, .. })) => {
                    if let Some(path) = list.iter().find(|field| field.name() == b":path") {
                        let path = String::from_utf8_lossy(path.value()).into_owned();
                        state.asked.insert(id, path);
                    }
                }
                Ok((id, Event::Data)) => while http.recv_body(connection, id, &mut self.buffer).is_ok() {},
                Ok((id, Event::Finished)) => {
                    let Some(path) = state.asked.remove(&id) else {
                        continue;
                    };
                    let (status, content) = match self.files.get(&path) {
                        Some(content) => (&b"200"[..], content.clone()),
                        None => (&b"404"[..], Bytes::new()),
                    };
                    let len = content.len().to_string();
                    let headers = [
                        Header::new(b":status", status),
                        Header::new(b"content-length", len.as_bytes()),
                    ];
                    let mut response = Response {
                        headers: Some(headers),
                        content,
                    };
                    if response.write(http, connection, id) {
                        state.responses.insert(id, response);
                    }
                }
                Ok((id, Event::Reset(_))) => {
                    state.asked.remove(&id);
                    state.responses.remove(&id);
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

pub fn client(args: &Http3ClientArgs) -> Result<()> {
    let mut config = http3_config()?;
    let ca = readable(&args.ca)?;
    config
        .load_verify_locations_from_file(ca)
        .with_context(|| format!("reading the certificates in {ca}"))?;
    config.verify_peer(true);
    let (mut receiver, mut sender, local) = connect(args.target)?;
    let mut connections = Connections::new(local, None);
    let id = new_id();
    let name = Some(args.server_name.as_str());
    let id_ref = quiche::ConnectionId::from_ref(&id);
    let connection: Connection =
        quiche::connect_with_buffer_factory(name, &id_ref, local, args.target, &mut config)?;
    let mut now = Instant::now();
    let key = connections.add(connection, Gets::default(), &[&id], now);
    connections.send(key, &mut sender)?;
    sender.flush()?;
    let mut heard = now;
    loop {
        let limit = connections.idle_time(now).unwrap_or(SILENCE);
        receiver.wait(Some(limit))?;
        now = Instant::now();
        receiver.receive(|from, datagram| {
            heard = now;
            if let Some(key) = connections.receive(from, datagram, now) {
                connections.make_ready(key);
            }
            Ok(())
        })?;
        connections.expire(now);
        while let Some(key) = connections.next_ready() {
            let Hosted {
                connection, state, ..
            } = &mut connections[key];
            state.work(connection, args)?;
            if state.written == args.names.len() {
                let _ = connection.close(true, 0x100, b"");
            }
            connections.send(key, &mut sender)?;
        }
        sender.flush()?;
        if connections[key].state.written == args.names.len() {
            return Ok(());
        }
        ensure!(
            !connections[key].connection.is_closed(),
            "the connection has ended: {:?}",
            connections[key].connection.peer_error()
        );
        ensure!(now < heard + SILENCE, "nothing arrives");
    }
}

/// The requests of a client.
#[derive(Default)]
struct Gets {
    http: Option<h3::Connection>,
    /// Their names, and what has arrived.
    files: FxHashMap<u64, (String, Vec<u8>)>,
    written: usize,
}

impl Gets {
    fn work(&mut self, connection: &mut Connection, args: &Http3ClientArgs) -> Result<()> {
        if self.http.is_none() && connection.is_established() {
            let mut http = h3::Connection::with_transport(connection, &h3::Config::new()?)?;
            for name in &args.names {
                let path = format!("/{name}");
                let headers = [
                    Header::new(b":method", b"GET"),
                    Header::new(b":scheme", b"https"),
                    Header::new(b":authority", args.server_name.as_bytes()),
                    Header::new(b":path", path.as_bytes()),
                ];
                let id = http.send_request(connection, &headers, true)?;
                self.files.insert(id, (name.clone(), Vec::new()));
            }
            self.http = Some(http);
        }
        let Some(http) = &mut self.http else { return Ok(()) };
        loop {
            match http.poll(connection) {
                Ok((id, Event::Headers { list, .. })) => {
                    let status = list.iter().find(|field| field.name() == b":status");
                    let status = status.map(|field| String::from_utf8_lossy(field.value()));
                    ensure!(
                        status.as_deref() == Some("200"),
                        "{}: {status:?}",
                        self.files[&id].0
                    );
                }
                Ok((id, Event::Data)) => {
                    let Some((_, content)) = self.files.get_mut(&id) else {
                        continue;
                    };
                    let mut buffer = [0; 1 << 14];
                    while let Ok(len) = http.recv_body(connection, id, &mut buffer) {
                        content.extend_from_slice(&buffer[..len]);
                    }
                }
                Ok((id, Event::Finished)) => {
                    let Some((name, content)) = self.files.remove(&id) else {
                        continue;
                    };
                    let path = args.output.join(name);
                    fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
                    self.written += 1;
                }
                Ok((id, Event::Reset(code))) => bail!("stream {id} was reset with code {code}"),
                Ok(_) => {}
                Err(h3::Error::Done) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
