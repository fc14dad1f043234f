//! Tickets that go to another process as bytes: here, to another configuration that was made the same way.

use proptest::prelude::*;

use super::*;
use crate::crypto::tickets::exported::{TicketBytes, with_checksum};
use crate::crypto::tls::{CertificateReceived, ClientCredentials, Identity, TicketImportError};

/// A client of credentials, which trusts the certificate of `pki`.
struct Credentials<'a> {
    pki: &'a Pki,
    change: fn(&mut ClientCredentials, &Pki),
    alpn: &'a [u8],
}

impl<'a> Credentials<'a> {
    fn of(pki: &'a Pki) -> Self {
        Credentials {
            pki,
            change: |_, _| {},
            alpn: b"perf",
        }
    }

    fn client(&self) -> Client {
        let mut credentials = ClientCredentials::roots(self.pki.chain.clone());
        (self.change)(&mut credentials, self.pki);
        let tls = ClientTls::new(credentials, vec![self.alpn.to_vec()]).unwrap();
        Client {
            clock: Clock::new(),
            tls: tls.with_resumption(),
            alpn: self.alpn.to_vec(),
            pki: Pki {
                chain: self.pki.chain.clone(),
                key: self.pki.key.clone_key(),
            },
        }
    }
}

fn name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).unwrap()
}

fn now() -> u64 {
    UnixTime::now().as_secs()
}

/// A ticket of `client`, as bytes, for a fresh server.
fn exported(client: &Client) -> (Server, TicketBytes) {
    let server = Server::new();
    let bytes = client.ticket(&server).export().unwrap();
    (server, bytes)
}

fn import(client: &Client, bytes: &[u8]) -> Result<ClientTicket, TicketImportError> {
    client
        .tls
        .import_ticket_at(now(), &name("localhost"), Version::V1, bytes)
}

#[test]
fn ticket_brings_0_rtt_in_another_process_with_every_suite_and_version() {
    let pki = Pki::new();
    for suite in CipherSuite::offered() {
        for version in Version::SUPPORTED {
            let mut server = Server::new();
            server.suites = vec![suite];
            let exporting = Credentials::of(&pki).client();
            let give =
                |issuer: &mut TicketIssuer| [b"one", b"two"].map(|data| issuer.issue(data).unwrap()).into();
            let tickets = exporting.first(&server, version, give);
            let bytes: Vec<_> = tickets.iter().map(|ticket| ticket.export().unwrap()).collect();
            drop((tickets, exporting));

            let importing = Credentials::of(&pki).client();
            for (bytes, data) in bytes.iter().zip([b"one", b"two"]) {
                let ticket = importing
                    .tls
                    .import_ticket(&name("LOCALHOST"), version, bytes)
                    .unwrap();
                assert_eq!(
                    ticket.export().unwrap(),
                    *bytes,
                    "it can go on to a third process"
                );
                let session = importing.session("localhost", version, Some(ticket));
                assert_eq!(
                    session.peer_transport_parameters(),
                    Some(&[1, 1, 6][..]),
                    "remembered (RFC 9000 section 7.4.1)"
                );
                let ticket = importing
                    .tls
                    .import_ticket(&name("localhost"), version, bytes)
                    .unwrap();
                let second = importing.second_as(&server, "localhost", version, ticket);
                assert_eq!(second, (true, true, Some(data.to_vec())), "{suite:?} {version:?}");
            }
        }
    }
}

#[test]
fn chain_of_the_server_is_known_again() {
    let pki = Pki::new();
    let (server, bytes) = exported(&Credentials::of(&pki).client());
    let importing = Credentials::of(&pki).client();
    let mut client = importing.session(
        "localhost",
        Version::V1,
        Some(import(&importing, &bytes).unwrap()),
    );
    let tls = server.tls(&pki);
    let mut session = TlsSession::server(&tls, Version::V1, vec![1, 1, 6]).unwrap();
    let mut hello = Vec::new();
    client.write(&mut hello).unwrap();
    session.resume(tls.resumable(&hello, Version::V1, &server.limits).unwrap());
    session.read(&hello).unwrap();
    run(&mut client, &mut session).unwrap();
    assert!(client.is_resumed());
    assert_eq!(*client.info().peer_certificates, pki.chain[..]);
}

