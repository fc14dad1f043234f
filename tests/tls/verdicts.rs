//! Certificates of clients and servers that the application has a say in, at once or later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::rustls::pki_types::CertificateRevocationListDer;
use ringway::{
    CallError, CertificateReceived, ClientAuthentication, ClientCredentials, Configuration, Connection,
    EventStatus, ResumptionLevel, ResumptionTicket, RetryPolicy, Settings, TicketScope, TicketStore,
};
use ringway_tests::pki::{Authority, Made};
use ringway_tests::{ALPN, settings};

use crate::scene::{Scene, Seen, done, send, watch};

/// A server that authenticates its clients so.
fn server(authority: &Authority, authentication: ClientAuthentication) -> Arc<Configuration> {
    let mut credentials = authority.issue(&["localhost"]).server();
    credentials.client_authentication = authentication;
    Configuration::server(&[ALPN], settings(), credentials).unwrap()
}

fn roots(
    authority: &Authority,
    crls: Vec<CertificateRevocationListDer<'static>>,
    required: bool,
) -> ClientAuthentication {
    ClientAuthentication::Roots {
        roots: vec![authority.root()],
        crls,
        required,
    }
}

fn client(mut credentials: ClientCredentials, made: Option<&Made>) -> Arc<Configuration> {
    credentials.identity = made.map(Made::identity);
    Configuration::client(&[ALPN], settings(), credentials).unwrap()
}

#[test]
fn clients_are_asked_or_required_and_verified_against_roots_and_revocation_lists() {
    let (authority, other) = (Authority::new("Root"), Authority::new("Another Root"));
    let (good, revoked, foreign) = (
        authority.issue(&["client"]),
        authority.issue(&["client"]),
        other.issue(&["client"]),
    );
    let crl = || vec![authority.revoke(&[&revoked])];
    for (crls, required, made, certificates, failure) in [
        (vec![], true, Some(&good), 1, ""),
        (vec![], true, None, 0, "certificate_required"),
        (vec![], false, None, 0, ""),
        (vec![], false, Some(&good), 1, ""),
        (vec![], false, Some(&foreign), 0, "UnknownIssuer"),
        (crl(), true, Some(&good), 1, ""),
        (crl(), true, Some(&revoked), 0, "Revoked"),
        (vec![], true, Some(&revoked), 1, ""),
    ] {
        let mut scene = Scene::of(&server(&authority, roots(&authority, crls, required)));
        scene.connect(&client(authority.client(), made), "localhost");
        if failure.is_empty() {
            scene.connected();
            let connected = scene.server_log.all()[0].clone();
            assert!(
                matches!(connected, Seen::Connected { certificates: shown, .. } if shown == certificates),
                "{connected:?}"
            );
        } else {
            scene.until(failure, |scene| scene.server_log.failure().is_some());
            let text = scene.server_log.failure_text();
            assert!(
                text.starts_with("we refused the handshake: ") && text.contains(failure)
                    || text.contains("certificate required")
                    || text.contains("NoCertificatesPresented")
                    || text.contains("116"),
                "{text}"
            );
            assert!(!scene.server_log.is_connected());
        }
    }
}

#[test]
fn server_whose_certificate_is_revoked_is_not_trusted() {
    let authority = Authority::new("Root");
    let (good, revoked) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let mut credentials = authority.client();
    credentials.crls = vec![authority.revoke(&[&revoked])];
    let client = client(credentials, None);
    for (made, trusted) in [(good, true), (revoked, false)] {
        let server = Configuration::server(&[ALPN], settings(), made.server()).unwrap();
        let mut scene = Scene::of(&server);
        scene.connect(&client, "localhost");
        if trusted {
            scene.connected();
        } else {
            scene.until("revoked", |scene| scene.client_log.failure().is_some());
            assert!(scene.client_log.failure_text().contains("certificate_revoked"));
        }
    }
}

