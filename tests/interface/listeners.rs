//! What a listener can do with a client: look at it, accept it, refuse it with a code, have it prove its address, or leave it alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::{
    ClientCredentials, Configuration, KeyExchangeGroup, Limits, RetryPolicy, TransportErrorCode, Version,
};
use ringway_tests::{ALPN, settings};

use super::scene::{Scene, echo};

/// A client whose ClientHello fits one datagram.
fn with_small_hello(scene: &mut Scene) {
    let mut credentials = ClientCredentials::no_verification();
    credentials.key_exchange_groups = vec![KeyExchangeGroup::X25519];
    scene.client_config = Configuration::client(&[ALPN], settings(), credentials).unwrap();
}

#[test]
fn listener_sees_the_whole_hello_of_a_client() {
    let mut scene = Scene::new();
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let _listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
        let hello = incoming.client_hello().unwrap();
        *keep.lock().unwrap() = Some((hello, incoming));
    });
    scene.start();
    scene.until("hello", |_| seen.lock().unwrap().is_some());
    let (hello, incoming) = seen.lock().unwrap().take().unwrap();
    // Handshake type and length (RFC 8446 section 4), and what it asks for.
    assert_eq!(hello[0], 1);
    let len = u32::from_be_bytes([0, hello[1], hello[2], hello[3]]);
    assert_eq!(len as usize, hello.len() - 4);
    let has = |text: &[u8]| hello.windows(text.len()).any(|bytes| bytes == text);
    assert!(has(b"localhost") && has(ALPN));
    assert_eq!(incoming.client_hello(), None, "the event is over");
    assert_eq!(
        (incoming.version(), incoming.server_name()),
        (Version::V1, Some("localhost"))
    );
    assert_eq!(
        (incoming.offered_alpns(), incoming.alpn()),
        (&[ALPN.to_vec()][..], ALPN)
    );
}

#[test]
fn stopped_listener_says_so_last() {
    let mut scene = Scene::new();
    let listener = scene.listen();
    scene.connect();
    assert_eq!(scene.server_log.find("StopComplete"), None);
    listener.stop();
    scene.wait(Duration::from_secs(1));
    assert_eq!(scene.server_log.count("StopComplete"), 1);
}

#[test]
fn client_is_refused_with_the_code_that_the_application_gives() {
    let mut scene = Scene::new();
    let codes = [
        TransportErrorCode::crypto(112),
        TransportErrorCode(0x77),
        TransportErrorCode(1 << 62),
    ];
    let next = AtomicUsize::new(0);
    let listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
        let code = codes[next.fetch_add(1, Ordering::Relaxed)];
        assert_eq!(incoming.refuse_with(code).is_err(), code.0 == 1 << 62);
    });
    for (count, told) in ["TLS alert 112", "0x77", "CONNECTION_REFUSED"]
        .into_iter()
        .enumerate()
    {
        scene.start();
        scene.until("refused", |scene| {
            scene.log.count("ShutdownByTransport") == count + 1
        });
        assert!(scene.log.find_last("ShutdownByTransport").unwrap().contains(told));
    }
    assert_eq!(listener.stats().rejected, 3);
}

#[test]
fn client_that_is_ignored_hears_nothing() {
    let mut scene = Scene::new();
    let listener = scene.listen_with(RetryPolicy::Never, |incoming| incoming.ignore());
    scene.start();
    scene.wait(Duration::from_secs(30));
    assert!(
        scene
            .log
            .find("ShutdownByTransport")
            .unwrap()
            .contains("IdleTimeout"),
        "its own timeout"
    );
    assert_eq!(scene.client.stats()[0].worker.protocol_errors, 0);
    assert!(listener.stats().rejected > 1, "it has asked again");
    assert_eq!(scene.worker_stats(|scene| &scene.server).connections, 0);
}

#[test]
fn application_has_a_client_prove_its_address_whatever_the_policy() {
    let mut scene = Scene::new();
    with_small_hello(&mut scene);
    let configuration = Arc::clone(&scene.server_config);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let validated = Arc::clone(&seen);
    let _listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
        let is_validated = incoming.is_address_validated();
        validated
            .lock()
            .unwrap()
            .push((is_validated, incoming.remote_address()));
        if let Err(incoming) = incoming.retry() {
            assert!(is_validated, "a second Retry makes no sense");
            incoming.accept(&configuration, echo(super::scene::Log::default()));
        }
    });
    let client = scene.start();
    scene.until("connected", |scene| scene.log.find("Connected").is_some());
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        seen.iter().map(|(validated, _)| *validated).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(seen[0].1, seen[1].1);
    assert!(scene.stats(&client).stateless_retry);
    scene.echo(&client, 10_000);
    let stats = scene.worker_stats(|scene| &scene.server);
    assert_eq!((stats.retries, stats.stateless_replies), (1, 1));
}

#[test]
fn listeners_hear_when_handshakes_become_many_and_when_no_longer() {
    let mut scene = Scene::with_limits(Limits {
        handshakes_before_retry: 3,
        ..Limits::default()
    });
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&waiting);
    let _listener = scene.listen_with(RetryPolicy::UnderLoad, move |incoming| {
        keep.lock().unwrap().push(incoming)
    });
    for _ in 0..3 {
        assert_eq!(scene.server_log.find("LoadChanged"), None);
        scene.start();
        scene.wait(Duration::from_millis(100));
    }
    assert!(
        scene
            .server_log
            .find("LoadChanged { partition: 0, under_load: true }")
            .is_some()
    );
    // The next one must prove its address first.
    scene.start();
    scene.wait(Duration::from_millis(100));
    assert_eq!(waiting.lock().unwrap().len(), 4);
    assert!(waiting.lock().unwrap()[3].is_address_validated());
    assert_eq!(
        scene
            .server_log
            .find("LoadChanged { partition: 0, under_load: false }"),
        None
    );
    waiting.lock().unwrap().clear();
    scene.wait(Duration::from_secs(1));
    assert!(
        scene
            .server_log
            .find("LoadChanged { partition: 0, under_load: false }")
            .is_some()
    );
}

#[test]
fn source_has_no_more_handshakes_than_its_share() {
    let mut scene = Scene::with_limits(Limits {
        handshakes_per_source: 2,
        ..Limits::default()
    });
    let waiting = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&waiting);
    let _listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
        keep.lock().unwrap().push(incoming)
    });
    for _ in 0..4 {
        scene.start();
    }
    scene.wait(Duration::from_secs(1));
    assert_eq!(waiting.lock().unwrap().len(), 2);
}