#[test]
fn age_of_a_ticket_that_lay_on_a_disk_is_right_and_its_end_is_kept() {
    let pki = Pki::new();
    let importing = Credentials::of(&pki).client();
    let (server, bytes) = exported(&Credentials::of(&pki).client());
    let at = |secs| {
        let (tls, name) = (&importing.tls, name("localhost"));
        tls.import_ticket_at(now() + secs, &name, Version::V1, &bytes)
    };
    server.clock.pass(1000);
    assert_eq!(kind(importing.second(&server, at(1000).unwrap())), EARLY);
    // By the age that the client says, somebody has held its hello back.
    assert_eq!(kind(importing.second(&server, at(0).unwrap())), RESUMED);
    let lifetime = u64::from(server.resumption.lifetime.as_secs() as u32);
    assert!(at(lifetime - 10).is_ok());
    for later in [lifetime, 2 * lifetime, u64::MAX / 2] {
        let error = at(later).unwrap_err();
        assert!(matches!(error, TicketImportError::Expired { .. }), "{error}");
    }
}

#[test]
fn ticket_from_the_future_is_that_of_a_wrong_clock() {
    let pki = Pki::new();
    let client = Credentials::of(&pki).client();
    let (_, bytes) = exported(&client);
    let at = |secs: u64| {
        client
            .tls
            .import_ticket_at(secs, &name("localhost"), Version::V1, &bytes)
    };
    assert!(at(now() - 30).is_ok());
    assert!(matches!(
        at(now() - 1000),
        Err(TicketImportError::FromTheFuture(999..=1001))
    ));
}

#[test]
fn ticket_serves_its_server_protocol_version_suite_and_identity_and_says_which_it_misses() {
    let pki = Pki::new();
    let same = Credentials::of(&pki).client();
    let (_, bytes) = exported(&same);
    let (tls, localhost) = (&same.tls, name("localhost"));
    let wrong_name = tls
        .import_ticket(&name("other"), Version::V1, &bytes)
        .unwrap_err();
    assert_eq!(wrong_name, TicketImportError::ServerName("localhost".to_owned()));
    let wrong_version = tls.import_ticket(&localhost, Version::V2, &bytes).unwrap_err();
    assert_eq!(wrong_version, TicketImportError::Version(1));

    let with = |change| {
        Credentials {
            change,
            ..Credentials::of(&pki)
        }
        .client()
    };
    let alpn = Credentials {
        alpn: b"h3",
        ..Credentials::of(&pki)
    }
    .client();
    let suites = with(|credentials, _| credentials.cipher_suites = vec![CipherSuite::Aes256Gcm]);
    let identity = with(|credentials, pki| {
        credentials.identity = Some(Identity::new(pki.chain.clone(), pki.key.clone_key()));
    });
    let error = |client: &Client| import(client, &bytes).unwrap_err();
    assert_eq!(error(&alpn), TicketImportError::Alpn(b"perf".to_vec()));
    assert!(matches!(error(&suites), TicketImportError::CipherSuite(_)));
    assert_eq!(error(&identity), TicketImportError::Identity);
    // A client with a certificate takes its own.
    let (server, bytes) = exported(&identity);
    assert_eq!(import(&same, &bytes).unwrap_err(), TicketImportError::Identity);
    let again = with(|credentials, pki| {
        credentials.identity = Some(Identity::new(pki.chain.clone(), pki.key.clone_key()));
    });
    assert_eq!(
        kind(again.second(&server, import(&again, &bytes).unwrap())),
        EARLY
    );

    let without = ClientTls::new(ClientCredentials::no_verification(), vec![b"perf".to_vec()]).unwrap();
    let unsupported = without
        .import_ticket(&localhost, Version::V1, &bytes)
        .unwrap_err();
    assert_eq!(unsupported, TicketImportError::Unsupported, "it resumes nothing");
    assert_eq!(
        import(&Client::new(), &bytes).unwrap_err(),
        TicketImportError::Unsupported
    );
}

