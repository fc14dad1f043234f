//! A client's ticket as bytes, for another process.
//!
//! They hold the secret of the session: who reads them can pass for the client, and who can put others in their place, for the server. Whose ticket
//! it is and what for is in them as well, so that whoever takes it in can check that.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::{CertificateDer, ServerName};
use zeroize::zeroize_bytes;

use super::session_value::{NewSessionTicket, long_vector, short_vector, vector};
use crate::base::coding::{Reader, UnexpectedEnd};
use crate::crypto::suite::CipherSuite;
use crate::wire::Version;

/// A client's ticket as bytes. A secret, which is wiped from memory when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketBytes(Vec<u8>);

impl fmt::Debug for TicketBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketBytes({} bytes)", self.0.len())
    }
}

impl Deref for TicketBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for TicketBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Takes the bytes over: they are wiped as its own.
impl From<Vec<u8>> for TicketBytes {
    fn from(bytes: Vec<u8>) -> Self {
        TicketBytes(bytes)
    }
}

impl From<&[u8]> for TicketBytes {
    fn from(bytes: &[u8]) -> Self {
        TicketBytes(bytes.to_vec())
    }
}

impl Drop for TicketBytes {
    fn drop(&mut self) {
        // What was longer once has left secrets behind its end.
        self.0.resize(self.0.capacity(), 0);
        zeroize_bytes(&mut self.0);
    }
}

/// Where a client's ticket comes from: all that it takes to make the session anew, but for what the session says itself.
#[derive(Clone)]
pub(in crate::crypto) struct TicketOrigin {
    /// Version of QUIC that the connection has negotiated.
    pub(in crate::crypto) version: Version,
    pub(in crate::crypto) suite: CipherSuite,
    /// Seconds of the Unix clock when it came.
    pub(in crate::crypto) received: u64,
    /// Of the certificate that the client shows.
    pub(in crate::crypto) identity: IdentityDigest,
    pub(in crate::crypto) server_name: ServerName<'static>,
    pub(in crate::crypto) alpn: Box<[u8]>,
    pub(in crate::crypto) message: NewSessionTicket,
    /// In its box as long as it lives: what is moved out of one stays in its memory.
    pub(in crate::crypto) psk: Box<OkmBlock>,
    /// The server's certificates, end entity first.
    pub(in crate::crypto) chain: Arc<[CertificateDer<'static>]>,
}

/// SHA-256 of the certificate that a client shows to servers that ask for one; zeros: it has none.
pub(in crate::crypto) type IdentityDigest = [u8; 32];

impl TicketOrigin {
    /// With the server's transport parameters, as they came. `None`: nobody would take it in.
    pub(in crate::crypto) fn export(&self, parameters: &[u8]) -> Option<TicketBytes> {
        fits(parameters, self.chain_len()).then(|| self.encode(parameters))
    }

    fn chain_len(&self) -> usize {
        self.chain.iter().map(|one| 3 + one.len()).sum()
    }

    pub(super) fn encode(&self, parameters: &[u8]) -> TicketBytes {
        let name = self.server_name.to_str();
        let message = self.message.encode();
        let lens = [
            name.len(),
            self.alpn.len(),
            message.len(),
            parameters.len(),
            self.chain_len(),
        ];
        // All that it takes at once: a vector that grows leaves secrets behind.
        let mut out = Vec::with_capacity(lens.iter().sum::<usize>() + FIXED_LEN_MAX);
        out.extend(MAGIC);
        out.extend(self.version.number().to_be_bytes());
        out.extend(u16::from(self.suite.tls13().common.suite).to_be_bytes());
        out.extend(self.received.to_be_bytes());
        out.extend(self.identity);
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
        out.push(self.alpn.len() as u8);
        out.extend(&self.alpn);
        out.push(self.psk.as_ref().as_ref().len() as u8);
        out.extend(self.psk.as_ref().as_ref());
        out.extend((message.len() as u32).to_be_bytes());
        out.extend(message);
        out.extend((parameters.len() as u16).to_be_bytes());
        out.extend(parameters);
        for certificate in self.chain.iter() {
            let [_, a, b, c] = (certificate.len() as u32).to_be_bytes();
            out.extend([a, b, c]);
            out.extend(certificate.as_ref());
        }
        let sum = checksum(&out);
        out.extend(sum);
        TicketBytes(out)
    }

