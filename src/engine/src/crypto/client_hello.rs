//! The server name, the application protocols and the versions of a ClientHello, before TLS has a configuration to answer it with.

use super::tickets::Offer;
use crate::base::coding::{Reader, UnexpectedEnd};
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::version_information::VersionInformation;

/// The largest ClientHello that is waited for, in bytes.
pub const CLIENT_HELLO_MAX: usize = 16 * 1024;

/// What the client asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientHelloInfo {
    /// The server's name (SNI) in small letters, if the client gave one that is ASCII.
    pub server_name: Option<String>,
    /// Application protocols, the client's favourite first; the first 64 of them.
    pub alpns: Vec<Vec<u8>>,
    /// The versions in which the connection could go on (RFC 9368), if the client says so in a way that can be read.
    pub(crate) versions: Option<VersionInformation>,
}

/// Looks into the beginning of the client's CRYPTO stream. `Ok(None)`: the message is not complete yet.
///
/// # Errors
///
/// The message is not a ClientHello, or one that no TLS 1.3 client sends: the alert to close with.
pub fn peek(bytes: &[u8]) -> Result<Option<ClientHelloInfo>, TransportError> {
    let Some((&[ty, a, b, c], rest)) = bytes.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if ty != CLIENT_HELLO {
        return Err(TransportError::new(
            TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
            "not a ClientHello",
        ));
    }
    let len = u32::from_be_bytes([0, a, b, c]) as usize;
    if len > CLIENT_HELLO_MAX {
        return Err(TransportError::new(
            TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
            "ClientHello too long",
        ));
    }
    let Some(body) = rest.get(..len) else {
        return Ok(None);
    };
    let malformed =
        |_| TransportError::new(TransportErrorCode::crypto(DECODE_ERROR), "malformed ClientHello");
    parse(body).map(Some).map_err(malformed)
}

/// What a complete ClientHello offers for resumption, to a server with these application protocols, most preferred first.
pub(crate) fn offer<'a>(hello: &'a [u8], alpns: &'a [Vec<u8>]) -> Option<Offer<'a>> {
    let (_, rest) = hello.split_first_chunk::<4>()?;
    let ResumptionExtensions { tickets, early_data } = resumption_extensions(rest).ok()?;
    if tickets.is_empty() {
        return None;
    }
    let info = peek(hello).ok()??;
    Some(Offer {
        alpn: alpns
            .iter()
            .find(|alpn| info.alpns.contains(alpn))
            .map(Vec::as_slice),
        server_name: info.server_name,
        tickets,
        early_data,
    })
}

struct ResumptionExtensions<'a> {
    /// Each with its age, hidden.
    tickets: Vec<(&'a [u8], u32)>,
    early_data: bool,
}

