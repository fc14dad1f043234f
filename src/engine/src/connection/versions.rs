//! Which version a connection speaks (RFC 9368, RFC 9369 section 4).
//!
//! The client's first flight is in the *original version*. A server that would rather speak another one of those that the client has goes over
//! to it with its first CRYPTO data, without a round trip: the *negotiated version*, of which the client hears by the long headers. Initial
//! packets of the original version may come for as long as there are Initial keys. A server that takes none of the client's versions answers
//! with a version negotiation packet, upon which the client may start again in a version that is named there.
//!
//! What both have said about versions comes with the transport parameters, authenticated: whoever was made to speak a version by a forged
//! header or packet finds out there.

use rand::{Rng, RngExt};
use ringway_types::Instant;
use rustls::pki_types::ServerName;

use super::cids::RemoteCids;
use super::close::{CloseReason, State};
use super::config::Config;
use super::drops::DropReason;
use super::handshake::{Handshake, Restart};
use super::{Connection, initial_dcid};
use crate::crypto::keys::Keys;
use crate::crypto::tickets::ClientTicket;
use crate::crypto::tls::{ClientTls, TlsSession};
use crate::path::ecn::EcnValidation;
use crate::recovery::Recovery;
use crate::wire::cid::ConnectionId;
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::header::{LongHeader, LongType};
use crate::wire::version_information::VersionInformation;
use crate::wire::{Side, Space, Version};

impl Config {
    /// The versions that a client has, most preferred first.
    fn offered(&self) -> Vec<Version> {
        match &self.offered_versions {
            Some(offered) => offered.clone(),
            None => [self.version]
                .into_iter()
                .chain(
                    Version::SUPPORTED
                        .into_iter()
                        .filter(|other| *other != self.version),
                )
                .collect(),
        }
    }

    /// The version that a client would choose of those that `is_there`.
    fn choose(&self, is_there: impl Fn(Version) -> bool) -> Option<Version> {
        self.offered().into_iter().find(|&version| is_there(version))
    }

    /// The versions that a server takes.
    fn accepted(&self) -> &[Version] {
        self.accepted_versions.as_deref().unwrap_or(&Version::SUPPORTED)
    }

    /// The version that a server goes on in with a client that has started in `original` and says this of others; `None`: it takes none of them.
    fn negotiate(&self, original: Version, client: Option<&VersionInformation>) -> Option<Version> {
        // What contradicts the packet headers is an error, which is found when all parameters are checked.
        let client = client.filter(|client| client.chosen == original.number());
        let available = client.map_or(&[][..], |client| &client.available);
        let usable = |version: Version| {
            let offered = version == original || available.contains(&version.number());
            offered && original.is_compatible_with(version)
        };
        match &self.accepted_versions {
            Some(accepted) => accepted.iter().copied().find(|&version| usable(version)),
            // The client's order decides.
            None => available
                .iter()
                .filter_map(|&number| Version::from_number(number))
                .find(|&version| usable(version))
                .or(Some(original)),
        }
    }
}

/// In the handshake.
impl Connection {
    /// What we say of versions.
    pub(super) fn version_information(&self, rng: &mut impl Rng) -> VersionInformation {
        let config = &self.config;
        let available = match (self.side, &config.fully_deployed_versions) {
            (Side::Client, _) => config.offered(),
            (Side::Server, Some(deployed)) => deployed.clone(),
            (Side::Server, None) => config.accepted().to_vec(),
        };
        let mut available: Vec<u32> = available.into_iter().map(Version::number).collect();
        available.push(Version::reserved(rng.random()));
        VersionInformation {
            chosen: self.version.number(),
            available,
        }
    }

    /// Begins a client's handshake.
    pub(super) fn begin_client(
        &mut self,
        now: Instant,
        tls: &ClientTls,
        server_name: ServerName<'static>,
        ticket: Option<ClientTicket>,
    ) {
        self.content.stats.resumption_attempted |= ticket.is_some();
        let mut rng = self.random();
        let mut params = Vec::new();
        self.local_parameters(&mut rng).encode(&mut params, &mut rng);
        let result = TlsSession::client(tls, self.version, server_name, params, ticket).and_then(|session| {
            self.handshake.remembers = session.peer_transport_parameters().is_some();
            self.begin_early(&session)?;
            self.handshake.tls = Some(Box::new(session));
            self.advance_handshake(now)
        });
        self.check(now, result);
    }

