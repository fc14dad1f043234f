//! Configurations of rustls that an application has made, with a session store on either side.

use std::sync::Arc;

use rustls::RootCertStore;

use super::pair::{CLIENT, Pair, SERVER, identity};
use super::*;
use crate::crypto::tls::{ClientTls, ServerTls};

fn applications() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let (chain, key) = identity();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"test".to_vec()];
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"test".to_vec()];
    (Arc::new(server), Arc::new(client))
}

#[test]
fn sessions_are_resumed_through_the_stores_of_the_application() {
    let (server, client) = applications();
    let tls = (
        ServerTls::from_rustls(&server).unwrap(),
        ClientTls::from_rustls(&client).unwrap(),
    );
    for round in 0..3 {
        let mut pair = Pair::with_tls(config(), config(), tls.clone(), None);
        pair.connect();
        for side in [CLIENT, SERVER] {
            let info = pair.peers[side].connection.tls_info().unwrap();
            assert_eq!(info.resumed, round > 0, "connection {round}");
        }
        open(&mut pair, CLIENT, Dir::Bi, pattern(10_000));
        assert!(pair.run_until(|pair| pair.peers[SERVER].ended.len() == 1));
    }
}

#[test]
fn versions_are_negotiated_with_keys_from_logged_secrets() {
    for (from, to) in [(Version::V1, Version::V2), (Version::V2, Version::V1)] {
        let (server, client) = applications();
        let tls = (
            ServerTls::from_rustls(&server).unwrap(),
            ClientTls::from_rustls(&client).unwrap(),
        );
        let server_config = Config {
            accepted_versions: Some(vec![to, from]),
            ..config()
        };
        let client_config = Config {
            version: from,
            packets_per_key: 100,
            ..config()
        };
        let mut pair = Pair::with_tls(client_config, server_config, tls, None);
        pair.connect();
        open(&mut pair, CLIENT, Dir::Bi, pattern(500_000));
        assert!(pair.run_until(|pair| pair.peers[SERVER].ended.len() == 1));
        for peer in &pair.peers {
            assert_eq!(peer.connection.version(), to);
            assert!(peer.connection.content.stats.key_updates > 0);
        }
    }
}
