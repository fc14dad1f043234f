//! What a handshake has agreed on, and secrets for the application's own use.

use std::sync::{Arc, LazyLock};

use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, NamedGroup};
use thiserror::Error;

use super::ech::EchOutcome;
use crate::crypto::secret::Secret;
use crate::crypto::suite::CipherSuite;

/// What the handshake of a connection has agreed on so far.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The cipher suite; `None`: not yet.
    pub cipher_suite: Option<CipherSuite>,
    /// The group of the key exchange; `None`: not yet.
    pub key_exchange_group: Option<NamedGroup>,
    /// The application protocol; `None`: not yet.
    pub alpn: Option<Box<[u8]>>,
    /// The server's name as the client has asked for it (SNI); `None`: it has not, or not yet.
    pub server_name: Option<Box<str>>,
    /// The peer's certificates, end entity first; empty: it has shown none, or not yet.
    pub peer_certificates: Arc<[CertificateDer<'static>]>,
    /// The session of an earlier connection goes on (RFC 8446 section 2.2); false: not, or not yet known.
    pub resumed: bool,
    /// What became of Encrypted Client Hello; `None`: not yet known, or not on this side.
    pub ech: Option<EchOutcome>,
    /// Of the handshake's end; empty before.
    pub(super) exporter: ExporterSecret,
}

impl TlsInfo {
    /// Fills `out` with keying material for the application (RFC 8446 section 7.5, RFC 5705), the same on both sides for the same label and
    /// context. No context is the same as an empty one.
    ///
    /// # Errors
    /// The handshake is not complete, or the label or the length is not possible.
    pub fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), ExportError> {
        let suite = self.cipher_suite.ok_or(ExportError::HandshakeNotComplete)?;
        let exporter =
            Secret::new(suite, self.exporter.as_bytes()).ok_or(ExportError::HandshakeNotComplete)?;
        if label.len() > LABEL_MAX || out.is_empty() {
            return Err(ExportError::TooLong);
        }
        let of_label = exporter.expand_secret(label, &exporter.hash(b""));
        let of_label = Secret::new(suite, of_label.as_ref()).expect("it is as long as the hash");
        if of_label.expand_label(b"exporter", &exporter.hash(context), out) {
            Ok(())
        } else {
            Err(ExportError::TooLong)
        }
    }
}

/// A label may have 255 bytes with the prefix of all labels (RFC 8446 section 7.1).
const LABEL_MAX: usize = 249;

/// Why no keying material could be exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ExportError {
    /// There are no secrets yet.
    #[error("the handshake is not complete: wait for Connected")]
    HandshakeNotComplete,
    /// The label is longer than 249 bytes, or the output empty or longer than 255 hashes.
    #[error(
        "a label has at most 249 bytes, and keying material 1 to 255 times the length of the suite's hash"
    )]
    TooLong,
}

/// The exporter secret, as long as the hash of the suite.
#[derive(Clone)]
pub(super) struct ExporterSecret {
    bytes: [u8; EXPORTER_MAX],
    len: u8,
}

/// SHA-384.
const EXPORTER_MAX: usize = 48;

impl Default for ExporterSecret {
    fn default() -> Self {
        ExporterSecret {
            bytes: [0; EXPORTER_MAX],
            len: 0,
        }
    }
}

impl ExporterSecret {
    pub(super) fn new(secret: &OkmBlock) -> Self {
        let secret = secret.as_ref();
        let mut exporter = ExporterSecret::default();
        if let Some(bytes) = exporter.bytes.get_mut(..secret.len()) {
            bytes.copy_from_slice(secret);
            exporter.len = secret.len() as u8;
        }
        exporter
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for ExporterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Drop for ExporterSecret {
    fn drop(&mut self) {
        self.bytes.fill(0);
        std::hint::black_box(&self.bytes);
    }
}

/// Of peers that have shown none, which on a server are most: it takes no memory of their connections.
static NO_CERTIFICATES: LazyLock<Arc<[CertificateDer<'static>]>> = LazyLock::new(Arc::default);

/// What rustls says of a session.
pub(super) fn of_session(
    common: &rustls::CommonState,
    server_name: Option<&str>,
    exporter: Option<&OkmBlock>,
    ech: Option<EchOutcome>,
) -> TlsInfo {
    TlsInfo {
        cipher_suite: common
            .negotiated_cipher_suite()
            .and_then(|suite| CipherSuite::of_tls(suite.suite())),
        key_exchange_group: common.negotiated_key_exchange_group().map(|group| group.name()),
        alpn: common.alpn_protocol().map(Box::from),
        server_name: server_name.map(Box::from),
        peer_certificates: match common.peer_certificates() {
            Some(certificates) => certificates.into(),
            None => Arc::clone(&NO_CERTIFICATES),
        },
        resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        ech,
        exporter: exporter.map(ExporterSecret::new).unwrap_or_default(),
    }
}
