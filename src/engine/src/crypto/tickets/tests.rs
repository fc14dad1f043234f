//! Tickets between a client and servers, with clocks of the tests' own.

mod exported;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use super::*;
use crate::crypto::client_hello;
use crate::crypto::suite::{CipherSuite, provider_from};
use crate::crypto::tests::run;
use crate::crypto::tls::{ClientTls, ServerTls, TlsSession};
use crate::wire::Version;
use crate::wire::early_limits::EarlyLimits;
use crate::wire::error::TransportErrorCode;
use crate::wire::transport_parameters::TransportParameters;

/// A clock that is set by hand.
#[derive(Debug)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let secs = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(secs)))
    }
}

impl Clock {
    fn new() -> Arc<Self> {
        let now = rustls::time_provider::DefaultTimeProvider.current_time().unwrap();
        Arc::new(Clock(AtomicU64::new(now.as_secs())))
    }

    fn pass(&self, secs: i64) {
        self.0.fetch_add(secs as u64, Ordering::Relaxed);
    }
}

/// Says of every certificate of a client what it is told to.
#[derive(Debug)]
struct Verdict {
    mandatory: bool,
    trusted: Mutex<bool>,
    issuer: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Verdict {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.issuer
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match *self.trusted.lock().unwrap() {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(rustls::Error::General("revoked".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        unreachable!("QUIC has TLS 1.3")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn verdict(mandatory: bool) -> Arc<Verdict> {
    Arc::new(Verdict {
        mandatory,
        trusted: Mutex::new(true),
        issuer: Vec::new(),
    })
}

/// Certificates of a server and a client.
struct Pki {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Pki {
    fn new() -> Self {
        let names = ["localhost".to_owned(), "other".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Pki {
            chain: vec![made.cert.der().clone()],
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
        }
    }
}

#[derive(Clone)]
struct Server {
    clock: Arc<Clock>,
    resumption: ServerResumption,
    verifier: Option<Arc<Verdict>>,
    alpns: Vec<Vec<u8>>,
    /// Packet keys come by suites of ours, not by the key log.
    own_suites: bool,
    suites: Vec<CipherSuite>,
    limits: EarlyLimits,
}

fn provider(own_suites: bool, suites: &[CipherSuite]) -> rustls::crypto::CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| CipherSuite::of_tls(suite.suite()).is_some_and(|suite| suites.contains(&suite)));
    if own_suites {
        provider_from(provider)
    } else {
        provider
    }
}

impl Server {
    fn new() -> Self {
        let keys = TicketKeys::new(&[TicketKey::random().unwrap()]);
        Server {
            clock: Clock::new(),
            resumption: ServerResumption {
                tickets: 4,
                context: b"the same".to_vec(),
                replay_protection: Arc::new(StrikeRegister::starting_at(1000, 0)),
                ..ServerResumption::new(ResumptionLevel::ResumeAndZeroRtt, keys)
            },
            verifier: None,
            alpns: vec![b"perf".to_vec()],
            own_suites: true,
            suites: CipherSuite::ALL.to_vec(),
            limits: limits(100),
        }
    }

    fn tls(&self, pki: &Pki) -> ServerTls {
        let provider = provider(self.own_suites, &self.suites);
        let builder = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap();
        let builder = match &self.verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier) as _),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(pki.chain.clone(), pki.key.clone_key())
            .unwrap();
        config.alpn_protocols = self.alpns.clone();
        config.time_provider = Arc::clone(&self.clock) as _;
        let verifier = self
            .verifier
            .clone()
            .map(|verifier| verifier as Arc<dyn ClientCertVerifier>);
        ServerTls::from_rustls(&Arc::new(config))
            .unwrap()
            .with_policy_for_test(CertificatePolicy::of(verifier))
            .with_resumption(self.resumption.clone())
    }
}

fn limits(data: u64) -> EarlyLimits {
    EarlyLimits::of(&TransportParameters {
        initial_max_data: data,
        ..TransportParameters::default()
    })
}

/// A client with a clock of its own, of which servers know nothing.
struct Client {
    clock: Arc<Clock>,
    tls: ClientTls,
    alpn: Vec<u8>,
    pki: Pki,
}

impl Client {
    fn new() -> Self {
        Self::with(b"perf", true, &CipherSuite::ALL, false)
    }

    fn with(alpn: &[u8], own_suites: bool, suites: &[CipherSuite], certificate: bool) -> Self {
        let pki = Pki::new();
        let clock = Clock::new();
        let mut roots = RootCertStore::empty();
        roots.add(pki.chain[0].clone()).unwrap();
        let provider = provider(own_suites, suites);
        let builder = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if certificate {
            builder
                .with_client_auth_cert(pki.chain.clone(), pki.key.clone_key())
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.time_provider = Arc::clone(&clock) as _;
        Client {
            clock,
            tls: ClientTls::from_rustls(&Arc::new(config))
                .unwrap()
                .with_resumption(),
            alpn: alpn.to_vec(),
            pki,
        }
    }

    fn session(&self, name: &str, version: Version, ticket: Option<ClientTicket>) -> TlsSession {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsSession::client(&self.tls, version, name, vec![1, 1, 5], ticket).unwrap()
    }

    /// Tickets of a first connection, given out by `at`.
    fn first(
        &self,
        server: &Server,
        version: Version,
        at: impl Fn(&mut TicketIssuer) -> Vec<Vec<u8>>,
    ) -> Vec<ClientTicket> {
        let mut client = self.session("localhost", version, None);
        let mut session = TlsSession::server(&server.tls(&self.pki), version, vec![1, 1, 6]).unwrap();
        run(&mut client, &mut session).unwrap();
        let mut issuer = Box::new(session).into_ticket_issuer(server.limits).unwrap();
        for message in at(&mut issuer) {
            client.read(&message).unwrap();
        }
        {
            let info = client.info();
            client.received_tickets(&info)
        }
    }

    fn ticket(&self, server: &Server) -> ClientTicket {
        let mut tickets = self.first(server, Version::V1, |issuer| vec![issuer.issue(b"data").unwrap()]);
        tickets.pop().unwrap()
    }

    /// A second connection: whether its session is resumed, with 0-RTT, and with which data.
    fn second(&self, server: &Server, ticket: ClientTicket) -> (bool, bool, Option<Vec<u8>>) {
        self.second_as(server, "localhost", Version::V1, ticket)
    }

    fn second_as(
        &self,
        server: &Server,
        name: &str,
        version: Version,
        ticket: ClientTicket,
    ) -> (bool, bool, Option<Vec<u8>>) {
        let mut client = self.session(name, version, Some(ticket));
        let tls = server.tls(&self.pki);
        let mut session = TlsSession::server(&tls, version, vec![1, 1, 6]).unwrap();
        let mut hello = Vec::new();
        client.write(&mut hello).unwrap();
        let offered = client.early_keys(version);
        let resumable = tls.resumable(&hello, version, &server.limits);
        let data = resumable.as_ref().map(|resumable| resumable.data().to_vec());
        if let Some(resumable) = resumable {
            session.resume(resumable);
        }
        session.read(&hello).unwrap();
        let accepted = session.early_keys(version);
        if let (Some(sealing), Some(opening)) = (&offered, &accepted) {
            let mut packet = [&[1, 2, 3, 4][..], &[0; 16]].concat();
            sealing.expand().packet.seal(5, &mut packet, 1, &[]);
            let (header, payload) = packet.split_at_mut(1);
            assert_eq!(
                opening.expand().packet.open(5, header, payload).unwrap(),
                [2, 3, 4]
            );
            let sample = [9; 16];
            assert_eq!(
                sealing.expand().header.mask(&sample),
                opening.expand().header.mask(&sample)
            );
        }
        run(&mut client, &mut session).unwrap();
        assert_eq!(
            client.is_early_data_accepted(),
            accepted.is_some(),
            "the client knows"
        );
        assert_eq!(client.is_resumed(), session.is_resumed());
        assert_eq!(session.alpn(), Some(&self.alpn[..]));
        (session.is_resumed(), accepted.is_some(), data)
    }
}

const EARLY: (bool, bool) = (true, true);
const RESUMED: (bool, bool) = (true, false);
const FULL: (bool, bool) = (false, false);

fn kind((resumed, early, _): (bool, bool, Option<Vec<u8>>)) -> (bool, bool) {
    (resumed, early)
}

#[test]
fn keys_of_0_rtt_fit_for_every_suite_version_and_source_of_keys() {
    for version in Version::SUPPORTED {
        for suite in CipherSuite::offered() {
            for (of_client, of_server) in [(true, true), (false, false), (true, false)] {
                let server = Server {
                    own_suites: of_server,
                    ..Server::new()
                };
                let client = Client::with(b"perf", of_client, &[suite], false);
                let ticket = client.first(&server, version, |issuer| vec![issuer.issue(b"").unwrap()]);
                let ticket = ticket.into_iter().next().unwrap();
                assert_eq!(ticket.version(), version);
                let second = client.second_as(&server, "localhost", version, ticket);
                assert_eq!(
                    kind(second),
                    EARLY,
                    "{version:?} {suite:?} {of_client} {of_server}"
                );
            }
        }
    }
}

#[test]
fn tickets_that_are_given_out_late_bring_0_rtt_in_any_order() {
    let (client, server) = (Client::new(), Server::new());
    let clocks = [Arc::clone(&client.clock), Arc::clone(&server.clock)];
    let tickets = client.first(&server, Version::V1, |issuer| {
        (0..4u8)
            .map(|number| {
                clocks.iter().for_each(|clock| clock.pass(3600));
                issuer.issue(&[number]).unwrap()
            })
            .collect()
    });
    // Those of the past have aged on the client's clock, which was theirs when they came: they came together, in the fourth hour.
    let mut kinds = Vec::new();
    for (ticket, number) in tickets.into_iter().zip(0..4u8).rev() {
        let (resumed, early, data) = client.second(&server, ticket);
        assert_eq!(data, Some(vec![number]));
        kinds.push((resumed, early));
    }
    // Of the last one both clocks say the same.
    assert_eq!(kinds, [EARLY, RESUMED, RESUMED, RESUMED]);
}

#[test]
fn clocks_of_servers_may_differ_by_a_minute_and_the_clients_is_its_own() {
    for (skew, expected) in [
        (0, EARLY),
        (59, EARLY),
        (-59, EARLY),
        (61, RESUMED),
        (-60 * 60, FULL),
    ] {
        let (client, server) = (Client::new(), Server::new());
        client.clock.pass(-1_000_000);
        let ticket = client.ticket(&server);
        let other = Server {
            clock: Clock::new(),
            ..server.clone()
        };
        other
            .clock
            .0
            .store(server.clock.0.load(Ordering::Relaxed), Ordering::Relaxed);
        other.clock.pass(skew);
        assert_eq!(kind(client.second(&other, ticket)), expected, "{skew} s");
    }
}

#[test]
fn ticket_serves_until_it_expires_whatever_the_clients_clock_says() {
    let lifetime = 24 * 3600;
    for (age, expected) in [(lifetime - 1, EARLY), (lifetime, FULL), (30 * lifetime, FULL)] {
        let (client, server) = (Client::new(), Server::new());
        let ticket = client.ticket(&server);
        server.clock.pass(age);
        client.clock.pass(age.min(lifetime - 1));
        assert_eq!(kind(client.second(&server, ticket)), expected, "{age} s");
    }
}

#[test]
fn ticket_of_an_anonymous_client_is_of_no_use_where_certificates_are_demanded() {
    let client = Client::new();
    let open = Server::new();
    let ticket = client.ticket(&open);
    let demanding = Server {
        verifier: Some(verdict(true)),
        ..open.clone()
    };
    let mut session = client.session("localhost", Version::V1, Some(ticket));
    let mut hello = Vec::new();
    session.write(&mut hello).unwrap();
    let resumable = |server: &Server| {
        let tls = server.tls(&client.pki);
        tls.resumable(&hello, Version::V1, &server.limits).is_some()
    };
    assert!(resumable(&open));
    assert!(!resumable(&demanding));
    let asking = Server {
        verifier: Some(verdict(false)),
        ..open
    };
    assert!(
        !resumable(&asking),
        "nor where they are asked for: it is another policy"
    );
}

#[test]
fn certificate_that_is_not_trusted_any_more_ends_the_use_of_its_tickets() {
    let client = Client::with(b"perf", true, &CipherSuite::ALL, true);
    let verdict = verdict(true);
    let server = Server {
        verifier: Some(Arc::clone(&verdict)),
        ..Server::new()
    };
    let tickets = client.first(&server, Version::V1, |issuer| {
        (0..2).map(|_| issuer.issue(b"").unwrap()).collect()
    });
    let mut tickets = tickets.into_iter();
    assert_eq!(kind(client.second(&server, tickets.next().unwrap())), EARLY);
    *verdict.trusted.lock().unwrap() = false;
    let mut session = client.session("localhost", Version::V1, tickets.next());
    let mut hello = Vec::new();
    session.write(&mut hello).unwrap();
    let resumable = server
        .tls(&client.pki)
        .resumable(&hello, Version::V1, &server.limits);
    assert!(resumable.is_none(), "rustls would not have asked again");
}

#[test]
fn ticket_serves_its_name_protocol_version_and_context() {
    let server = Server {
        alpns: vec![b"perf".to_vec(), b"other".to_vec()],
        ..Server::new()
    };
    let client = Client::new();
    let ticket = || client.ticket(&server);
    assert_eq!(kind(client.second(&server, ticket())), EARLY);
    assert_eq!(
        kind(client.second_as(&server, "LOCALHOST", Version::V1, ticket())),
        EARLY
    );
    assert_eq!(
        kind(client.second_as(&server, "other", Version::V1, ticket())),
        FULL
    );
    // A client of ours would not offer it: its version is another.
    assert_eq!(
        kind(client.second_as(&server, "localhost", Version::V2, ticket())),
        FULL
    );
    let mut session = client.session("localhost", Version::V1, Some(ticket()));
    let mut hello = Vec::new();
    session.write(&mut hello).unwrap();
    let tls = server.tls(&client.pki);
    let resumable = |version| tls.resumable(&hello, version, &server.limits).is_some();
    assert_eq!(
        [Version::V1, Version::V2].map(resumable),
        [true, false],
        "RFC 9369 section 5"
    );
    let mut offer = client_hello::offer(&hello, &server.alpns).unwrap();
    let policy = |server: &Server| {
        Policy::new(
            server.resumption.clone(),
            CertificatePolicy::None,
            Arc::clone(&server.clock) as _,
        )
    };
    let takes = |offer: &Offer<'_>| {
        policy(&server)
            .prepare(offer, Version::V1, &server.limits)
            .is_some()
    };
    assert!(takes(&offer));
    offer.alpn = Some(b"other");
    assert!(!takes(&offer));
    let mut other = server.clone();
    other.resumption.context = b"another".to_vec();
    assert_eq!(kind(client.second(&other, ticket())), FULL);
}

#[test]
fn smaller_limits_or_a_level_without_0_rtt_leave_the_resumption() {
    let (client, server) = (Client::new(), Server::new());
    // rustls logs the secret of 0-RTT also where that is refused: keys from there are not taken for more than others.
    for own_suites in [true, false] {
        for (data, expected) in [(99, RESUMED), (100, EARLY), (101, EARLY)] {
            let ticket = client.ticket(&server);
            let other = Server {
                limits: limits(data),
                own_suites,
                ..server.clone()
            };
            let second = kind(client.second(&other, ticket));
            assert_eq!(second, expected, "{data} {own_suites}");
        }
    }
    let ticket = client.ticket(&server);
    let mut other = server.clone();
    other.resumption.level = ResumptionLevel::ResumeOnly;
    assert_eq!(kind(client.second(&other, ticket)), RESUMED);
    // And a ticket of such a server offers no 0-RTT.
    let ticket = client.ticket(&other);
    let session = client.session("localhost", Version::V1, Some(ticket));
    assert!(session.early_keys(Version::V1).is_none());
}

/// What a server makes of a ClientHello: whether it resumes a session, with 0-RTT; `None`: an error.
fn hello_read(server: &ServerTls, hello: &[u8], limits: &EarlyLimits) -> Option<(bool, bool)> {
    let mut session = TlsSession::server(server, Version::V1, vec![1, 1, 6]).unwrap();
    if let Some(resumable) = server.resumable(hello, Version::V1, limits) {
        session.resume(resumable);
    }
    session.read(hello).ok()?;
    Some((session.is_resumed(), session.early_keys(Version::V1).is_some()))
}

#[test]
fn first_flight_that_is_sent_again_brings_no_0_rtt_to_any_server_of_the_process() {
    // rustls logs the secret of 0-RTT also where it does not accept it: there must be no keys of it.
    for own_suites in [true, false] {
        let client = Client::with(b"perf", own_suites, &CipherSuite::ALL, false);
        let mut server = Server::new();
        server.own_suites = own_suites;
        let ticket = client.ticket(&server);
        let mut session = client.session("localhost", Version::V1, Some(ticket));
        let mut hello = Vec::new();
        session.write(&mut hello).unwrap();
        let (one, other) = (server.tls(&client.pki), server.tls(&client.pki));
        assert_eq!(hello_read(&one, &hello, &server.limits), Some(EARLY));
        for server_tls in [&one, &other] {
            assert_eq!(hello_read(server_tls, &hello, &server.limits), Some(RESUMED));
        }
        // When it is forgotten, the age that the hello says is too far off.
        server.clock.pass(125);
        assert_eq!(hello_read(&one, &hello, &server.limits), Some(RESUMED));
    }
}

#[test]
fn hello_without_the_secret_of_its_ticket_does_not_use_it_up() {
    // RFC 8446 section 8.2: only what is verified counts.
    let (client, server) = (Client::new(), Server::new());
    let ticket = client.ticket(&server);
    let mut session = client.session("localhost", Version::V1, Some(ticket));
    let mut hello = Vec::new();
    session.write(&mut hello).unwrap();
    let tls = server.tls(&client.pki);
    let mut forged = hello.clone();
    // The binder is the last.
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..3 {
        assert_eq!(hello_read(&tls, &forged, &server.limits), None);
    }
    assert_eq!(hello_read(&tls, &hello, &server.limits), Some(EARLY));
}

#[test]
fn server_that_asks_for_another_hello_takes_no_0_rtt_and_the_ticket_stays_usable() {
    let client = Client::new();
    let server = Server::new();
    let ticket = client.ticket(&server);
    // A server that wants a group of which the client has sent no share.
    let pki = &client.pki;
    let mut wants = rustls::crypto::aws_lc_rs::default_provider();
    wants.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::SECP384R1];
    let mut config = rustls::ServerConfig::builder_with_provider(provider_from(wants).into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), pki.key.clone_key())
        .unwrap();
    config.alpn_protocols = server.alpns.clone();
    config.time_provider = Arc::clone(&server.clock) as _;
    let tls = ServerTls::from_rustls(&Arc::new(config)).unwrap();
    let tls = tls
        .with_policy_for_test(CertificatePolicy::None)
        .with_resumption(server.resumption.clone());
    let mut session = client.session("localhost", Version::V1, Some(ticket));
    let mut hello = Vec::new();
    session.write(&mut hello).unwrap();
    let mut answer = TlsSession::server(&tls, Version::V1, vec![1, 1, 6]).unwrap();
    answer.resume(tls.resumable(&hello, Version::V1, &server.limits).unwrap());
    answer.read(&hello).unwrap();
    assert!(answer.early_keys(Version::V1).is_none());
    run(&mut session, &mut answer).unwrap();
    assert!(session.is_resumed() && answer.is_resumed());
    assert!(!session.is_early_data_accepted());
    assert!(
        session.early_keys(Version::V1).is_some(),
        "rustls does not take them back: the engine must"
    );
    // The claim was withdrawn.
    assert_eq!(hello_read(&server.tls(pki), &hello, &server.limits), Some(EARLY));
}

#[test]
fn ticket_that_limits_0_rtt_is_a_protocol_violation() {
    // RFC 9001 section 4.6.1.
    let (client, server) = (Client::new(), Server::new());
    let mut session = client.session("localhost", Version::V1, None);
    let mut answer = TlsSession::server(&server.tls(&client.pki), Version::V1, vec![1, 1, 6]).unwrap();
    run(&mut session, &mut answer).unwrap();
    let mut issuer = Box::new(answer).into_ticket_issuer(server.limits).unwrap();
    let message = issuer.issue(b"").unwrap();
    let (mut ticket, rest) = NewSessionTicket::parse(&message).unwrap();
    assert!(rest.is_empty());
    assert_eq!(ticket.early_data, Some(u32::MAX));
    ticket.early_data = Some(1 << 20);
    let error = session.read(&ticket.encode()).unwrap_err();
    assert_eq!(error.code, TransportErrorCode::PROTOCOL_VIOLATION);
}

#[test]
fn ticket_that_was_changed_or_cut_is_not_taken_and_never_panics() {
    let (client, server) = (Client::new(), Server::new());
    let tls = server.tls(&client.pki);
    let ticket = client.ticket(&server);
    let mut session = client.session("localhost", Version::V1, Some(ticket));
    let mut hello = Vec::new();
    session.write(&mut hello).unwrap();
    let alpns = server.alpns.clone();
    let offer = client_hello::offer(&hello, &alpns).unwrap();
    let policy = tls.policy_for_test();
    assert!(policy.prepare(&offer, Version::V1, &server.limits).is_some());
    let (right, age) = offer.tickets[0];
    for at in 0..right.len() {
        let mut changed = right.to_vec();
        changed[at] ^= 1;
        for ticket in [&changed[..], &right[..at]] {
            let mut offer = offer.clone();
            offer.tickets = vec![(ticket, age)];
            assert!(
                policy.prepare(&offer, Version::V1, &server.limits).is_none(),
                "{at}"
            );
        }
    }
    // A ticket behind one that cannot be used resumes the session, without 0-RTT (RFC 8446 section 4.2.10).
    let mut second = offer.clone();
    second.tickets.insert(0, (b"of somebody else", 7));
    let prepared = policy.prepare(&second, Version::V1, &server.limits).unwrap();
    assert!(prepared.early_data.is_none());
    assert!(
        policy
            .prepare(&offer, Version::V1, &server.limits)
            .unwrap()
            .early_data
            .is_some()
    );
}

#[test]
fn session_of_rustls_reads_as_known() {
    // Whoever updates rustls learns here that it keeps sessions in another form.
    let client = Client::with(b"perf", true, &CipherSuite::ALL, true);
    let server = Server {
        verifier: Some(verdict(true)),
        ..Server::new()
    };
    let mut session = client.session("localhost", Version::V1, None);
    let mut answer = TlsSession::server(&server.tls(&client.pki), Version::V1, vec![1, 1, 6]).unwrap();
    run(&mut session, &mut answer).unwrap();
    let (messages, slot) = answer.stored_for_test();
    let stored = slot.stored;
    assert_eq!(stored.len(), 4);
    let mut messages = &messages[..];
    for _ in 0..4 {
        let (message, rest) = NewSessionTicket::parse(messages).unwrap();
        assert_eq!(message.encode(), messages[..messages.len() - rest.len()]);
        messages = rest;
        let (_, value) = stored
            .iter()
            .find(|(ticket, _)| *ticket == message.ticket)
            .unwrap();
        let read = session_value::SessionValue::parse(value).unwrap();
        assert_eq!(
            (read.name, read.alpn),
            (Some(&b"localhost"[..]), Some(&b"perf"[..]))
        );
        assert_eq!(read.chain, client.pki.chain);
        assert_eq!(session_value::age_add(value), Some(message.age_add));
        for len in 0..value.len() {
            assert_eq!(session_value::SessionValue::parse(&value[..len]), None);
        }
    }
    assert!(messages.is_empty());
}