#[test]
fn server_that_is_not_trusted_here_stays_so() {
    let (pki, other) = (Pki::new(), Pki::new());
    let client = Credentials::of(&pki).client();
    let (server, bytes) = exported(&client);
    let elsewhere = Credentials::of(&other).client();
    let error = import(&elsewhere, &bytes).unwrap_err();
    assert!(matches!(error, TicketImportError::Untrusted(_)), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    // That a ticket was taken without a signature opens no door to servers.
    import(&client, &bytes).unwrap();
    let begin = |server: ServerTls| {
        let mut session = TlsSession::server(&server, Version::V1, vec![1, 1, 6]).unwrap();
        run(&mut client.session("localhost", Version::V1, None), &mut session)
    };
    assert!(begin(server.tls(&other)).is_err(), "another certificate");
    let stolen = Pki {
        chain: pki.chain.clone(),
        key: other.key.clone_key(),
    };
    assert!(
        begin(with_wrong_key(&stolen)).is_err(),
        "the certificate, but not its key"
    );
    assert!(begin(server.tls(&pki)).is_ok());
}

#[test]
fn handlers_that_may_refuse_a_certificate_are_not_passed_over() {
    let pki = Pki::new();
    let (_, bytes) = exported(&Credentials::of(&pki).client());
    let changes: [fn(&mut ClientCredentials, &Pki); 2] = [
        |credentials, _| credentials.certificate_received = CertificateReceived::Indicated,
        |credentials, _| credentials.certificate_received = CertificateReceived::Deferred,
    ];
    for change in changes {
        let client = Credentials {
            change,
            ..Credentials::of(&pki)
        }
        .client();
        assert_eq!(
            import(&client, &bytes).unwrap_err(),
            TicketImportError::AsksHandlers
        );
    }
}

#[test]
fn ticket_that_allows_no_bytes_of_0_rtt_resumes() {
    let pki = Pki::new();
    let client = Credentials::of(&pki).client();
    let (server, bytes) = exported(&client);
    let (mut origin, parameters) = TicketOrigin::decode(&bytes).unwrap();
    origin.message.early_data = Some(0);
    let ticket = import(&client, &origin.encode(parameters)).unwrap();
    assert_eq!(kind(client.second(&server, ticket)), RESUMED);
    origin.message.early_data = Some(1);
    let error = import(&client, &origin.encode(parameters)).unwrap_err();
    assert_eq!(error, TicketImportError::NotATicket);
}

#[test]
fn lengths_that_no_server_has_are_refused() {
    let pki = Pki::new();
    let client = Credentials::of(&pki).client();
    let (_, bytes) = exported(&client);
    let (origin, parameters) = TicketOrigin::decode(&bytes).unwrap();
    // An unknown parameter (RFC 9000 section 18.1) of this length.
    let long = |len: u16| {
        let [high, low] = (len | 0x4000).to_be_bytes();
        [parameters, &[27, high, low], &vec![0; usize::from(len)]].concat()
    };
    assert!(import(&client, &origin.encode(&long(4000))).is_ok());
    let refused = |origin: &TicketOrigin, parameters: &[u8]| {
        let error = import(&client, &origin.encode(parameters)).unwrap_err();
        assert_eq!(error, TicketImportError::NotATicket);
    };
    refused(&origin, &long(4096));
    let rest = [parameters, &[27, 0x80, 0, 0xff, 0xe0], &[0; 0xffe0]].concat();
    refused(&origin, &rest);
    refused(&origin, &[0; 0xffff]);
    let own = &pki.chain[0];
    let chains = [
        vec![],
        vec![own.clone(); 0xffff / own.len()],
        vec![own.clone(); 0x10000 / own.len() + 1],
        vec![own.clone(), vec![0; 0xff_ffff].into()],
        vec![vec![0; 0xff_ffff].into(), vec![0; 0xff_ffff].into()],
    ];
    for chain in chains {
        let origin = TicketOrigin {
            chain: chain.into(),
            ..origin.clone()
        };
        refused(&origin, parameters);
    }
    assert!(
        origin.export(&long(4096)).is_none(),
        "what is not taken in is not exported"
    );
}

/// Seals nothing, and makes tickets long.
#[derive(Debug)]
struct Padding(usize);

impl rustls::server::ProducesTickets for Padding {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        1000
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let mut ticket = session.to_vec();
        ticket.resize(self.0, 0);
        ticket.extend((session.len() as u16).to_be_bytes());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (ticket, len) = ticket.split_last_chunk()?;
        Some(ticket.get(..u16::from_be_bytes(*len).into())?.to_vec())
    }
}

