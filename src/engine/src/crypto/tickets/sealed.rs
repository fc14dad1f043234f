//! A ticket, and what is in it.

use crate::base::coding::{Reader, UnexpectedEnd};
use crate::wire::early_limits::EarlyLimits;

/// What a server writes into a ticket, for itself or another server with the same keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Contents {
    /// The process that has given it out.
    pub(super) issuer: [u8; 8],
    /// Version of QUIC that the connection has negotiated: the ticket serves no other (RFC 9369 section 5).
    pub(super) version: u32,
    /// Seconds of the Unix clock when it was given out.
    pub(super) issued: u64,
    /// Seconds from then on in which it serves.
    pub(super) lifetime: u32,
    /// 0-RTT may come with it.
    pub(super) early_data: bool,
    /// What the client was allowed, and keeps to in 0-RTT (RFC 9000 section 7.4.1).
    pub(super) limits: EarlyLimits,
    /// The application's.
    pub(super) data: Vec<u8>,
    /// What rustls keeps of the session.
    pub(super) session: Vec<u8>,
}

impl Contents {
    /// Of what is written, all but data and session.
    pub(super) const FIXED_LEN: usize = 2 + 4 + 8 + 4 + 8 * EarlyLimits::COUNT + 8 + 2;

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.data.len() + self.session.len());
        out.extend([FORMAT, u8::from(self.early_data)]);
        out.extend(self.version.to_be_bytes());
        out.extend(self.issued.to_be_bytes());
        out.extend(self.lifetime.to_be_bytes());
        for value in self.limits.values() {
            out.extend(value.to_be_bytes());
        }
        out.extend(self.issuer);
        out.extend((self.data.len() as u16).to_be_bytes());
        out.extend(&self.data);
        out.extend(&self.session);
        out
    }

    /// `None`: of another format, as a later version of this library may write one.
    pub(super) fn decode(text: &[u8]) -> Option<Contents> {
        let mut r = Reader::new(text);
        let mut read = || -> Result<_, UnexpectedEnd> {
            if r.u8()? != FORMAT {
                return Err(UnexpectedEnd);
            }
            let early_data = r.u8()? != 0;
            let (version, issued, lifetime) = (r.u32()?, u64::from_be_bytes(r.array()?), r.u32()?);
            let mut limits = EarlyLimits::default().values();
            for limit in &mut limits {
                *limit = u64::from_be_bytes(r.array()?);
            }
            let issuer = r.array()?;
            let len = usize::from(r.u16()?);
            Ok(Contents {
                issuer,
                version,
                issued,
                lifetime,
                early_data,
                limits: EarlyLimits::from_values(limits),
                data: r.bytes(len)?.to_vec(),
                session: r.as_slice().to_vec(),
            })
        };
        read().ok()
    }
}

/// Changes with what is written here, and with what rustls is known to write.
const FORMAT: u8 = 1;
pub(super) const TAG_LEN: usize = 16;
