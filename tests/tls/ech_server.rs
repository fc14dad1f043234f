//! A server with Encrypted Client Hello, for tests alone: rustls has none.
//!
//! In front of a server that knows nothing of it stands one that decrypts the inner hello, and passes that on in the client's packet. That this was
//! done, the server must say in eight bytes of its random number, which depend on the whole ServerHello: so a first session of its configuration is
//! there only for its ServerHello, and the server's own repeats what that has drawn, but for those bytes.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;

use ringway::pki_types::PrivateKeyDer;
use ringway::rustls::crypto::aws_lc_rs::{self, hpke::ALL_SUPPORTED_SUITES};
use ringway::rustls::crypto::hpke::{EncapsulatedSecret, HpkePrivateKey};
use ringway::rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use ringway::rustls::{self, NamedGroup, quic};
use ringway::sim::RawPort;
use ringway_engine::base::coding::Writer;
use ringway_engine::crypto::keys::Keys;
use ringway_engine::wire::Side;
use ringway_engine::wire::frame::{Frame, FrameReader, encode_crypto};
use ringway_engine::wire::header::{self, ProtectedHeader};
use ringway_tests::pki::Made;
use ringway_tests::{ALPN, World, address};

use crate::scene::SERVER;

/// Where clients find it.
pub(crate) const FRONT: &str = "192.0.2.9:443";
const TO_SERVER: &str = "192.0.2.9:1000";

/// An ECHConfig for this public name (RFC 9849 section 4), and its private key.
pub(crate) fn configuration(public_name: &str) -> (Vec<u8>, HpkePrivateKey) {
    let suite = ALL_SUPPORTED_SUITES[0];
    let (key, private) = suite.generate_key_pair().unwrap();
    let id = suite.suite();
    let symmetric = [
        u16::from(id.sym.kdf_id).to_be_bytes(),
        u16::from(id.sym.aead_id).to_be_bytes(),
    ];
    let contents = [
        &[7][..],
        &u16::from(id.kem).to_be_bytes(),
        &with_len(&key.0),
        &with_len(&symmetric.concat()),
        &[64, public_name.len() as u8],
        public_name.as_bytes(),
        &[0, 0],
    ];
    let configuration = [&[0xfe, 0x0d][..], &with_len(&contents.concat())].concat();
    (configuration, private)
}

pub(crate) fn with_len(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// What is drawn for the server, for want of which it draws itself.
#[derive(Default)]
struct Drawn {
    random: Option<[u8; 32]>,
    exchange: Option<(Vec<u8>, Vec<u8>)>,
}

thread_local! {
    static DRAWN: RefCell<Drawn> = RefCell::default();
}

#[derive(Debug)]
struct DrawnRandom(&'static dyn SecureRandom);

impl SecureRandom for DrawnRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), GetRandomFailed> {
        match DRAWN.with_borrow_mut(|drawn| drawn.random.take_if(|random| random.len() == out.len())) {
            Some(random) => out.copy_from_slice(&random),
            None => self.0.fill(out)?,
        }
        Ok(())
    }
}

#[derive(Debug)]
struct DrawnGroup(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for DrawnGroup {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        self.0.start()
    }

    fn start_and_complete(&self, peer: &[u8]) -> Result<CompletedKeyExchange, rustls::Error> {
        let (pub_key, secret) = match DRAWN.with_borrow_mut(|drawn| drawn.exchange.take()) {
            Some(exchange) => exchange,
            None => {
                let done = self.0.start_and_complete(peer)?;
                let exchange = (done.pub_key, done.secret.secret_bytes().to_vec());
                DRAWN.with_borrow_mut(|drawn| drawn.exchange = Some(exchange.clone()));
                exchange
            }
        };
        Ok(CompletedKeyExchange {
            group: self.0.name(),
            pub_key,
            secret: SharedSecret::from(&secret[..]),
        })
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }
}

/// A configuration for the server behind.
pub(crate) fn server(made: &Made) -> Arc<rustls::ServerConfig> {
    let mut provider = aws_lc_rs::default_provider();
    provider.secure_random = Box::leak(Box::new(DrawnRandom(provider.secure_random)));
    provider.kx_groups = vec![Box::leak(Box::new(DrawnGroup(aws_lc_rs::kx_group::X25519)))];
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let mut server = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![made.certificate.clone()],
            PrivateKeyDer::clone_key(&made.private_key()),
        )
        .unwrap();
    server.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(server)
}

