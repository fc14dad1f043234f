//! Serves the files of a folder: a client opens a stream, writes a name, and reads the file. `file_server ADDRESS CHAIN.pem KEY.pem FOLDER`.
//!
//! Of each file no more than two pieces are in memory: the next one is read when the one before the last has been acknowledged.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ringway::{
    Configuration, Connection, ConnectionEvent, EventStatus, ExecutionConfig, Listener, ListenerEvent,
    ListenerOptions, Registration, ServerCredentials, Settings, Stream, StreamEvent, StreamHandler,
    StreamShutdown,
};

#[path = "common/mod.rs"]
mod common;
use common::Done;

/// Application error codes.
const NO_SUCH_FILE: u64 = 404;
const CANNOT_READ: u64 = 500;
const NAME_MAX: usize = 1024;
const PIECE: usize = 128 << 10;

fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, chain, key, folder] = &arguments[..] else {
        return Err("usage: file_server ADDRESS CHAIN.pem KEY.pem FOLDER".into());
    };
    let credentials = ServerCredentials::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let (_registration, _listener) = serve(address.parse()?, credentials, folder.into())?;
    loop {
        std::thread::park();
    }
}

/// Serves the files of a folder for as long as the two are kept.
pub(crate) fn serve(
    address: SocketAddr,
    credentials: ServerCredentials,
    folder: PathBuf,
) -> Done<(Registration, Listener)> {
    let registration = Registration::open("files", &ExecutionConfig::load(None)?)?;
    let settings = Settings {
        peer_bidi_stream_count: 100,
        ..registration.settings()
    };
    let configuration = Configuration::server(&[b"files"], settings, credentials)?;
    let folder: Arc<Path> = folder.into();
    let listener = Listener::start(
        &registration,
        ListenerOptions::new(address, &[b"files"]),
        move |event| {
            let ListenerEvent::NewConnection(incoming) = event else {
                return;
            };
            let folder = Arc::clone(&folder);
            incoming.accept(
                &configuration,
                move |_: &Connection, event: ConnectionEvent<'_>| {
                    if let ConnectionEvent::PeerStreamStarted(stream) = event {
                        stream.accept(Request {
                            folder: Arc::clone(&folder),
                            name: Vec::new(),
                            file: None,
                        });
                    }
                    EventStatus::Done
                },
            );
        },
    )?;
    Ok((registration, listener))
}

/// A stream: first a name comes, then a file goes. (Reading a file holds up the other connections of the partition for as long as the disk takes: a
/// server of large files has threads for that, which call the stream.)
struct Request {
    folder: Arc<Path>,
    name: Vec<u8>,
    file: Option<File>,
}

impl StreamHandler for Request {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        match event {
            StreamEvent::Receive(data) => {
                self.name.extend(data.to_vec());
                if self.name.len() > NAME_MAX {
                    let _ = stream.shutdown(StreamShutdown::Abort(NO_SUCH_FILE));
                } else if data.fin() {
                    self.file = self.open();
                    match self.file {
                        Some(_) => {
                            self.send_piece(stream);
                            self.send_piece(stream);
                        }
                        None => drop(stream.shutdown(StreamShutdown::AbortSend(NO_SUCH_FILE))),
                    }
                }
            }
            StreamEvent::SendComplete { canceled: false, .. } => self.send_piece(stream),
            _ => {}
        }
        EventStatus::Done
    }
}

impl Request {
    /// Only names below the folder.
    fn open(&self) -> Option<File> {
        let name = Path::new(std::str::from_utf8(&self.name).ok()?);
        let is_below = name.components().all(|part| matches!(part, Component::Normal(_)));
        let file = File::open(self.folder.join(name)).ok().filter(|_| is_below)?;
        file.metadata().ok()?.is_file().then_some(file)
    }

    fn send_piece(&mut self, stream: &Stream) {
        let Some(file) = &mut self.file else { return };
        let mut piece = Vec::with_capacity(PIECE);
        match file.take(PIECE as u64).read_to_end(&mut piece) {
            Ok(len) => {
                let is_last = len < PIECE;
                if is_last {
                    self.file = None;
                }
                let _ = stream.send(piece.into(), 0, is_last);
            }
            Err(_) => {
                self.file = None;
                let _ = stream.shutdown(StreamShutdown::AbortSend(CANNOT_READ));
            }
        }
    }
}
