//! TLS messages after the handshake (RFC 8446 section 4.6), as a client may receive them over QUIC.

use crate::wire::error::{TransportError, TransportErrorCode};

/// Checks the types of messages as they pass; keeps none of their content.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PostHandshake {
    /// Type and length of the message that is being read, as far as they are there.
    header: [u8; HEADER_LEN],
    header_len: u8,
    /// Bytes of its content that are still to come.
    content: u32,
}

impl PostHandshake {
    /// Reads on, in order.
    ///
    /// # Errors
    /// A message that must not come: KeyUpdate (RFC 9001 section 6), CertificateRequest (section 4.4), or any other than NewSessionTicket.
    pub(crate) fn read(&mut self, mut data: &[u8]) -> Result<(), TransportError> {
        while !data.is_empty() {
            let content = data.len().min(self.content as usize);
            self.content -= content as u32;
            data = &data[content..];
            while self.content == 0
                && let Some((&byte, rest)) = data.split_first()
            {
                self.header[usize::from(self.header_len)] = byte;
                self.header_len += 1;
                data = rest;
                if self.header_len == 1 {
                    check(byte)?;
                }
                if usize::from(self.header_len) == HEADER_LEN {
                    let [_, length @ ..] = self.header;
                    self.content = u32::from_be_bytes([0, length[0], length[1], length[2]]);
                    self.header_len = 0;
                }
            }
        }
        Ok(())
    }
}

fn check(message: u8) -> Result<(), TransportError> {
    match message {
        NEW_SESSION_TICKET => Ok(()),
        CERTIFICATE_REQUEST => Err(TransportError::new(
            TransportErrorCode::PROTOCOL_VIOLATION,
            "CertificateRequest after the handshake (RFC 9001 section 4.4)",
        )),
        _ => Err(TransportError::new(
            TransportErrorCode::crypto(ALERT_UNEXPECTED_MESSAGE),
            "TLS message that must not come after the handshake (RFC 9001 section 6)",
        )),
    }
}

const HEADER_LEN: usize = 4;
/// RFC 8446 section 4.
const NEW_SESSION_TICKET: u8 = 4;
const CERTIFICATE_REQUEST: u8 = 13;
/// RFC 8446 section 6.
const ALERT_UNEXPECTED_MESSAGE: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(ty: u8, len: usize) -> Vec<u8> {
        let mut message = vec![ty, 0, (len >> 8) as u8, len as u8];
        message.extend(vec![24; len]);
        message
    }

    #[test]
    fn tickets_pass_in_pieces_of_any_size_and_what_follows_them_is_seen() {
        for piece in 1..40 {
            let tickets = [message(4, 300), message(4, 0), message(4, 7)].concat();
            let mut late = PostHandshake::default();
            for piece in tickets.chunks(piece) {
                late.read(piece).unwrap();
            }
            for (ty, code) in [
                (24, TransportErrorCode::crypto(10)),
                (13, TransportErrorCode::PROTOCOL_VIOLATION),
                (0, TransportErrorCode::crypto(10)),
                (11, TransportErrorCode::crypto(10)),
            ] {
                let mut late = late;
                let errors = message(ty, 1)
                    .chunks(piece)
                    .find_map(|piece| late.read(piece).err());
                assert_eq!(errors.unwrap().code, code);
            }
        }
    }
}
