//! Tickets that leave the process as bytes: a process gets them, another one resumes sessions with them, over the kernel's network and on the datapath
//! that `TEST_DATAPATH` names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use ringway::{
    ClientCredentials, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus,
    Listener, ListenerEvent, ListenerOptions, ResumptionAnswer, ResumptionLevel, ResumptionTicket, SendFlags,
    Settings, SetupError, Stream, StreamEvent, TicketImportError, TicketScope, TicketStore, ZeroRtt,
};
use ringway_tests::order::ordered;
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, address, client, server, settings};

const TIMEOUT: Duration = Duration::from_secs(20);
/// What a process of clients is to do, and the folder with what it needs for that.
const ROLE: &str = "TICKET_TEST_ROLE";
const FOLDER: &str = "TICKET_TEST_FOLDER";
const TICKETS: usize = 2;
/// The file that is there when a client has asked for something.
const ASKED: &str = "asked";

#[test]
fn tickets_of_one_process_bring_0_rtt_in_another() {
    if let Ok(role) = std::env::var(ROLE) {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        return match &role[..] {
            "get" => get_tickets(&folder),
            "use" => use_tickets(&folder),
            other => panic!("{ROLE}={other}"),
        };
    }
    let authority = Authority::new("Root");
    let settings = Settings {
        server_resumption_level: ResumptionLevel::ResumeAndZeroRtt,
        tickets_per_connection: TICKETS as u8,
        ..settings()
    };
    let configuration =
        Configuration::server(&[ALPN], settings, authority.issue(&["localhost"]).server()).unwrap();
    let server = server(1);
    let options = ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]);
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join(ASKED);
    let listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let asked = asked.clone();
            let handler =
                move |connection: &Connection, event: ConnectionEvent<'_>| serve(connection, event, &asked);
            incoming.accept(&configuration, ordered(handler));
        }
    })
    .unwrap();

    fs::write(folder.path().join("root"), authority.root()).unwrap();
    fs::write(folder.path().join("server"), listener.local_address().to_string()).unwrap();
    for role in ["get", "use"] {
        let name = "tickets::tickets_of_one_process_bring_0_rtt_in_another";
        let output = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(ROLE, role)
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{role}:\n{text}"
        );
    }
    server.close();
}

/// Gives out tickets, and answers each request with whether it came in 0-RTT.
fn serve(connection: &Connection, event: ConnectionEvent<'_>, asked: &Path) -> EventStatus {
    match event {
        ConnectionEvent::Resumed { .. } => {
            // A handshake takes less than a busy machine may take to let the client say what it asks for.
            let (connection, asked) = (connection.clone(), asked.to_owned());
            thread::spawn(move || {
                while fs::remove_file(&asked).is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
                let _ = connection.resumption_ticket_validation_complete(ResumptionAnswer::Accept);
            });
            return EventStatus::Pending;
        }
        ConnectionEvent::Connected { .. } => {
            for _ in 0..TICKETS {
                connection.send_resumption_ticket(b"").unwrap();
            }
        }
        ConnectionEvent::PeerStreamStarted(stream) => {
            stream.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                if let StreamEvent::Receive(data) = event
                    && data.fin()
                {
                    let answer: &[u8] = if data.is_zero_rtt() { b"early" } else { b"late" };
                    let _ = stream.send(answer.into(), 0, true);
                }
                EventStatus::Done
            }));
        }
        _ => {}
    }
    EventStatus::Done
}

fn configuration(folder: &Path) -> Arc<Configuration> {
    let root = fs::read(folder.join("root")).unwrap();
    let credentials = ClientCredentials::roots(vec![root.into()]);
    Configuration::client(&[ALPN], settings(), credentials).unwrap()
}

fn target(folder: &Path) -> ConnectTarget {
    let server = fs::read_to_string(folder.join("server")).unwrap();
    ConnectTarget::new(server.parse().unwrap(), "localhost")
}

fn ticket(folder: &Path, number: usize) -> Vec<u8> {
    fs::read(folder.join(format!("ticket {number}"))).unwrap()
}

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Connected { resumed: bool, zero_rtt: ZeroRtt },
    Ticket(Vec<u8>),
    Answer(Vec<u8>),
}