#[test]
fn handler_of_a_client_is_told_what_the_verification_has_found_and_has_the_last_word() {
    let (authority, other) = (Authority::new("Root"), Authority::new("Another Root"));
    let server = server(&authority, ClientAuthentication::None);
    let trusts = |connection: &Connection| {
        connection.certificate_valid(true).unwrap();
        // One answer counts, the first.
        assert!(matches!(
            connection.certificate_valid(false),
            Err(CallError::InvalidState(_))
        ));
        EventStatus::Done
    };
    let refuses: fn(&Connection) -> EventStatus = |_| EventStatus::Refuse(1);
    for (trusted, received, answer, connects, error) in [
        (&authority, CertificateReceived::NotIndicated, refuses, true, None),
        (&authority, CertificateReceived::Indicated, done, true, Some(None)),
        (
            &authority,
            CertificateReceived::Indicated,
            refuses,
            false,
            Some(None),
        ),
        // Verified before anybody is asked.
        (&other, CertificateReceived::Indicated, trusts, false, None),
        (&authority, CertificateReceived::Deferred, done, true, Some(None)),
        (
            &other,
            CertificateReceived::Deferred,
            done,
            false,
            Some(Some("UnknownIssuer")),
        ),
        (
            &other,
            CertificateReceived::Deferred,
            trusts,
            true,
            Some(Some("UnknownIssuer")),
        ),
    ] {
        let mut credentials = trusted.client();
        credentials.certificate_received = received;
        let mut scene = Scene::of(&server);
        scene.connect_with(&client(credentials, None), "localhost", answer);
        scene.run();
        let seen = scene.client_log.all();
        assert_eq!(scene.client_log.is_connected(), connects, "{seen:?}");
        assert_eq!(scene.server_log.is_connected(), connects, "{seen:?}");
        match (error, &seen[0]) {
            (None, Seen::Certificate { .. }) => panic!("{seen:?}"),
            (None, _) => {}
            (Some(None), Seen::Certificate { error: None }) => {}
            (Some(Some(expected)), Seen::Certificate { error: Some(error) }) => {
                assert!(error.contains(expected), "{error}");
            }
            _ => panic!("{seen:?}"),
        }
    }
}

/// A connection that waits for the verdict of one side.
fn pending(mut scene: Scene, asked: Side) -> (Scene, Connection, Arc<Mutex<Option<Connection>>>) {
    let authority = Authority::new("Root");
    let waiting: Arc<Mutex<Option<Connection>>> = Arc::default();
    let kept = Arc::clone(&waiting);
    let later = move |connection: &Connection| {
        *kept.lock().unwrap() = Some(connection.clone());
        EventStatus::Pending
    };
    let mut credentials = authority.client();
    let authentication = match asked {
        Side::Client => {
            credentials.certificate_received = CertificateReceived::Indicated;
            ClientAuthentication::None
        }
        Side::Server => ClientAuthentication::Handler { required: true },
    };
    let (server, log, answer) = (
        server(&authority, authentication),
        scene.server_log.clone(),
        later.clone(),
    );
    scene.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
        incoming.accept(&server, watch(&log, answer.clone()));
    });
    let client = client(credentials, Some(&authority.issue(&["client"])));
    let connection = scene.connect_with(&client, "localhost", later);
    send(&connection, b"as soon as possible");
    let is_waiting = Arc::clone(&waiting);
    scene.until("asked", |_| is_waiting.lock().unwrap().is_some());
    (scene, connection, waiting)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

/// Both sides, on both networks.
fn everywhere() -> impl Iterator<Item = (fn() -> Scene, Side)> {
    let sides = [Side::Client, Side::Server];
    Scene::BOTH
        .into_iter()
        .flat_map(move |scene| sides.map(|side| (scene, side)))
}

#[test]
fn nothing_is_connected_and_no_data_arrives_until_the_verdict_is_there() {
    for (scene, asked) in everywhere() {
        let (mut scene, _connection, waiting) = pending(scene(), asked);
        if asked == Side::Server {
            scene.until("the client's part", |scene| scene.client_log.is_connected());
        }
        scene.run_for(Duration::from_secs(4));
        assert!(!scene.server_log.is_connected() && !scene.server_log.has_received(b"as soon as possible"));
        // A client that has trusted the server has done its part.
        assert_eq!(scene.client_log.is_connected(), asked == Side::Server);
        waiting
            .lock()
            .unwrap()
            .take()
            .unwrap()
            .certificate_valid(true)
            .unwrap();
        scene.connected();
        scene.until("data", |scene| {
            scene.server_log.has_received(b"as soon as possible")
        });
    }
}