    /// Keeps what a client needs to start again, if it has another version to do so with.
    pub(super) fn prepare_restart(&mut self, tls: &ClientTls, server_name: &ServerName<'static>) {
        if self.config.offered().len() > 1 {
            self.handshake.restart = Some(Box::new(Restart {
                tls: tls.clone(),
                server_name: server_name.clone(),
            }));
        }
    }

    /// A server chooses the version, now that it knows what the client has and what the application accepts. False if it takes none of them: the
    /// connection has ended.
    pub(super) fn negotiate_version(&mut self, now: Instant) -> Result<bool, TransportError> {
        let client = self.handshake.client_versions.take();
        let original = self.handshake.original_version;
        match self.config.negotiate(original, client.as_deref()) {
            Some(version) => {
                if version != original {
                    let keys = self.initial_keys(version);
                    self.change_version(version, Box::new(keys));
                }
                Ok(true)
            }
            None => self.refuse_version(now).map(|()| false),
        }
    }

    /// RFC 9368 section 2.3: incompatible negotiation instead.
    fn refuse_version(&mut self, now: Instant) -> Result<(), TransportError> {
        let error = invalid("none of the client's versions is accepted");
        // A client that has heard anything of this connection ignores version negotiation packets (RFC 9000 section 6.2).
        if self.content.stats.sent_packets > 0 || self.handshake.retry_scid.is_some() {
            return Err(error);
        }
        self.announce_end(CloseReason::Transport(error));
        self.handshake.negotiate_versions = true;
        self.state = State::Draining {
            until: now + self.closing_period(now),
            answer: false,
        };
        Ok(())
    }

    /// The versions for a version negotiation packet that is to be sent.
    pub(super) fn take_version_negotiation(&mut self) -> Option<Vec<Version>> {
        std::mem::take(&mut self.handshake.negotiate_versions).then(|| self.config.accepted().to_vec())
    }

    /// Initial keys of another version for this connection.
    pub(super) fn initial_keys(&self, version: Version) -> Keys {
        let handshake = &self.handshake;
        let dcid = handshake.retry_scid.unwrap_or(handshake.original_dcid);
        Keys::initial(version, &dcid, self.side)
    }

    /// The connection goes on in another version than that of the first flight.
    pub(super) fn change_version(&mut self, version: Version, keys: Box<Keys>) {
        self.version = version;
        self.handshake.version_known = true;
        self.handshake.original_initial = self.handshake.initial.replace(keys);
        if let Some(tls) = &mut self.handshake.tls {
            tls.set_version(version);
        }
    }

    /// A packet of another version than the one in use may belong to the connection: it is an Initial of the original one, or the first of a
    /// server that has gone over to another.
    pub(super) fn may_have_version(&self, header: &LongHeader) -> bool {
        match header.ty {
            LongType::Initial if header.version == self.handshake.original_version => true,
            LongType::Initial | LongType::Handshake => self.may_go_over_to(header.version),
            // Whatever is negotiated (RFC 9369 section 4.1).
            LongType::ZeroRtt => header.version == self.handshake.original_version,
        }
    }

    fn may_go_over_to(&self, version: Version) -> bool {
        self.side.is_client()
            && !self.handshake.version_known
            && self.handshake.initial.is_some()
            && self.version.is_compatible_with(version)
            && self.config.offered().contains(&version)
    }

    /// CRYPTO data came in the Initial packet that was opened last. A server sends it in the negotiated version alone (RFC 9369 section 4.1).
    pub(super) fn on_initial_crypto(&mut self) -> Result<(), TransportError> {
        if self.side.is_client() {
            self.handshake.version_known = true;
            if self.handshake.opened_version != self.version {
                return Err(super::receive::violation(
                    "handshake data of a server in another version than the negotiated one",
                ));
            }
        }
        Ok(())
    }