/// The server in front, with one client.
pub(crate) struct Front {
    server: Arc<rustls::ServerConfig>,
    configuration: Vec<u8>,
    private: HpkePrivateKey,
    of_clients: RawPort,
    of_server: RawPort,
    client: Option<SocketAddr>,
}

impl Front {
    /// In front of a server with this configuration, with a configuration of its own.
    pub(crate) fn new(
        world: &World,
        server: Arc<rustls::ServerConfig>,
        (configuration, private): (Vec<u8>, HpkePrivateKey),
    ) -> Front {
        let bind = |local| world.network.bind_raw(address(local)).unwrap();
        Front {
            server,
            configuration,
            private,
            of_clients: bind(FRONT),
            of_server: bind(TO_SERVER),
            client: None,
        }
    }

    /// Passes on what has come.
    pub(crate) fn relay(&mut self, world: &World) {
        while let Some((client, mut datagram)) = self.of_clients.receive(world.now) {
            if self.client.replace(client).is_none() {
                self.open(&mut datagram);
            }
            world
                .network
                .send(world.now, address(TO_SERVER), address(SERVER), &datagram);
        }
        while let Some((_, datagram)) = self.of_server.receive(world.now) {
            let client = self.client.unwrap();
            world.network.send(world.now, address(FRONT), client, &datagram);
        }
    }

    /// Puts the inner hello in the place of the outer one in the client's first packet.
    fn open(&self, packet: &mut [u8]) {
        let Ok(ProtectedHeader::Long(long)) = header::decode(packet, 0) else {
            panic!("an Initial");
        };
        assert_eq!(long.packet_len, packet.len());
        let keys = Keys::initial(long.version, &long.dcid, Side::Client)
            .local
            .expand();
        let at = long.number_offset;
        let mask = keys.header.mask(header::sample(packet, at).unwrap());
        let unprotected = header::remove_protection(packet, at, mask);
        let header_len = at + unprotected.number_len;
        let number = unprotected.number.into();
        let (head, payload) = packet.split_at_mut(header_len);
        let payload = keys.packet.open(number, head, payload).unwrap();
        let mut frames = FrameReader::new(payload);
        let mut parts: Vec<_> = std::iter::from_fn(|| frames.next_frame())
            .filter_map(|frame| match frame.unwrap() {
                Frame::Crypto { offset, data } => Some((offset, data.to_vec())),
                _ => None,
            })
            .collect();
        parts.sort();
        let outer: Vec<u8> = parts.into_iter().flat_map(|(_, data)| data).collect();
        let inner = inner_hello(&outer, &self.configuration, &self.private);
        draw(&self.server, &inner);
        payload.fill(0);
        encode_crypto(&mut Writer::new(payload), 0, &inner);
        keys.packet.seal(number, packet, header_len, &[]);
        let mask = keys.header.mask(header::sample(packet, at).unwrap());
        header::apply_protection(packet, at, unprotected.number_len, mask);
    }
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
    let mut opener = ALL_SUPPORTED_SUITES[0]
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

/// Draws for the server what makes it say to whoever has sent the inner hello that it was read (RFC 9849 section 7.2).
fn draw(server: &Arc<rustls::ServerConfig>, inner: &[u8]) {
    let mut session = quic::ServerConnection::new(Arc::clone(server), quic::Version::V1, Vec::new()).unwrap();
    session.read_hs(inner).unwrap();
    let mut hello = Vec::new();
    session.write_hs(&mut hello);
    let mut random: [u8; 32] = hello[6..38].try_into().unwrap();
    hello[30..38].fill(0);
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let transcript = suite.common.hash_provider.hash(&[inner, &hello].concat());
    let label = b"ech accept confirmation";
    let info: [&[u8]; 6] = [
        &[0, 8],
        &[(b"tls13 ".len() + label.len()) as u8],
        b"tls13 ",
        label,
        &[32],
        transcript.as_ref(),
    ];
    suite
        .hkdf_provider
        .extract_from_secret(None, &inner[6..38])
        .expand_slice(&info, &mut random[24..])
        .unwrap();
    DRAWN.with_borrow_mut(|drawn| drawn.random = Some(random));
}