/// It stays where it is as long as its peer has no connection IDs of another partition, and then follows them.
#[test]
fn verdict_counts_when_the_network_brings_the_packets_to_another_partition_meanwhile() {
    for asked in [Side::Client, Side::Server] {
        let (mut scene, connection, waiting) = pending(Scene::unsteered(), asked);
        scene.world().network.shift_flows();
        scene.run_for(Duration::from_secs(4));
        assert!(!scene.server_log.is_connected());
        let waiting = waiting.lock().unwrap().take().unwrap();
        waiting.certificate_valid(true).unwrap();
        scene.connected();
        let mut sent = 0;
        scene.until("moved", |scene| {
            sent += 1;
            send(&connection, format!("data {sent}").as_bytes());
            scene
                .server
                .stats()
                .iter()
                .any(|stats| stats.worker.moved_away > 0)
        });
        for data in 1..=sent {
            let data = format!("data {data}");
            scene.until(&data, |scene| scene.server_log.has_received(data.as_bytes()));
        }
    }
}

#[test]
fn verdict_against_the_peer_ends_the_connection_on_both_sides() {
    for (scene, asked) in everywhere() {
        let (mut scene, _connection, waiting) = pending(scene(), asked);
        waiting
            .lock()
            .unwrap()
            .take()
            .unwrap()
            .certificate_valid(false)
            .unwrap();
        scene.until("ended", |scene| {
            scene.client_log.failure().is_some() && scene.server_log.failure().is_some()
        });
        let texts = [scene.client_log.failure_text(), scene.server_log.failure_text()];
        assert!(
            texts.iter().all(|text| text.contains("bad_certificate")),
            "{texts:?}"
        );
        let ours = &texts[usize::from(asked == Side::Server)];
        assert!(ours.contains("the application does not trust"), "{ours}");
        assert!(!scene.server_log.has_received(b"as soon as possible"));
    }
}

#[test]
fn verdict_that_never_comes_is_a_handshake_that_takes_too_long() {
    for asked in [Side::Client, Side::Server] {
        let (mut scene, _connection, _waiting) = pending(Scene::new(), asked);
        scene.run_for(Duration::from_secs(60));
        let log = match asked {
            Side::Client => &scene.client_log,
            Side::Server => &scene.server_log,
        };
        assert!(log.failure().is_some(), "{:?}", log.all());
        assert!(!scene.server_log.has_received(b"as soon as possible"));
    }
}

#[test]
fn ticket_that_a_long_chain_leaves_no_room_for_is_refused_at_the_call_also_of_another_thread() {
    let authority = Authority::new("Root");
    let mut credentials = authority.issue(&["localhost"]).server();
    credentials.client_authentication = roots(&authority, Vec::new(), true);
    let settings = Settings {
        server_resumption_level: ResumptionLevel::ResumeOnly,
        ..settings()
    };
    let server = Configuration::server(&[ALPN], settings, credentials).unwrap();
    // With a certificate of so many bytes: what a ticket has room for.
    let mut rooms = Vec::new();
    for bytes in [300, 7_500, 9_000] {
        let names: Vec<_> = (0..(bytes - 300) / 18)
            .map(|number| format!("client-{number:09}"))
            .collect();
        let made = authority.issue(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut scene = Scene::new();
        let accepted: Arc<Mutex<Option<Connection>>> = Arc::default();
        let (kept, log, configuration) = (
            Arc::clone(&accepted),
            scene.server_log.clone(),
            Arc::clone(&server),
        );
        scene.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
            *kept.lock().unwrap() = Some(incoming.accept(&configuration, watch(&log, done)));
        });
        let (tickets, came) = std::sync::mpsc::channel();
        let client = client(authority.client(), Some(&made));
        client.set_ticket_store(Arc::new(Tell(tickets)));
        scene.connect(&client, "localhost");
        scene.connected();
        let accepted = accepted.lock().unwrap().take().unwrap();
        // What is refused takes no ticket away: the longest that is not goes out.
        let taken = (0..=1001).rev().find(|&len| {
            let answer = accepted.send_resumption_ticket(&vec![1; len]);
            assert!(
                matches!(answer, Ok(()) | Err(CallError::InvalidState(_))),
                "{answer:?}"
            );
            answer.is_ok()
        });
        scene.run();
        assert_eq!(came.try_iter().count(), usize::from(taken.is_some()), "{bytes}");
        rooms.push(taken);
    }
    let [short, long, too_long] = rooms[..] else {
        panic!()
    };
    assert_eq!((short, too_long), (Some(1000), None));
    assert!(long.is_some_and(|room| (1..1000).contains(&room)), "{long:?}");
}

/// Tells of each ticket, and keeps none.
struct Tell(std::sync::mpsc::Sender<()>);

impl TicketStore for Tell {
    fn put(&self, _: &TicketScope, _: ResumptionTicket) {
        let _ = self.0.send(());
    }

    fn take(&self, _: &TicketScope) -> Option<ResumptionTicket> {
        None
    }
}