#[test]
fn ticket_of_60_kilobytes_resumes_in_another_process() {
    let pki = Pki::new();
    let mut server = rustls::ServerConfig::builder_with_provider(provider(true, &CipherSuite::ALL).into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), pki.key.clone_key())
        .unwrap();
    server.alpn_protocols = vec![b"perf".to_vec()];
    server.ticketer = Arc::new(Padding(60_000));
    server.send_tls13_tickets = 1;
    let server = ServerTls::from_rustls(&Arc::new(server)).unwrap();
    let connect = |client: &Client, ticket| {
        let mut client = client.session("localhost", Version::V1, ticket);
        let mut session = TlsSession::server(&server, Version::V1, vec![1, 1, 6]).unwrap();
        run(&mut client, &mut session).unwrap();
        let info = client.info();
        (client.is_resumed(), client.received_tickets(&info).pop())
    };
    let (is_resumed, ticket) = connect(&Credentials::of(&pki).client(), None);
    assert!(!is_resumed);
    let bytes = ticket.unwrap().export().unwrap();
    assert!(bytes.len() > 60_000);
    let importing = Credentials::of(&pki).client();
    let (is_resumed, ticket) = connect(&importing, Some(import(&importing, &bytes).unwrap()));
    assert!(is_resumed && ticket.is_some());
}

/// A server that shows a certificate whose key it does not have.
fn with_wrong_key(pki: &Pki) -> ServerTls {
    #[derive(Debug)]
    struct Shown(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Shown {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let provider = provider(true, &CipherSuite::ALL);
    let key = provider
        .key_provider
        .load_private_key(pki.key.clone_key())
        .unwrap();
    let certified = Arc::new(rustls::sign::CertifiedKey::new(pki.chain.clone(), key));
    let mut config = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(certified)));
    config.alpn_protocols = vec![b"perf".to_vec()];
    ServerTls::from_rustls(&Arc::new(config)).unwrap()
}

#[test]
fn session_that_was_made_for_one_configuration_serves_no_other() {
    let pki = Pki::new();
    let (server, bytes) = exported(&Credentials::of(&pki).client());
    let [one, two] = [(); 2].map(|()| Credentials::of(&pki).client());
    let ticket = import(&one, &bytes).unwrap();
    assert_eq!(kind(two.second(&server, ticket)), FULL);
}

#[test]
fn bytes_that_were_cut_or_damaged_are_no_ticket_and_show_no_secret() {
    let pki = Pki::new();
    let client = Credentials::of(&pki).client();
    let (_, bytes) = exported(&client);
    assert!(!format!("{bytes:?}").contains(','), "{bytes:?}");
    let refused =
        |bytes: &[u8]| assert_eq!(import(&client, bytes).unwrap_err(), TicketImportError::NotATicket);
    (0..bytes.len()).for_each(|len| refused(&bytes[..len]));
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 0x10;
        refused(&changed);
    }
    refused(&[&bytes[..], b"more"].concat());
}

#[test]
fn bytes_that_somebody_has_made_up_are_refused_or_taken_and_nothing_panics() {
    let pki = Pki::new();
    let client = Credentials::of(&pki).client();
    let (server, bytes) = exported(&client);
    let content = &bytes[..bytes.len() - 8];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    proptest!(ProptestConfig::with_cases(150), |(changes in changes, cut in cut)| {
        let mut hostile = content.to_vec();
        for (at, byte) in changes {
            let at = at.index(hostile.len());
            hostile[at] = byte;
        }
        if let Some(len) = cut {
            hostile.truncate(len.index(hostile.len()));
        }
        if let Ok(ticket) = import(&client, &with_checksum(&hostile)) {
            // A wrong secret or ticket is a matter between client and server.
            let mut session = client.session("localhost", Version::V1, Some(ticket));
            let mut hello = Vec::new();
            session.write(&mut hello).unwrap();
            let _ = hello_read(&server.tls(&pki), &hello, &server.limits);
        }
    });
}
