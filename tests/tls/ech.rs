//! Encrypted Client Hello of clients, with servers that know nothing of it, and with one that decrypts it.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ringway::{
    CloseReason, Configuration, ConnectTarget, Connection, Ech, EchOutcome, KeyExchangeGroup, RetryPolicy,
};
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, address, settings};

use crate::ech_server::{self, FRONT, Front, with_len};
use crate::scene::{Scene, done, send, watch};

/// The outcome that a connection tells.
fn outcome(scene: &mut Scene, connection: &Connection) -> Option<EchOutcome> {
    let (sender, receiver) = mpsc::channel();
    connection
        .with_tls_info(move |info| sender.send(info.unwrap().ech).unwrap())
        .unwrap();
    scene.run();
    receiver.recv().unwrap()
}

/// Accepts everybody, and tells whose name was asked for last.
fn serve(scene: &mut Scene, server: Arc<Configuration>) -> Arc<Mutex<Option<String>>> {
    let (log, seen) = (scene.server_log.clone(), Arc::default());
    let name: Arc<Mutex<Option<String>>> = Arc::clone(&seen);
    scene.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
        *name.lock().unwrap() = incoming.server_name().map(str::to_owned);
        incoming.accept(&server, watch(&log, done));
    });
    seen
}

#[test]
fn grease_disturbs_no_server() {
    let authority = Authority::new("Root");
    let server =
        Configuration::server(&[ALPN], settings(), authority.issue(&["localhost"]).server()).unwrap();
    let mut credentials = authority.client();
    credentials.ech = Ech::Grease;
    let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut scene = Scene::of(&server);
    let connection = scene.connect(&client, "localhost");
    scene.connected();
    assert_eq!(outcome(&mut scene, &connection), Some(EchOutcome::NotOffered));
}

#[test]
fn server_that_does_not_decrypt_is_refused_and_sees_the_public_name_alone() {
    let authority = Authority::new("Root");
    let server = authority.issue(&["public.example", "secret.example"]).server();
    let server = Configuration::server(&[ALPN], settings(), server).unwrap();
    let mut credentials = authority.client();
    credentials.ech = Ech::Configurations(with_len(&ech_server::configuration("public.example").0));
    let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut scene = Scene::new();
    let seen = serve(&mut scene, server);
    scene.connect(&client, "secret.example");
    scene.until("refused", |scene| scene.client_log.failure().is_some());
    assert_eq!(seen.lock().unwrap().as_deref(), Some("public.example"));
    let Some(CloseReason::EchRejected(rejected)) = scene.client_log.failure() else {
        panic!("{:?}", scene.client_log.all());
    };
    assert_eq!(rejected.retry_configurations, None);
    assert!(!scene.client_log.is_connected());
    scene.run();
    let text = scene.server_log.failure_text();
    assert!(text.contains("ech_required"), "{text}");
}

#[test]
fn server_that_decrypts_the_hello_sees_the_name_in_it_and_the_client_hears_of_it() {
    let authority = Authority::new("Root");
    let server = ech_server::server(&authority.issue(&["secret.example"]));
    let configuration = ech_server::configuration("public.example");
    let mut credentials = authority.client();
    credentials.ech = Ech::Configurations(with_len(&configuration.0));
    // Of one packet.
    credentials.key_exchange_groups = vec![KeyExchangeGroup::X25519];
    let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut scene = Scene::new();
    let mut front = Front::new(scene.world(), Arc::clone(&server), configuration);
    let server = Configuration::server_with_rustls(settings(), &server).unwrap();
    let seen = serve(&mut scene, server);
    let target = ConnectTarget::new(address(FRONT), "secret.example");
    let handler = watch(&scene.client_log, done);
    let connection = Connection::start(&scene.client, &client, &target, handler).unwrap();
    send(&connection, b"in secret");
    let log = scene.server_log.clone();
    let arrived = scene.world().run_until(Duration::from_secs(2), |world| {
        front.relay(world);
        log.has_received(b"in secret")
    });
    assert!(
        arrived,
        "server {:?}, client {:?}",
        log.all(),
        scene.client_log.all()
    );
    assert_eq!(seen.lock().unwrap().as_deref(), Some("secret.example"));
    assert!(scene.client_log.is_connected());
    assert_eq!(outcome(&mut scene, &connection), Some(EchOutcome::Accepted));
}

#[test]
fn configurations_that_cannot_be_used_are_refused_at_once() {
    let authority = Authority::new("Root");
    for list in [vec![], vec![1, 2, 3], vec![0, 0]] {
        let mut credentials = authority.client();
        credentials.ech = Ech::Configurations(list);
        let error = Configuration::client(&[ALPN], settings(), credentials)
            .unwrap_err()
            .to_string();
        assert!(error.contains("Encrypted Client Hello"), "{error}");
    }
}
