//! Which certificate and which configuration a client gets: by the name it asks for, by its application protocols, at once or later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::{
    ClientCredentials, Configuration, Incoming, Listener, ListenerOptions, RetryPolicy, ServerCredentials,
};
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, address, settings};

use crate::scene::{Log, SERVER, Scene, Seen, done, send, watch};

#[test]
fn certificate_is_that_of_the_name_whatever_its_case() {
    let authority = Authority::new("Root");
    let (one, other) = (
        authority.issue(&["one.example"]),
        authority.issue(&["*.other.example"]),
    );
    let names = vec![
        ("One.Example".to_owned(), one.identity()),
        ("*.other.example".to_owned(), other.identity()),
    ];
    let credentials = ServerCredentials::by_name(names, None);
    let server = Configuration::server(&[ALPN], settings(), credentials).unwrap();
    let client = Configuration::client(&[ALPN], settings(), authority.client()).unwrap();
    for name in ["one.example", "ONE.example", "a.other.example", "B.OTHER.EXAMPLE"] {
        let mut scene = Scene::of(&server);
        scene.connect(&client, name);
        scene.connected();
    }
    // Nobody has a certificate for it.
    let mut scene = Scene::of(&server);
    scene.connect(&client, "third.example");
    scene.until("refused", |scene| scene.client_log.failure().is_some());
    let text = scene.client_log.failure_text();
    assert!(
        text.starts_with("the peer refused the handshake: TLS alert"),
        "{text}"
    );
    assert!(!scene.client_log.is_connected() && !scene.server_log.is_connected());
}

#[test]
fn configuration_is_chosen_by_name_and_address_at_once_or_later() {
    let authority = Authority::new("Root");
    let of = |name: &str| {
        let credentials = authority.issue(&[name]).server();
        Configuration::server(&[ALPN], settings(), credentials).unwrap()
    };
    let (now, later) = (of("now.example"), of("later.example"));
    for scene in Scene::BOTH {
        let mut scene = scene();
        let [server_ip, client_ip] = scene.addresses();
        let pending: Arc<Mutex<Vec<Incoming>>> = Arc::default();
        let (kept, log, at_once) = (Arc::clone(&pending), scene.server_log.clone(), Arc::clone(&now));
        scene.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
            assert_eq!(incoming.local_address().ip(), server_ip);
            assert_eq!(incoming.remote_address().ip(), client_ip);
            // In small letters, however the client has written it.
            match incoming.server_name() {
                Some("now.example") => {
                    incoming.accept(&at_once, watch(&log, done));
                }
                Some("later.example") => kept.lock().unwrap().push(incoming),
                _ => incoming.refuse(),
            }
        });
        let client = Configuration::client(&[ALPN], settings(), authority.client()).unwrap();
        scene.connect(&client, "NOW.example");
        scene.connected();
        let second = Log::default();
        scene.client_log = second.clone();
        let connection = scene.connect(&client, "Later.Example");
        scene.until("asked", |_| !pending.lock().unwrap().is_empty());
        scene.run_for(Duration::from_secs(3));
        assert!(!second.is_connected());
        let incoming = pending.lock().unwrap().pop().unwrap();
        incoming.accept(&later, watch(&scene.server_log, done));
        scene.until("accepted later", |_| second.is_connected());
        send(&connection, b"hello");
        scene.until("data", |scene| scene.server_log.has_received(b"hello"));
    }
}

