//! What TLS tells of a connection at any time, and secrets for the application.

use std::sync::{Arc, Mutex, mpsc};

use ringway::{CipherSuite, Configuration, Connection, EchOutcome, RetryPolicy, TlsInfo, key_log_callback};
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, settings};

use crate::scene::{Scene, done, watch};

/// Asks a connection.
fn info_of(scene: &mut Scene, connection: &Connection) -> Option<TlsInfo> {
    let (sender, receiver) = mpsc::channel();
    connection
        .with_tls_info(move |info| sender.send(info.cloned()).unwrap())
        .unwrap();
    scene.run();
    receiver.recv().unwrap()
}

#[test]
fn both_sides_tell_what_was_agreed_on_and_export_the_same_secrets() {
    let authority = Authority::new("Root");
    let server = authority.issue(&["localhost"]).server();
    let server = Configuration::server(&[ALPN], settings(), server).unwrap();
    let mut credentials = authority.client();
    credentials.cipher_suites = vec![CipherSuite::Aes256Gcm];
    let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut scene = Scene::new();
    let accepted: Arc<Mutex<Option<Connection>>> = Arc::default();
    let (kept, log) = (Arc::clone(&accepted), scene.server_log.clone());
    scene.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
        *kept.lock().unwrap() = Some(incoming.accept(&server, watch(&log, done)));
    });
    let connection = scene.connect(&client, "LocalHost");
    scene.connected();
    let accepted = accepted.lock().unwrap().take().unwrap();
    let infos = [&connection, &accepted].map(|connection| info_of(&mut scene, connection).unwrap());
    let exported = infos.each_ref().map(|info| {
        assert_eq!(info.cipher_suite, Some(CipherSuite::Aes256Gcm));
        assert_eq!(
            info.key_exchange_group,
            Some(ringway::rustls::NamedGroup::X25519MLKEM768)
        );
        assert_eq!(info.alpn.as_deref(), Some(ALPN));
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
        assert!(!info.resumed);
        let mut secret = [0; 48];
        info.export_keying_material(b"EXPORTER-test", b"context", &mut secret)
            .unwrap();
        secret
    });
    assert_eq!(exported[0], exported[1]);
    assert_eq!(
        (infos[0].peer_certificates.len(), infos[1].peer_certificates.len()),
        (1, 0)
    );
    assert_eq!(infos[0].ech, Some(EchOutcome::NotOffered));
}

/// Labels, randoms of clients, and secrets.
type Lines = Arc<Mutex<Vec<(String, Vec<u8>, Vec<u8>)>>>;

#[test]
fn key_log_has_the_secrets_of_both_sides() {
    let authority = Authority::new("Root");
    let lines: Lines = Arc::default();
    let log = |lines: &Lines| {
        let lines = Arc::clone(lines);
        key_log_callback(move |label, random, secret| {
            let line = (label.to_owned(), random.to_vec(), secret.to_vec());
            lines.lock().unwrap().push(line);
        })
    };
    let mut server = authority.issue(&["localhost"]).server();
    server.key_log = log(&lines);
    let mut client = authority.client();
    client.key_log = log(&lines);
    let server = Configuration::server(&[ALPN], settings(), server).unwrap();
    let client = Configuration::client(&[ALPN], settings(), client).unwrap();
    let mut scene = Scene::of(&server);
    scene.connect(&client, "localhost");
    scene.connected();
    let mut lines = lines.lock().unwrap().clone();
    lines.sort();
    let (pairs, rest) = lines.as_chunks::<2>();
    assert!(rest.is_empty() && pairs.iter().all(|[one, other]| one == other));
    let labels: Vec<_> = pairs.iter().map(|[(label, ..), _]| label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "EXPORTER_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_TRAFFIC_SECRET_0"
        ]
    );
    // The random of the ClientHello tells connections apart.
    let random = &lines[0].1;
    assert!(random.len() == 32 && lines.iter().all(|(_, other, _)| other == random));
}
