//! Encrypted Client Hello that is accepted: by a server for this test alone, since rustls has none.
//!
//! It decrypts the inner hello and gives that to a session of rustls. That the server has done so, it must say in eight bytes of its random number,
//! which depend on the whole ServerHello: so a first session is there only for its ServerHello, and a second one repeats what the first has drawn,
//! but for those bytes.

use std::cell::RefCell;

use rustls::crypto::hpke::{EncapsulatedSecret, HpkePrivateKey};
use rustls::crypto::tls13::Hkdf;
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::internal::msgs::codec::{Codec, Reader};
use rustls::internal::msgs::handshake::EchConfigPayload;
use rustls::{Error, NamedGroup, PeerIncompatible};
use sha2::{Digest, Sha256};

use super::*;
use crate::crypto::hkdf;
use crate::crypto::tls::ech::EchRejected;

/// What a session has drawn: random numbers in order, and its key exchange.
#[derive(Default)]
struct Tape {
    randoms: Vec<Vec<u8>>,
    exchange: Option<(Vec<u8>, Vec<u8>)>,
    /// The number of the next random number to repeat.
    repeats: Option<usize>,
}

thread_local! {
    static TAPE: RefCell<Tape> = RefCell::default();
}

#[derive(Debug)]
struct TapedRandom(&'static dyn SecureRandom);

impl SecureRandom for TapedRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        TAPE.with_borrow_mut(|tape| match &mut tape.repeats {
            Some(next) => {
                out.copy_from_slice(&tape.randoms[*next]);
                *next += 1;
                Ok(())
            }
            None => {
                self.0.fill(out)?;
                tape.randoms.push(out.to_vec());
                Ok(())
            }
        })
    }
}

