//! Which tickets a server gives out and takes.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::{digest, rand};
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use thiserror::Error;

use super::keys::{SEALED_LEN, TicketKeys};
use super::replay::{AGE_TOLERANCE_MS, ReplayProtection, StrikeRegister, TicketUse};
use super::sealed::{Contents, TAG_LEN};
use super::session_value::{self, NewSessionTicket, SessionValue};
use crate::wire::Version;
use crate::wire::early_limits::EarlyLimits;

/// What a server lets clients do with tickets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum ResumptionLevel {
    /// It gives out none, and takes none.
    #[default]
    None,
    /// They resume sessions, which saves certificates and signatures.
    ResumeOnly,
    /// They resume sessions, and clients may send data before the handshake is complete (0-RTT).
    ResumeAndZeroRtt,
}

/// Bytes of the application's data in a ticket at most, as in MsQuic.
pub const APPLICATION_DATA_MAX: usize = 1000;

/// What a server gives out tickets for, and takes them for.
#[derive(Clone)]
pub struct ServerResumption {
    /// What clients may do with tickets.
    pub level: ResumptionLevel,
    /// What seals tickets.
    pub keys: TicketKeys,
    /// How long a ticket serves; seven days at most (RFC 8446 section 4.6.1). Default: one day.
    pub lifetime: Duration,
    /// How many tickets a connection can give its client. Each takes 5 µs of the handshake, and some 300 bytes until it is given out. Default: 1.
    pub tickets: usize,
    /// Where configurations share keys: a ticket serves those with the same context, and no others. A configuration that was made from one of rustls
    /// does not say what it asks of clients: its tickets serve itself alone, unless it has a context.
    pub context: Vec<u8>,
    /// Sees to it that a ticket brings 0-RTT once. Default: [`StrikeRegister::shared`].
    pub replay_protection: Arc<dyn ReplayProtection>,
}

impl ServerResumption {
    /// With these keys, and the defaults for the rest.
    pub fn new(level: ResumptionLevel, keys: TicketKeys) -> Self {
        ServerResumption {
            level,
            keys,
            lifetime: Duration::from_secs(24 * 3600),
            tickets: 1,
            context: Vec::new(),
            replay_protection: StrikeRegister::shared(),
        }
    }
}

/// Why a ticket is not given out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum IssueError {
    /// There is none, or none left.
    #[error("the server gives out no tickets, has no ticket key, or has given out all of this connection's")]
    NoTickets,
    /// The application's data is too long.
    #[error(
        "the data is too long: a ticket carries {APPLICATION_DATA_MAX} bytes, less if the client has shown a long certificate chain"
    )]
    TooLong,
}

/// What a server asks of clients.
#[derive(Clone)]
pub(in crate::crypto) enum CertificatePolicy {
    /// No certificates.
    None,
    /// Certificates, and this decides on them.
    Asked(Arc<dyn ClientCertVerifier>),
    /// The configuration is the application's, and does not say.
    Unknown,
}

impl CertificatePolicy {
    pub(in crate::crypto) fn of(verifier: Option<Arc<dyn ClientCertVerifier>>) -> Self {
        match verifier {
            Some(verifier) if verifier.offer_client_auth() => CertificatePolicy::Asked(verifier),
            _ => CertificatePolicy::None,
        }
    }
}

/// A server's tickets, with what is known of its TLS configuration.
pub(in crate::crypto) struct Policy {
    resumption: ServerResumption,
    /// Separates configurations from each other: part of what authenticates a ticket.
    context: [u8; 32],
    certificates: CertificatePolicy,
    time: Arc<dyn TimeProvider>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("level", &self.resumption.level)
            .finish_non_exhaustive()
    }
}

/// What a ClientHello offers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Offer<'a> {
    pub(crate) server_name: Option<String>,
    /// The application protocol that will be agreed on.
    pub(crate) alpn: Option<&'a [u8]>,
    /// Tickets, each with its age, hidden by a number that stands in the session; the client's favourite first.
    pub(crate) tickets: Vec<(&'a [u8], u32)>,
    /// 0-RTT comes with the first of them.
    pub(crate) early_data: bool,
}

/// A ticket that can be taken, if the application agrees.
pub(in crate::crypto) struct Prepared {
    pub(in crate::crypto) ticket: Vec<u8>,
    pub(in crate::crypto) session: Vec<u8>,
    /// The application's.
    pub(in crate::crypto) data: Vec<u8>,
    /// 0-RTT may come with it, and does.
    pub(in crate::crypto) early_data: Option<TicketUse>,
}