    /// What is in the bytes, and the server's transport parameters. `None`: they were cut short or changed, or are something else.
    pub(in crate::crypto) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (content, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>()?;
        if checksum(content) != *sum {
            return None;
        }
        let mut r = Reader::new(content.strip_prefix(&MAGIC)?);
        let mut read = || -> Result<_, UnexpectedEnd> {
            let wrong = |_| UnexpectedEnd;
            let version = Version::from_number(r.u32()?).ok_or(UnexpectedEnd)?;
            let suite = CipherSuite::of_tls(r.u16()?.into()).ok_or(UnexpectedEnd)?;
            let [high, low] = [r.u32()?, r.u32()?];
            let identity = r.array()?;
            let name = std::str::from_utf8(short_vector(&mut r)?).map_err(wrong)?;
            let server_name = ServerName::try_from(name.to_owned()).map_err(|_| UnexpectedEnd)?;
            let alpn = short_vector(&mut r)?.into();
            let psk = short_vector(&mut r)?;
            if psk.len() * 8 != usize::from(suite.hash_bits()) {
                return Err(UnexpectedEnd);
            }
            let len = r.u32()? as usize;
            let (message, []) = NewSessionTicket::parse(r.bytes(len)?).ok_or(UnexpectedEnd)? else {
                return Err(UnexpectedEnd);
            };
            let parameters = vector(&mut r)?;
            if !fits(parameters, r.remaining()) {
                return Err(UnexpectedEnd);
            }
            let mut chain = Vec::new();
            while !r.is_empty() {
                chain.push(CertificateDer::from(long_vector(&mut r)?.to_vec()));
            }
            let origin = TicketOrigin {
                version,
                suite,
                received: u64::from(high) << 32 | u64::from(low),
                identity,
                server_name,
                alpn,
                message,
                psk: Box::new(OkmBlock::new(psk)),
                chain: chain.into(),
            };
            Ok((origin, parameters))
        };
        read().ok()
    }
}

/// Whether a session can be made with transport parameters and a chain of such lengths.
fn fits(parameters: &[u8], chain_len: usize) -> bool {
    parameters.len() <= PARAMETERS_MAX && (1..=CHAIN_MAX).contains(&chain_len)
}

/// Of which certificate a ticket is.
pub(in crate::crypto) fn identity_digest(certificate: Option<&CertificateDer<'_>>) -> IdentityDigest {
    certificate.map_or([0; 32], |certificate| sha256(certificate))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    *digest.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// That bytes were not damaged. It keeps nobody from making others.
fn checksum(content: &[u8]) -> [u8; CHECKSUM_LEN] {
    *sha256(content).first_chunk().expect("SHA-256 has 32 bytes")
}

/// What the bytes are, and in which form.
pub(super) const MAGIC: [u8; 8] = *b"rwticke\x01";
const CHECKSUM_LEN: usize = 8;
/// Longer transport parameters are not exported, and not taken in: rustls takes it for granted that a message of its own holds them.
const PARAMETERS_MAX: usize = 4096;
/// No message of a handshake with longer chains is read by rustls, whose clients refuse them.
const CHAIN_MAX: usize = 0xffff;
/// All that has the same length in each, and lengths.
const FIXED_LEN_MAX: usize = 160;

/// The bytes with this content, as if it had been written.
#[cfg(any(test, feature = "null-crypto"))]
pub(super) fn with_checksum(content: &[u8]) -> Vec<u8> {
    [content, &checksum(content)].concat()
}