#[derive(Debug)]
struct TapedGroup(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for TapedGroup {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        self.0.start()
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, Error> {
        TAPE.with_borrow_mut(|tape| {
            if tape.exchange.is_none() {
                let done = self.0.start_and_complete(peer)?;
                tape.exchange = Some((done.pub_key, done.secret.secret_bytes().to_vec()));
            }
            let (pub_key, secret) = tape.exchange.as_ref().unwrap();
            Ok(CompletedKeyExchange {
                group: self.0.name(),
                pub_key: pub_key.clone(),
                secret: SharedSecret::from(&secret[..]),
            })
        })
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }
}

fn with_len(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A configuration for the public name `localhost` (ECHConfig), and its private key.
fn configuration() -> (Vec<u8>, HpkePrivateKey) {
    let suite = rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
    let (key, private) = suite.generate_key_pair().unwrap();
    let id = suite.suite();
    let symmetric = [
        u16::from(id.sym.kdf_id).to_be_bytes(),
        u16::from(id.sym.aead_id).to_be_bytes(),
    ];
    let name = b"localhost";
    let contents = [
        &[7][..],
        &u16::from(id.kem).to_be_bytes(),
        &with_len(&key.0),
        &with_len(&symmetric.concat()),
        &[64, name.len() as u8],
        name,
        &[0, 0],
    ];
    (
        [&[0xfe, 0x0d][..], &with_len(&contents.concat())].concat(),
        private,
    )
}

/// An extension of a ClientHello.
struct Extension<'a> {
    ty: u16,
    whole: &'a [u8],
    content: &'a [u8],
}

/// The extensions in the body of a ClientHello, and where they begin, behind their length.
fn extensions(body: &[u8]) -> (usize, Vec<Extension<'_>>) {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let mut at = 34;
    at += 1 + usize::from(body[at]);
    at += 2 + u16_at(at);
    at += 1 + usize::from(body[at]);
    let begin = at + 2;
    let end = begin + u16_at(at);
    let mut found = Vec::new();
    at = begin;
    while at < end {
        let whole = &body[at..at + 4 + u16_at(at + 2)];
        found.push(Extension {
            ty: u16_at(at) as u16,
            whole,
            content: &whole[4..],
        });
        at += whole.len();
    }
    (begin, found)
}

/// The inner hello of an outer one (RFC 9849 sections 5.1 and 5.2).
fn inner_hello(hello: &[u8], configuration: &[u8], private: &HpkePrivateKey) -> Vec<u8> {
    let suite = rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
    let body = &hello[4..];
    let (_, outer) = extensions(body);
    let outer_of = |ty: u16| outer.iter().find(|extension| extension.ty == ty).unwrap();
    let ech = outer_of(0xfe0d).content;
    // Type, suite, configuration; encapsulated key; payload.
    assert_eq!(ech[0], 0, "an outer hello");
    let enc_len = usize::from(u16::from_be_bytes([ech[6], ech[7]]));
    let enc = ech[8..8 + enc_len].to_vec();
    let payload = &ech[10 + enc_len..];
    let at = payload.as_ptr() as usize - body.as_ptr() as usize;
    let mut aad = body.to_vec();
    aad[at..at + payload.len()].fill(0);
    let info = [b"tls ech\0", configuration].concat();
    let mut opener = suite
        .setup_opener(&EncapsulatedSecret(enc), &info, private)
        .unwrap();
    let encoded = opener.open(&aad, payload).unwrap();
    let (begin, inner) = extensions(&encoded);
    let mut block = Vec::new();
    for extension in inner {
        if extension.ty != 0xfd00 {
            block.extend_from_slice(extension.whole);
            continue;
        }
        for taken in extension.content[1..].chunks(2) {
            block.extend_from_slice(outer_of(u16::from_be_bytes([taken[0], taken[1]])).whole);
        }
    }
    let body = [&encoded[..begin - 2], &with_len(&block)].concat();
    [&[1, 0, (body.len() >> 8) as u8, body.len() as u8][..], &body].concat()
}

/// A session that has read the inner hello, and says so.
fn accept(server: &ServerTls, inner: &[u8]) -> TlsSession {
    TAPE.take();
    let session = || {
        let mut session = TlsSession::server(server, Version::V1, vec![1, 1, 6]).unwrap();
        session.read(inner).unwrap();
        session
    };
    let mut hello = Vec::new();
    session().write(&mut hello).unwrap();
    let random = hello[6..38].to_vec();
    hello[30..38].fill(0);
    let transcript = Sha256::new().chain_update(inner).chain_update(&hello).finalize();
    let mut confirmation = [0; 8];
    let label = b"ech accept confirmation";
    let info: [&[u8]; 6] = [
        &[0, 8],
        &[(b"tls13 ".len() + label.len()) as u8],
        b"tls13 ",
        label,
        &[32],
        &transcript,
    ];
    hkdf::SHA256
        .extract_from_secret(None, &inner[6..38])
        .expand_slice(&info, &mut confirmation)
        .unwrap();
    TAPE.with_borrow_mut(|tape| {
        let drawn = tape.randoms.iter_mut().find(|drawn| **drawn == random).unwrap();
        drawn[24..].copy_from_slice(&confirmation);
        tape.repeats = Some(0);
    });
    session()
}

#[test]
fn server_that_decrypts_the_hello_sees_the_name_in_it_and_the_client_hears_of_it() {
    let (configuration, private) = configuration();
    let made = rcgen::generate_simple_self_signed(["secret.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let chain = vec![made.cert.der().clone()];
    let mut provider = with_suite(CipherSuite::Aes128Gcm, stock());
    provider.secure_random = Box::leak(Box::new(TapedRandom(provider.secure_random)));
    provider.kx_groups = vec![Box::leak(Box::new(TapedGroup(
        rustls::crypto::aws_lc_rs::kx_group::X25519,
    )))];
    let mut server = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)
        .unwrap();
    server.alpn_protocols = vec![b"perf".to_vec()];
    server.send_tls13_tickets = 0;
    let server = ServerTls::from_rustls(&Arc::new(server)).unwrap();
    let mut client = ClientCredentials::roots(chain);
    client.ech = Ech::Configurations(with_len(&configuration));
    let client = ClientTls::new(client, vec![b"perf".to_vec()]).unwrap();
    let name = ServerName::try_from("secret.example").unwrap();
    let mut client = TlsSession::client(&client, Version::V1, name, vec![1, 1, 5], None).unwrap();
    let mut outer = Vec::new();
    client.write(&mut outer).unwrap();
    let seen = crate::crypto::client_hello::peek(&outer).unwrap().unwrap();
    assert_eq!(seen.server_name.as_deref(), Some("localhost"));
    assert_eq!(client.info().ech, None, "not yet known");
    let mut server = accept(&server, &inner_hello(&outer, &configuration, &private));
    let (mut ours, mut theirs) = run(&mut client, &mut server).unwrap();
    assert_keys_fit(&mut ours, &mut theirs, 2);
    assert_eq!(client.info().ech, Some(EchOutcome::Accepted));
    assert_eq!(server.info().server_name.as_deref(), Some("secret.example"));
}

#[test]
fn configurations_to_try_again_with_are_handed_on_as_they_came() {
    let list = with_len(&[configuration().0, configuration().0].concat());
    let parsed = Vec::<EchConfigPayload>::read(&mut Reader::init(&list)).unwrap();
    let error = |retry| Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(retry));
    let rejected = EchRejected::of(&error(Some(parsed))).unwrap();
    assert_eq!(rejected.retry_configurations, Some(list));
    assert_eq!(EchRejected::of(&error(None)).unwrap().retry_configurations, None);
    assert_eq!(EchRejected::of(&Error::DecryptError), None);
}