    /// Checks what the peer says of versions (RFC 9368 section 4).
    pub(super) fn check_versions(&self, peer: Option<&VersionInformation>) -> Result<(), TransportError> {
        match self.side {
            Side::Client => self.check_server_versions(peer),
            Side::Server => self.check_client_versions(peer),
        }
    }

    fn check_client_versions(&self, client: Option<&VersionInformation>) -> Result<(), TransportError> {
        let original = self.handshake.original_version;
        match client {
            Some(client) if client.chosen != original.number() => {
                Err(invalid("Chosen Version is not that of the client's packets"))
            }
            // The version was chosen by what we read of the ClientHello; this is what TLS has read.
            Some(client) if !client.available.contains(&self.version.number()) => {
                Err(invalid("the client does not have the negotiated version"))
            }
            None if self.version != original => {
                Err(invalid("the client does not have the negotiated version"))
            }
            _ => Ok(()),
        }
    }

    fn check_server_versions(&self, server: Option<&VersionInformation>) -> Result<(), TransportError> {
        let original = self.handshake.original_version;
        let restarted = self.handshake.restarted;
        let version_1_alone;
        let server = match server {
            Some(server) => server,
            // Section 8: a server that knows nothing of RFC 9368 speaks version 1, and no other.
            None if restarted && original == Version::V1 => {
                let number = Version::V1.number();
                version_1_alone = VersionInformation {
                    chosen: number,
                    available: vec![number],
                };
                &version_1_alone
            }
            None if restarted || self.version != original => {
                return Err(invalid("no version_information after a change of version"));
            }
            None => return Ok(()),
        };
        // The version in use is one that we have offered: so is the Chosen Version.
        if server.chosen != self.version.number() {
            return Err(invalid("Chosen Version is not that of the server's packets"));
        }
        if restarted {
            let there =
                |version: Version| version == self.version || server.available.contains(&version.number());
            if server.available.is_empty() || self.config.choose(there) != Some(original) {
                return Err(invalid(
                    "the version negotiation packet was forged: the server has a better version",
                ));
            }
        }
        Ok(())
    }
}

/// Version negotiation packets.
impl Connection {
    pub(super) fn on_version_negotiation(
        &mut self,
        now: Instant,
        dcid: &ConnectionId,
        scid: &ConnectionId,
        offered: Vec<u32>,
    ) -> Result<(), DropReason> {
        let handshake = &self.handshake;
        let ours = *dcid == self.content.local_cids.first().cid && *scid == handshake.original_dcid;
        // Nor a second one (RFC 9368 section 4).
        let expected = self.side.is_client()
            && !handshake.received
            && handshake.retry_scid.is_none()
            && !handshake.restarted;
        if !ours || !expected || offered.contains(&self.version.number()) || !self.is_open() {
            return Err(DropReason::UnexpectedVersionNegotiation);
        }
        let version = self.config.choose(|version| offered.contains(&version.number()));
        match (version, self.handshake.restart.take()) {
            (Some(version), Some(restart)) => self.restart(now, version, *restart),
            _ => self.end_silently(CloseReason::VersionNegotiation { offered }),
        }
        Ok(())
    }

    /// Sends a new first flight in another version: to the peer it is another connection, of which only our connection ID is the same (RFC 9368
    /// section 2.4). The token and the ticket of an earlier connection do not serve the other version (RFC 9369
    /// section 5): what went in 0-RTT goes later.
    fn restart(&mut self, now: Instant, version: Version, restart: Restart) {
        self.stop_early();
        let mut rng = self.random();
        let dcid = initial_dcid(&mut rng);
        self.version = version;
        self.handshake = Handshake::new(version, dcid, Keys::initial(version, &dcid, self.side));
        self.handshake.restarted = true;
        self.content.spaces.discard(Space::Initial);
        self.content.remote_cids = RemoteCids::new(dcid, self.path.address.remote);
        self.recovery = Recovery::new(self.side, self.config.initial_rtt, rng.next_u64());
        self.path.ecn = EcnValidation::new(self.config.ecn);
        self.probes = [0; 3];
        self.deferred_packets.clear();
        self.idle.restart(now);
        self.begin_client(now, &restart.tls, restart.server_name, None);
    }
}

fn invalid(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::VERSION_NEGOTIATION_ERROR, reason)
}
