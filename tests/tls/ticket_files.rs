//! The manual's example of tickets as files, as it stands there, and run. Over the kernel's network, on the datapath that `TEST_DATAPATH` names.

use std::os::unix::fs::PermissionsExt;

use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, address, client, server, settings};

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use ringway::*;

/// Hands tickets on and keeps none, as each serves once: `configuration.set_ticket_store(Arc::new(HandOn(sender)))`.
struct HandOn(mpsc::Sender<TicketBytes>);

impl TicketStore for HandOn {
    fn put(&self, _: &TicketScope, ticket: ResumptionTicket) {
        if let Some(bytes) = ticket.export() {
            // This is a worker, which no disk may hold up: who receives them calls `save`.
            let _ = self.0.send(bytes);
        }
    }

    fn take(&self, _: &TicketScope) -> Option<ResumptionTicket> {
        None
    }
}

/// The file with a name that is longer by this.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}.{suffix}", path.display()))
}

/// Writes a ticket where nobody else can read or write: in a new file, as one that is there keeps the mode that it has.
fn save(path: &Path, ticket: &TicketBytes) -> io::Result<()> {
    let new = beside(path, "new");
    let _ = fs::remove_file(&new);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?.write_all(ticket)?;
    fs::rename(new, path)
}

/// Takes a ticket out of its file, which is gone before anything is done with it. Of several processes one gets it.
fn take(path: &Path) -> Option<TicketBytes> {
    let own = beside(path, &std::process::id().to_string());
    fs::rename(path, &own).ok()?;
    let bytes = fs::read(&own).ok().map(TicketBytes::from);
    fs::remove_file(&own).ok()?;
    bytes
}

fn connect(
    registration: &Registration,
    configuration: &Arc<Configuration>,
    target: &ConnectTarget,
    path: &Path,
    handler: impl ConnectionHandler + Clone,
) -> Result<Connection, SetupError> {
    if let Some(ticket) = take(path) {
        let target = target.clone().with_resumption_ticket(ticket);
        match Connection::start(registration, configuration, &target, handler.clone()) {
            // It has expired, say, as the error tells: the connection begins without it.
            Err(SetupError::Ticket(_)) => {}
            started => return started,
        }
    }
    Connection::start(registration, configuration, target, handler)
}

const MANUAL: &str = include_str!("../../src/ringway/src/manual/resumption.md");
const THIS_FILE: &str = include_str!("ticket_files.rs");
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

#[test]
fn example_is_that_of_the_manual() {
    let (_, section) = MANUAL.split_once("### Tickets of another process").unwrap();
    let example = section.split("```\n").nth(1).unwrap();
    assert!(THIS_FILE.contains(example), "compiled otherwise, or not at all:\n{example}");
}

#[test]
fn ticket_in_a_file_is_its_owners_alone_and_serves_once() {
    let authority = Authority::new("Root");
    let settings = Settings { server_resumption_level: ResumptionLevel::ResumeOnly, ..settings() };
    let configuration = Configuration::server(&[ALPN], settings, authority.issue(&["localhost"]).server()).unwrap();
    let server = server(1);
    let listener = Listener::start(&server, ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]), move |event| {
        let ListenerEvent::NewConnection(incoming) = event else { return };
        incoming.accept(&configuration, |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { .. } = event {
                connection.send_resumption_ticket(b"").unwrap();
            }
        });
    })
    .unwrap();
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let folder = tempfile::tempdir().unwrap();
    // The name of a server has dots.
    let path = folder.path().join("example.org");

    // Each has a store that keeps nothing, as another process would.
    let registration = client(1);
    let another = || {
        let credentials = ClientCredentials::roots(vec![authority.root().to_vec().into()]);
        let configuration = Configuration::client(&[ALPN], ringway_tests::settings(), credentials).unwrap();
        let (sender, tickets) = mpsc::channel();
        configuration.set_ticket_store(Arc::new(HandOn(sender)));
        let (sender, resumed) = mpsc::channel();
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { resumed, .. } = event {
                let _ = sender.send(resumed);
            }
        };
        let connection = connect(&registration, &configuration, &target, &path, handler).unwrap();
        let is_resumed = resumed.recv_timeout(TIMEOUT).unwrap();
        (connection, is_resumed, tickets)
    };
    let (_first, is_resumed, tickets) = another();
    assert!(!is_resumed, "there is no file");
    // One that everybody could read.
    fs::write(&path, b"old").unwrap();
    save(&path, &tickets.recv_timeout(TIMEOUT).unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let (_second, is_resumed, _tickets) = another();
    assert!(is_resumed);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nobody can use it again");
    let (_third, is_resumed, _tickets) = another();
    assert!(!is_resumed);
    fs::write(&path, b"no ticket").unwrap();
    let (_fourth, is_resumed, _tickets) = another();
    assert!(!is_resumed, "what is no ticket keeps no connection from beginning");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "it is not tried again");
    registration.close();
    server.close();
}