/// RFC 8446 sections 4.2.10 and 4.2.11.
fn resumption_extensions(body: &[u8]) -> Result<ResumptionExtensions<'_>, UnexpectedEnd> {
    let mut found = ResumptionExtensions {
        tickets: Vec::new(),
        early_data: false,
    };
    let mut extensions = extensions(body)?;
    while !extensions.is_empty() {
        let ty = extensions.u16()?;
        let mut body = Reader::new(vector(&mut extensions)?);
        match ty {
            EARLY_DATA => found.early_data = true,
            PRE_SHARED_KEY => {
                let mut identities = Reader::new(vector(&mut body)?);
                while !identities.is_empty() && found.tickets.len() < TICKETS_MAX {
                    found.tickets.push((vector(&mut identities)?, identities.u32()?));
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The extensions of a ClientHello (RFC 8446 section 4.1.2).
fn extensions(body: &[u8]) -> Result<Reader<'_>, UnexpectedEnd> {
    let mut r = Reader::new(body);
    r.bytes(2 + 32)?;
    short_vector(&mut r)?;
    vector(&mut r)?;
    short_vector(&mut r)?;
    vector(&mut r).map(Reader::new)
}

fn parse(body: &[u8]) -> Result<ClientHelloInfo, UnexpectedEnd> {
    let mut info = ClientHelloInfo::default();
    let mut extensions = extensions(body)?;
    while !extensions.is_empty() {
        let ty = extensions.u16()?;
        let mut body = Reader::new(vector(&mut extensions)?);
        match ty {
            SERVER_NAME => {
                // RFC 6066 section 3: a list with at most one name of each type.
                let mut names = Reader::new(vector(&mut body)?);
                while !names.is_empty() {
                    let name_type = names.u8()?;
                    let name = vector(&mut names)?;
                    if name_type == 0 && name.is_ascii() && !name.is_empty() {
                        info.server_name = String::from_utf8(name.to_ascii_lowercase()).ok();
                    }
                }
            }
            ALPN => {
                let mut list = Reader::new(vector(&mut body)?);
                while !list.is_empty() {
                    let name = short_vector(&mut list)?;
                    if name.is_empty() {
                        // RFC 7301 section 3.1.
                        return Err(UnexpectedEnd);
                    }
                    if info.alpns.len() < ALPNS_MAX {
                        info.alpns.push(name.to_vec());
                    }
                }
            }
            TRANSPORT_PARAMETERS => info.versions = VersionInformation::find(body.as_slice()),
            _ => {}
        }
    }
    Ok(info)
}

/// Bytes preceded by their length in one byte.
fn short_vector<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], UnexpectedEnd> {
    let len = usize::from(r.u8()?);
    r.bytes(len)
}

/// Bytes preceded by their length in two bytes.
fn vector<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], UnexpectedEnd> {
    let len = usize::from(r.u16()?);
    r.bytes(len)
}

/// Application protocols that are looked at: each of one byte takes two in the message, and many more here.
const ALPNS_MAX: usize = 64;
/// Tickets that are looked at.
const TICKETS_MAX: usize = 4;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
/// RFC 9001 section 8.2.
const TRANSPORT_PARAMETERS: u16 = 0x39;
/// TLS alerts (RFC 8446 section 6).
const UNEXPECTED_MESSAGE: u8 = 10;
const DECODE_ERROR: u8 = 50;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::tests::client_hello;

    #[test]
    fn name_and_protocols_are_found() {
        let hello = client_hello();
        let info = peek(&hello).unwrap().unwrap();
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
        assert_eq!(info.alpns, [b"perf".to_vec()]);
        assert_eq!(info.versions, None);
    }

    #[test]
    fn of_very_many_protocols_the_first_are_kept() {
        let names = [[1, b'x']; 7000].concat();
        let len = |bytes: &[u8]| (bytes.len() as u16).to_be_bytes();
        let list = [&len(&names)[..], &names].concat();
        let extension = [&ALPN.to_be_bytes()[..], &len(&list), &list].concat();
        let body = [&[0; 34][..], &[0, 0, 0, 0], &len(&extension), &extension].concat();
        assert_eq!(parse(&body).unwrap().alpns.len(), ALPNS_MAX);
    }

    #[test]
    fn incomplete_client_hello_is_waited_for() {
        let hello = client_hello();
        for len in 0..hello.len() {
            assert_eq!(peek(&hello[..len]), Ok(None));
        }
    }

    #[test]
    fn endless_client_hello_is_not_waited_for() {
        let error = peek(&[1, 1, 0, 0]).unwrap_err();
        assert_eq!(error.code, TransportErrorCode::CRYPTO_BUFFER_EXCEEDED);
        assert_eq!(
            peek(&[2, 0, 0, 1]).unwrap_err().code,
            TransportErrorCode::crypto(10)
        );
        assert_eq!(
            peek(&[1, 0, 0, 1, 3]).unwrap_err().code,
            TransportErrorCode::crypto(50)
        );
    }

    proptest! {
        #[test]
        fn mutated_client_hello_never_panics(changes in prop::collection::vec((any::<u16>(), any::<u8>()), 1..5)) {
            let mut hello = client_hello();
            for (at, byte) in changes {
                let at = usize::from(at) % hello.len();
                hello[at] = byte;
            }
            let _ = peek(&hello);
        }
    }
}
