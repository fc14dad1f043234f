//! What rustls keeps of a session, and the message that brings a ticket.
//!
//! rustls keeps a session as bytes, whose form it does not promise. Tests notice when it changes; what is read here is checked, and a session that
//! does not look as known is not resumed.

use rustls::pki_types::CertificateDer;

use crate::base::coding::{Reader, UnexpectedEnd};

/// What a server's rustls keeps of a session, as far as it is looked into.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct SessionValue<'a> {
    /// The server's name that the client asked for.
    pub(super) name: Option<&'a [u8]>,
    /// The application protocol.
    pub(super) alpn: Option<&'a [u8]>,
    /// The client's certificate chain; empty if it has shown none.
    pub(super) chain: Vec<CertificateDer<'a>>,
}

impl<'a> SessionValue<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(value);
        let mut read = || -> Result<_, UnexpectedEnd> {
            let name = optional(&mut r, short_vector)?;
            // Protocol version and cipher suite.
            r.bytes(2 + 2)?;
            // The PSK.
            short_vector(&mut r)?;
            // Extended master secret: TLS 1.2.
            r.u8()?;
            let chain = optional(&mut r, long_vector)?.unwrap_or_default();
            let alpn = optional(&mut r, short_vector)?;
            // Application data, which rustls has none of on QUIC.
            let len = usize::from(r.u16()?);
            r.bytes(len)?;
            if r.remaining() != CREATION_LEN + AGE_ADD_LEN {
                return Err(UnexpectedEnd);
            }
            let mut certificates = Reader::new(chain);
            let mut chain = Vec::new();
            while !certificates.is_empty() {
                chain.push(CertificateDer::from(long_vector(&mut certificates)?));
            }
            Ok(SessionValue { name, alpn, chain })
        };
        read().ok()
    }
}

/// What is added to the age of a ticket, so that it cannot be seen (RFC 8446 section 4.6.1): the last of a session's bytes.
pub(super) fn age_add(value: &[u8]) -> Option<u32> {
    value.last_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The ticket is given out at this time: rustls reckons its age from then on, and refuses 0-RTT where the client reckons otherwise.
pub(super) fn set_creation(value: &mut [u8], unix_secs: u64) {
    if let Some(at) = value.len().checked_sub(AGE_ADD_LEN + CREATION_LEN) {
        value[at..at + CREATION_LEN].copy_from_slice(&unix_secs.to_be_bytes());
    }
}

/// Makes rustls resume the session without 0-RTT: by age it is weeks off.
pub(in crate::crypto) fn refuse_early_data(value: &mut [u8]) {
    if let Some(byte) = value
        .len()
        .checked_sub(AGE_ADD_LEN)
        .and_then(|at| value.get_mut(at))
    {
        *byte ^= 0x80;
    }
}

const CREATION_LEN: usize = 8;
const AGE_ADD_LEN: usize = 4;

fn optional<'a>(
    r: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<&'a [u8], UnexpectedEnd>,
) -> Result<Option<&'a [u8]>, UnexpectedEnd> {
    match r.u8()? {
        0 => Ok(None),
        1 => read(r).map(Some),
        _ => Err(UnexpectedEnd),
    }
}

pub(super) fn short_vector<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], UnexpectedEnd> {
    let len = usize::from(r.u8()?);
    r.bytes(len)
}

pub(super) fn vector<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], UnexpectedEnd> {
    let len = usize::from(r.u16()?);
    r.bytes(len)
}

pub(super) fn long_vector<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], UnexpectedEnd> {
    let [a, b, c] = r.array()?;
    r.bytes(u32::from_be_bytes([0, a, b, c]) as usize)
}

/// NewSessionTicket (RFC 8446 section 4.6.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::crypto) struct NewSessionTicket {
    /// In seconds.
    pub(in crate::crypto) lifetime: u32,
    pub(in crate::crypto) age_add: u32,
    pub(in crate::crypto) nonce: Vec<u8>,
    pub(in crate::crypto) ticket: Vec<u8>,
    /// `max_early_data_size` of the early_data extension.
    pub(in crate::crypto) early_data: Option<u32>,
}

impl NewSessionTicket {
    /// The first message, with its header, and the bytes behind it. `None`: it is not complete, or none of these.
    pub(in crate::crypto) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut r = Reader::new(bytes);
        let mut read = || -> Result<_, UnexpectedEnd> {
            if r.u8()? != NEW_SESSION_TICKET {
                return Err(UnexpectedEnd);
            }
            let mut body = Reader::new(long_vector(&mut r)?);
            let mut new = NewSessionTicket {
                lifetime: body.u32()?,
                age_add: body.u32()?,
                nonce: short_vector(&mut body)?.to_vec(),
                ticket: vector(&mut body)?.to_vec(),
                early_data: None,
            };
            let mut extensions = Reader::new(vector(&mut body)?);
            while !extensions.is_empty() {
                let ty = extensions.u16()?;
                let mut extension = Reader::new(vector(&mut extensions)?);
                if ty == EARLY_DATA {
                    new.early_data = Some(extension.u32()?);
                }
            }
            Ok((new, r.as_slice()))
        };
        read().ok()
    }

    pub(in crate::crypto) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.ticket.len() + 64);
        body.extend(self.lifetime.to_be_bytes());
        body.extend(self.age_add.to_be_bytes());
        body.push(self.nonce.len() as u8);
        body.extend(&self.nonce);
        body.extend((self.ticket.len() as u16).to_be_bytes());
        body.extend(&self.ticket);
        let extension = self.early_data.map(|size| {
            let [a, b] = EARLY_DATA.to_be_bytes();
            [&[a, b, 0, 4][..], &size.to_be_bytes()].concat()
        });
        let extension = extension.unwrap_or_default();
        body.extend((extension.len() as u16).to_be_bytes());
        body.extend(extension);
        let [_, a, b, c] = (body.len() as u32).to_be_bytes();
        [&[NEW_SESSION_TICKET, a, b, c][..], &body].concat()
    }
}

const NEW_SESSION_TICKET: u8 = 4;
const EARLY_DATA: u16 = 42;
