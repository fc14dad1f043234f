//! A ClientHello that takes two Initial packets, as it does with X25519MLKEM768: under Retry, within limits by address, over lossy paths.

use std::sync::Arc;
use std::time::Duration;

use ringway::sim::Link;
use ringway::{Configuration, KeyExchangeGroup, Limits, RetryPolicy};
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, settings, with_seeds};

use crate::scene::{Log, Scene, done, watch};

fn pair(groups: &[KeyExchangeGroup]) -> (Arc<Configuration>, Arc<Configuration>) {
    let authority = Authority::new("Root");
    let server = authority.issue(&["localhost"]).server();
    let mut client = authority.client();
    client.key_exchange_groups = groups.to_vec();
    (
        Configuration::server(&[ALPN], settings(), server).unwrap(),
        Configuration::client(&[ALPN], settings(), client).unwrap(),
    )
}

#[test]
fn clients_of_every_group_connect_with_and_without_retry() {
    use KeyExchangeGroup as Group;
    for groups in [
        &Group::ALL[..],
        &[Group::X25519MlKem768],
        &[Group::X25519],
        &[Group::Secp256r1],
        &[Group::Secp384r1],
        // The share that is sent first fits another group: HelloRetryRequest.
        &[Group::Secp384r1, Group::X25519],
    ] {
        for retry in [RetryPolicy::Never, RetryPolicy::Always] {
            // A client that has no token yet.
            let (server, client) = pair(groups);
            let mut scene = Scene::new();
            let log = scene.server_log.clone();
            scene.listen(&[ALPN], retry, move |incoming| {
                assert_eq!(incoming.server_name(), Some("localhost"));
                incoming.accept(&server, watch(&log, done));
            });
            scene.connect(&client, "localhost");
            scene.connected();
            // Counters are renewed in the first turn after a second.
            scene.run();
            scene.run();
            let stats = scene.server.stats()[0].worker;
            assert_eq!(stats.accepted, 1, "{groups:?} {retry:?}");
            assert_eq!(stats.retries > 0, retry == RetryPolicy::Always, "{groups:?}");
        }
    }
}

#[test]
fn source_with_one_handshake_left_connects_since_both_packets_are_of_one() {
    let (server, client) = pair(&KeyExchangeGroup::ALL);
    let limits = Limits {
        handshakes: 1,
        handshakes_per_source: 1,
        handshakes_before_retry: 1,
        ..Limits::default()
    };
    let mut scene = Scene::with(limits);
    scene.serve(&server);
    for _ in 0..3 {
        scene.client_log = Log::default();
        scene.connect(&client, "localhost");
        scene.until("connected", |scene| scene.client_log.is_connected());
        scene.run();
    }
}

#[test]
fn handshakes_complete_over_paths_that_lose_a_third_and_reorder() {
    with_seeds(10, "tls", |seed| {
        let (server, client) = pair(&KeyExchangeGroup::ALL);
        let mut scene = Scene::seeded(seed, Limits::default());
        scene.world().network.set_default_link(Link {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(15),
            loss: 0.3,
            ..Link::default()
        });
        let log = scene.server_log.clone();
        let retry = [RetryPolicy::Never, RetryPolicy::Always][seed as usize % 2];
        scene.listen(&[ALPN], retry, move |incoming| {
            incoming.accept(&server, watch(&log, done));
        });
        for _ in 0..5 {
            let log = Log::default();
            scene.client_log = log.clone();
            scene.connect(&client, "localhost");
            scene.until("connected", |_| log.is_connected());
        }
    });
}
