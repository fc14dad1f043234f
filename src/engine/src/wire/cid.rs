//! Connection IDs and stateless reset tokens (RFC 9000 sections 5.1 and 10.3).

use std::fmt;

use crate::base::coding::Writer;

/// The longest connection ID in QUIC versions 1 and 2 (RFC 9000 section 17.2), in bytes.
pub const CID_LEN_MAX: usize = 20;

/// A connection ID of 0 to 20 bytes, held inline.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConnectionId {
    len: u8,
    /// Bytes behind `len` are zero, so that equality and hashing can take the array whole.
    bytes: [u8; CID_LEN_MAX],
}

impl ConnectionId {
    /// A connection ID of these bytes; `None` if there are more than [`CID_LEN_MAX`].
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut cid = ConnectionId {
            len: u8::try_from(bytes.len()).ok()?,
            bytes: [0; CID_LEN_MAX],
        };
        cid.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(cid)
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Appends the bytes.
    #[inline]
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.prefix(&self.bytes, self.len());
    }

    /// Length in bytes.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// True for the zero-length connection ID.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cid:")?;
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A stateless reset token (RFC 9000 section 10.3.2). Compared without telling by its timing how much matched.
#[derive(Clone, Copy)]
pub struct ResetToken(pub [u8; 16]);

impl PartialEq for ResetToken {
    fn eq(&self, other: &ResetToken) -> bool {
        let differing = self.0.iter().zip(other.0).fold(0, |acc, (a, b)| acc | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl Eq for ResetToken {}

impl fmt::Debug for ResetToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetToken(..)")
    }
}
