//! Handshakes of TLS alone, for tests of what lies around it.

use std::time::Duration;

use ringway_types::Instant;
use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::one_rtt::OneRttKeys;
use super::suite::CipherSuite;
use super::tls::{ClientCredentials, ClientTls, KeyChange, ServerCredentials, ServerTls, TlsSession};
use crate::wire::Version;
use crate::wire::error::TransportError;

/// Sessions of a client and a server that agree on this.
pub(super) fn sessions(version: Version, suite: CipherSuite, server_alpn: &[u8]) -> (TlsSession, TlsSession) {
    sessions_of([version; 2], suite, server_alpn)
}

/// The same, made for other versions each: the client's and the server's.
pub(super) fn sessions_of(
    versions: [Version; 2],
    suite: CipherSuite,
    server_alpn: &[u8],
) -> (TlsSession, TlsSession) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = ServerCredentials::new(chain.clone(), key);
    let server = ServerTls::new(server, vec![server_alpn.to_vec()]).unwrap();
    let mut client = ClientCredentials::roots(chain);
    client.cipher_suites = vec![suite];
    let client = ClientTls::new(client, vec![b"perf".to_vec()]).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    (
        TlsSession::client(&client, versions[0], name, vec![1, 1, 5], None).unwrap(),
        TlsSession::server(&server, versions[1], vec![1, 1, 6]).unwrap(),
    )
}

/// The first flight of a client that asks for `localhost` and `perf`.
pub(super) fn client_hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    sessions(Version::V1, CipherSuite::Aes128Gcm, b"perf")
        .0
        .write(&mut bytes)
        .unwrap();
    bytes
}

/// Keys of both sides after a handshake.
pub(super) fn one_rtt_pair() -> (OneRttKeys, OneRttKeys) {
    let (client, server) = sessions(Version::V1, CipherSuite::Aes128Gcm, b"perf");
    handshake(client, server)
}

/// Runs a handshake to its end.
pub(super) fn handshake(mut client: TlsSession, mut server: TlsSession) -> (OneRttKeys, OneRttKeys) {
    let keys = run(&mut client, &mut server).unwrap();
    assert_eq!(client.alpn(), Some(&b"perf"[..]));
    assert_eq!(client.peer_transport_parameters(), Some(&[1, 1, 6][..]));
    assert_eq!(server.peer_transport_parameters(), Some(&[1, 1, 5][..]));
    keys
}

/// The same with sessions that are looked at later; the error of the side that finds one.
pub(super) fn run(
    client: &mut TlsSession,
    server: &mut TlsSession,
) -> Result<(OneRttKeys, OneRttKeys), TransportError> {
    let mut keys = [None, None];
    for _ in 0..10 {
        for from in 0..2 {
            loop {
                // Each packet number space has a CRYPTO stream of its own: none of a message may be read with another's.
                let mut bytes = Vec::new();
                let change = [&mut *client, &mut *server][from].write(&mut bytes)?;
                if !bytes.is_empty() {
                    [&mut *client, &mut *server][1 - from].read(&bytes)?;
                }
                match change {
                    Some(KeyChange::OneRtt(new)) => keys[from] = Some(*new),
                    None if bytes.is_empty() => break,
                    _ => {}
                }
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let [client, server] = keys.map(Option::unwrap);
    Ok((client, server))
}

/// Packets of both sides open on the other, through so many key updates.
pub(super) fn assert_keys_fit(client: &mut OneRttKeys, server: &mut OneRttKeys, updates: u64) {
    for round in 0..=updates {
        for from in 0..2 {
            let mut sides = [&mut *client, &mut *server];
            sides.rotate_left(from);
            let [from, to] = sides;
            let mut packet = vec![0x40, 1, 2, 3];
            packet.resize(20, 0);
            from.local().packet.seal(round, &mut packet, 1, &[]);
            from.on_sealed(round).unwrap();
            let sample = packet.last_chunk().unwrap();
            assert_eq!(from.local().header.mask(sample), to.remote_mask(sample));
            let (header, payload) = packet.split_at_mut(1);
            let opened = to.open(Instant::ZERO, round, from.phase(), header, payload, || {
                Duration::ZERO
            });
            assert_eq!(opened.unwrap(), [1, 2, 3], "update {round}");
        }
        client.on_ack(round);
        server.on_ack(round);
        client.update();
    }
}