fn on_client(seen: Sender<Seen>) -> impl ringway::ConnectionHandler {
    ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
        let _ = seen.send(match event {
            ConnectionEvent::Connected {
                resumed, zero_rtt, ..
            } => Seen::Connected { resumed, zero_rtt },
            ConnectionEvent::ResumptionTicketReceived(ticket) => {
                Seen::Ticket(ticket.export().unwrap().to_vec())
            }
            _ => return EventStatus::Done,
        });
        EventStatus::Done
    })
}

/// Asks for something before the handshake is complete, and waits for all that comes of it.
fn ask(folder: &Path, connection: &Connection, sender: &Sender<Seen>, seen: &Receiver<Seen>) {
    let (sender, asked) = (sender.clone(), folder.join(ASKED));
    let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
        match event {
            // The server may answer now: what is sent leaves before anything more is received.
            StreamEvent::StartComplete(_) => fs::write(&asked, b"").unwrap(),
            StreamEvent::Receive(data) => {
                let _ = sender.send(Seen::Answer(data.to_vec()));
            }
            _ => {}
        }
        EventStatus::Done
    });
    let stream = Stream::open(connection, Direction::Bidirectional, handler).unwrap();
    stream
        .send_with(
            "early?".into(),
            0,
            SendFlags::START | SendFlags::ALLOW_0_RTT | SendFlags::FIN,
        )
        .unwrap();
    let wanted = [
        Seen::Connected {
            resumed: true,
            zero_rtt: ZeroRtt::Accepted,
        },
        Seen::Answer(b"early".to_vec()),
    ];
    let mut left = wanted.len();
    while left > 0 {
        match seen.recv_timeout(TIMEOUT).unwrap() {
            Seen::Ticket(_) => {}
            // At the end of a stream comes nothing more.
            Seen::Answer(data) if data.is_empty() => {}
            other => {
                assert!(wanted.contains(&other), "{other:?}");
                left -= 1;
            }
        }
    }
}

/// The first process.
fn get_tickets(folder: &Path) {
    let registration = client(1);
    let configuration = configuration(folder);
    let (sender, seen) = channel();
    let connection =
        Connection::start(&registration, &configuration, &target(folder), on_client(sender)).unwrap();
    let mut number = 0;
    while number < TICKETS {
        if let Seen::Ticket(bytes) = seen.recv_timeout(TIMEOUT).unwrap() {
            fs::write(folder.join(format!("ticket {number}")), bytes).unwrap();
            number += 1;
        }
    }
    drop(connection);
    registration.close();
}

/// The second one: a ticket for a connection, another one from a store.
fn use_tickets(folder: &Path) {
    let registration = client(1);
    let configuration = configuration(folder);
    let (sender, seen) = channel();
    let start = |target: &ConnectTarget| {
        Connection::start(&registration, &configuration, target, on_client(sender.clone()))
    };

    let mut damaged = ticket(folder, 0);
    damaged[20] ^= 1;
    let error = start(&target(folder).with_resumption_ticket(damaged)).unwrap_err();
    assert!(
        matches!(error, SetupError::Ticket(TicketImportError::NotATicket)),
        "{error}"
    );
    let mut other = target(folder).with_resumption_ticket(ticket(folder, 0));
    other.server_name = "other".to_owned();
    let error = start(&other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "resumption ticket: the ticket is one of \"localhost\", and serves no other server; start the connection without it"
    );

    let connection = start(&target(folder).with_resumption_ticket(ticket(folder, 0))).unwrap();
    ask(folder, &connection, &sender, &seen);
    drop(connection);

    configuration.set_ticket_store(Arc::new(Files {
        folder: folder.to_owned(),
        configuration: Arc::downgrade(&configuration),
    }));
    let connection = start(&target(folder)).unwrap();
    ask(folder, &connection, &sender, &seen);
    drop(connection);
    registration.close();
}

/// Keeps tickets in files.
struct Files {
    folder: PathBuf,
    configuration: Weak<Configuration>,
}

impl TicketStore for Files {
    fn put(&self, _: &TicketScope, _: ResumptionTicket) {}

    fn take(&self, scope: &TicketScope) -> Option<ResumptionTicket> {
        let configuration = self.configuration.upgrade()?;
        Some(
            configuration
                .import_ticket(scope, &ticket(&self.folder, 1))
                .unwrap(),
        )
    }
}