impl Policy {
    pub(in crate::crypto) fn new(
        resumption: ServerResumption,
        certificates: CertificatePolicy,
        time: Arc<dyn TimeProvider>,
    ) -> Self {
        // Whoever asks for certificates asks for those of certain issuers.
        let mut hash = digest::Context::new(&digest::SHA256);
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(b"ringway ticket");
        add(&resumption.context);
        match &certificates {
            CertificatePolicy::None => {}
            CertificatePolicy::Asked(verifier) => {
                add(&[u8::from(verifier.client_auth_mandatory())]);
                for issuer in verifier.root_hint_subjects() {
                    add(issuer.as_ref());
                }
            }
            // Whoever has several such configurations tells them apart.
            CertificatePolicy::Unknown if !resumption.context.is_empty() => add(b"rustls"),
            CertificatePolicy::Unknown => {
                add(&*ISSUER);
                add(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
            }
        }
        let mut context = [0; 32];
        context.copy_from_slice(hash.finish().as_ref());
        Policy {
            resumption,
            context,
            certificates,
            time,
        }
    }

    pub(in crate::crypto) fn level(&self) -> ResumptionLevel {
        self.resumption.level
    }

    fn now(&self) -> Option<u64> {
        Some(self.time.current_time()?.as_secs())
    }

    /// The first of the tickets that can be taken by a connection that begins in `version` and whose client is allowed `limits`.
    pub(in crate::crypto) fn prepare(
        &self,
        offer: &Offer<'_>,
        version: Version,
        limits: &EarlyLimits,
    ) -> Option<Prepared> {
        let tickets = offer.tickets.iter().take(TICKETS_TRIED);
        tickets.enumerate().find_map(|(at, &(ticket, age))| {
            let (contents, is_early) = self.open(offer, version, limits, ticket, age)?;
            let now = self.now()?;
            // RFC 8446 section 4.2.10: 0-RTT comes with the first ticket.
            let early_data = (is_early && at == 0).then(|| {
                let id = ticket.last_chunk().copied().unwrap_or_default();
                TicketUse::new(id, contents.issued, contents.issuer == *ISSUER, now)
            });
            Some(Prepared {
                ticket: ticket.to_vec(),
                session: contents.session,
                data: contents.data,
                early_data,
            })
        })
    }

    /// What is in a ticket that can be taken, and whether 0-RTT may come with it.
    fn open(
        &self,
        offer: &Offer<'_>,
        version: Version,
        limits: &EarlyLimits,
        ticket: &[u8],
        age: u32,
    ) -> Option<(Contents, bool)> {
        let contents = Contents::decode(&self.resumption.keys.open(ticket, &self.context)?)?;
        let now = self.now()?;
        let lives_until = contents.issued.saturating_add(contents.lifetime.into());
        // Whoever gave it out may have a clock that is a little ahead.
        if contents.version != version.number()
            || now >= lives_until
            || contents.issued > now + CLOCK_SKEW_SECS
        {
            return None;
        }
        let session = SessionValue::parse(&contents.session)?;
        let is_name = |name: &&String| name.parse::<IpAddr>().is_err();
        let asked = offer
            .server_name
            .as_ref()
            .filter(is_name)
            .map(|name| name.as_bytes());
        let same_name = match (session.name, asked) {
            (Some(then), Some(now)) => then.eq_ignore_ascii_case(now),
            (then, now) => then == now,
        };
        if !same_name
            || session.alpn.is_none()
            || session.alpn != offer.alpn
            || !self.takes_certificates(&session)
        {
            return None;
        }
        let client_age = age.wrapping_sub(session_value::age_add(&contents.session)?);
        let server_age = (now.saturating_sub(contents.issued) as u32).saturating_mul(1000);
        let is_early = offer.early_data
            && self.resumption.level == ResumptionLevel::ResumeAndZeroRtt
            && contents.early_data
            && limits.cover(&contents.limits)
            && server_age.abs_diff(client_age) <= AGE_TOLERANCE_MS;
        Some((contents, is_early))
    }

    /// What certificates the client has shown then would do now. rustls does not ask again when a session is resumed: that they have expired or
    /// were revoked meanwhile would not be noticed, nor that one is demanded and there is none.
    fn takes_certificates(&self, session: &SessionValue<'_>) -> bool {
        match (&self.certificates, &session.chain[..]) {
            (CertificatePolicy::None | CertificatePolicy::Unknown, chain) => chain.is_empty(),
            (CertificatePolicy::Asked(verifier), []) => !verifier.client_auth_mandatory(),
            (CertificatePolicy::Asked(verifier), [own, issuers @ ..]) => self
                .time
                .current_time()
                .is_some_and(|now| verifier.verify_client_cert(own, issuers, now).is_ok()),
        }
    }

    /// The first ticket may bring 0-RTT, and does so for the first time.
    pub(in crate::crypto) fn claim(&self, ticket_use: &TicketUse) -> bool {
        self.resumption.replay_protection.claim(ticket_use)
    }

    /// It did not.
    pub(in crate::crypto) fn withdraw(&self, ticket_use: &TicketUse) {
        self.resumption.replay_protection.withdraw(ticket_use);
    }
}

/// Gives out the tickets of one connection.
pub(crate) struct TicketIssuer {
    policy: Arc<Policy>,
    /// The negotiated version.
    version: Version,
    limits: EarlyLimits,
    /// Messages as rustls has made them, and the sessions that they are for.
    unused: Vec<(NewSessionTicket, Vec<u8>)>,
}

impl TicketIssuer {
    /// `messages` are those that rustls has written, `stored` what it has stored for them.
    pub(in crate::crypto) fn new(
        policy: Arc<Policy>,
        version: Version,
        limits: EarlyLimits,
        mut messages: &[u8],
        mut stored: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Self {
        let mut unused = Vec::new();
        while let Some((message, rest)) = NewSessionTicket::parse(messages) {
            messages = rest;
            let Some(at) = stored.iter().position(|(ticket, _)| *ticket == message.ticket) else {
                continue;
            };
            let session = stored.swap_remove(at).1;
            // What does not look as known is never given out.
            if session_value::age_add(&session) == Some(message.age_add)
                && SessionValue::parse(&session).is_some()
            {
                unused.push((message, session));
            }
        }
        TicketIssuer {
            policy,
            version,
            limits,
            unused,
        }
    }

    /// A message that gives out a ticket with this data of the application.
    pub(crate) fn issue(&mut self, data: &[u8]) -> Result<Vec<u8>, IssueError> {
        if data.len() > APPLICATION_DATA_MAX {
            return Err(IssueError::TooLong);
        }
        let (message, session) = self.unused.last().ok_or(IssueError::NoTickets)?;
        let policy = &self.policy;
        let issued = policy.now().ok_or(IssueError::NoTickets)?;
        let early_data = policy.level() == ResumptionLevel::ResumeAndZeroRtt;
        let mut session = session.clone();
        session_value::set_creation(&mut session, issued);
        let lifetime = policy.resumption.lifetime.as_secs().min(LIFETIME_MAX_SECS) as u32;
        let contents = Contents {
            issuer: *ISSUER,
            version: self.version.number(),
            issued,
            lifetime,
            early_data,
            limits: self.limits,
            data: data.to_vec(),
            session,
        };
        let ticket = policy.resumption.keys.seal(contents.encode(), &policy.context);
        let ticket = ticket.ok_or(IssueError::NoTickets)?;
        if ticket.len() > TICKET_MAX {
            return Err(IssueError::TooLong);
        }
        let message = NewSessionTicket {
            lifetime,
            ticket,
            early_data: early_data.then_some(u32::MAX),
            ..message.clone()
        };
        self.unused.pop();
        Ok(message.encode())
    }

    /// How much data each may carry; `None`: with the client's certificates none fits.
    pub(crate) fn data_max(&self) -> Option<usize> {
        let session = self.unused.iter().map(|(_, session)| session.len()).max()?;
        let room = TICKET_MAX.checked_sub(SEALED_LEN + Contents::FIXED_LEN + session)?;
        Some(room.min(APPLICATION_DATA_MAX))
    }

    /// How many are left.
    pub(crate) fn len(&self) -> usize {
        self.unused.len()
    }

    /// Whether one is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.unused.is_empty()
    }