#[test]
fn certificates_replaced_while_running_are_those_of_new_handshakes_and_no_connection_is_lost() {
    for scene in Scene::BOTH {
        let mut scene = scene();
        let (old, new) = (Authority::new("Old"), Authority::new("New"));
        let server = Configuration::server(&[ALPN], settings(), old.issue(&["localhost"]).server()).unwrap();
        let trusts =
            |authority: &Authority| Configuration::client(&[ALPN], settings(), authority.client()).unwrap();
        scene.serve(&server);
        let first = scene.connect(&trusts(&old), "localhost");
        scene.connected();
        // One that cannot be used changes nothing, nor does one for the other side.
        let broken = ServerCredentials::new(Vec::new(), old.issue(&["localhost"]).private_key());
        assert!(server.load_credential(broken).is_err());
        let error = server.load_credential(new.client()).unwrap_err().to_string();
        assert!(error.contains("other side"), "{error}");
        server
            .load_credential(new.issue(&["localhost"]).server())
            .unwrap();
        let second = Log::default();
        scene.client_log = second.clone();
        scene.connect(&trusts(&new), "localhost");
        scene.until("the new certificate", |_| second.is_connected());
        let third = Log::default();
        scene.client_log = third.clone();
        let client = trusts(&old);
        scene.connect(&client, "localhost");
        scene.until("the old root", |_| third.failure().is_some());
        // A client's trust is replaced in the same way.
        client.load_credential(new.client()).unwrap();
        let fourth = Log::default();
        scene.client_log = fourth.clone();
        scene.connect(&client, "localhost");
        scene.until("the new root", |_| fourth.is_connected());
        send(&first, b"still here");
        scene.until("the first connection", |scene| {
            scene.server_log.has_received(b"still here")
        });
    }
}

#[test]
fn application_protocol_is_chosen_once_and_told_alike() {
    let authority = Authority::new("Root");
    let configuration = |alpns: &[&[u8]]| {
        Configuration::server(alpns, settings(), authority.issue(&["localhost"]).server()).unwrap()
    };
    let client = |alpns: &[&[u8]]| Configuration::client(alpns, settings(), authority.client()).unwrap();
    for (listener, server, offered) in [
        ([&b"a"[..], b"b"], [&b"b"[..], b"a"], [&b"b"[..], b"a"]),
        ([b"b", b"a"], [b"a", b"b"], [b"a", b"b"]),
    ] {
        let mut scene = Scene::new();
        let told: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let (new, log, server) = (
            Arc::clone(&told),
            scene.server_log.clone(),
            configuration(&server),
        );
        scene.listen(&listener, RetryPolicy::Never, move |incoming| {
            new.lock().unwrap().push(incoming.alpn().to_vec());
            incoming.accept(&server, watch(&log, done));
        });
        scene.connect(&client(&offered), "localhost");
        scene.connected();
        assert_eq!(*told.lock().unwrap(), [listener[0].to_vec()]);
        for log in [&scene.server_log, &scene.client_log] {
            assert!(
                matches!(&log.all()[0], Seen::Connected { alpn, .. } if alpn == listener[0]),
                "{:?}",
                log.all()
            );
        }
    }
    // A configuration without the one that was agreed on refuses, and says why.
    let mut scene = Scene::new();
    let (log, server) = (scene.server_log.clone(), configuration(&[b"b"]));
    scene.listen(&[b"a", b"b"], RetryPolicy::Never, move |incoming| {
        incoming.accept(&server, watch(&log, done));
    });
    scene.connect(&client(&[b"a", b"b"]), "localhost");
    scene.until("refused", |scene| scene.client_log.failure().is_some());
    let texts = [scene.server_log.failure_text(), scene.client_log.failure_text()];
    assert!(
        texts.iter().all(|text| text.contains("no_application_protocol")),
        "{texts:?}"
    );
    assert!(
        texts[0].contains("does not have the application protocol"),
        "{texts:?}"
    );
}

#[test]
fn impossible_application_protocols_are_refused_wherever_they_are_given() {
    let authority = Authority::new("Root");
    let long = [b'x'; 256];
    for alpns in [&[][..], &[&b""[..]], &[b"a", b""], &[&long[..]]] {
        let server = authority.issue(&["localhost"]).server();
        assert!(Configuration::server(alpns, settings(), server).is_err());
        assert!(Configuration::client(alpns, settings(), authority.client()).is_err());
        let scene = Scene::new();
        let options = ListenerOptions::new(address(SERVER), alpns).with_retry(RetryPolicy::Never);
        let error = Listener::start(&scene.server, options, |_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains("1 to 255 bytes"), "{error}");
    }
    let longest = [b'x'; 255];
    let credentials = ClientCredentials::no_verification();
    assert!(Configuration::client(&[&longest], settings(), credentials).is_ok());
}