    /// Bytes that it holds beside itself.
    pub(crate) fn memory(&self) -> usize {
        let held = |(message, session): &(NewSessionTicket, Vec<u8>)| {
            size_of::<(NewSessionTicket, Vec<u8>)>()
                + message.nonce.capacity()
                + message.ticket.capacity()
                + session.capacity()
        };
        self.unused.iter().map(held).sum()
    }
}

/// Tells this process from others, and from those before it.
static ISSUER: LazyLock<[u8; 8]> = LazyLock::new(|| {
    let mut issuer = [0; 8];
    rand::fill(&mut issuer).expect("the random generator of the system works");
    issuer
});

/// Tells configurations of this process apart of which nothing else is known.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Tickets of a ClientHello that are looked at.
const TICKETS_TRIED: usize = 4;
/// RFC 8446 section 4.6.1.
const LIFETIME_MAX_SECS: u64 = 7 * 24 * 3600;
/// By which a server's clock may be ahead of another's.
const CLOCK_SKEW_SECS: u64 = 60;
/// A ClientHello with a ticket of this size is one that servers wait for ([`CLIENT_HELLO_MAX`](crate::crypto::client_hello::CLIENT_HELLO_MAX)).
const TICKET_MAX: usize = 8 * 1024;
const _: () = assert!(TAG_LEN == size_of::<[u8; 16]>(), "the tag tells tickets apart");
