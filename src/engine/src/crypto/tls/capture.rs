//! What is taken out of rustls while it runs: traffic secrets, and certificates whose verdict comes later.
//!
//! rustls tells of both through objects of a configuration, which all its sessions share. Which session is meant, the thread knows: while a
//! session is called, what comes out belongs to it.

use std::cell::Cell;

use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::CertificateDer;

/// What came out of one session.
#[derive(Default)]
pub(super) struct Captured {
    secrets: [Option<OkmBlock>; SecretKind::COUNT],
    certificate: Option<PresentedCertificate>,
    /// The peer has signed with the certificate's key.
    proven: bool,
}

/// A secret of the key schedule (RFC 8446 section 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SecretKind {
    Early,
    ClientHandshake,
    ServerHandshake,
    ClientTraffic,
    ServerTraffic,
    Exporter,
}

impl SecretKind {
    const COUNT: usize = 6;

    /// The one with this label in key logs.
    pub(super) fn of_label(label: &str) -> Option<SecretKind> {
        Some(match label {
            "CLIENT_EARLY_TRAFFIC_SECRET" => SecretKind::Early,
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET" => SecretKind::ClientHandshake,
            "SERVER_HANDSHAKE_TRAFFIC_SECRET" => SecretKind::ServerHandshake,
            "CLIENT_TRAFFIC_SECRET_0" => SecretKind::ClientTraffic,
            "SERVER_TRAFFIC_SECRET_0" => SecretKind::ServerTraffic,
            "EXPORTER_SECRET" => SecretKind::Exporter,
            _ => return None,
        })
    }
}

/// A certificate that the peer has presented, and of which the application has not said yet whether it is to be trusted.
#[derive(Clone, Debug)]
pub struct PresentedCertificate {
    /// The chain, end entity first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What the verification that was put off has found.
    pub deferred_error: Option<rustls::Error>,
}

impl Captured {
    pub(super) fn secret(&self, kind: SecretKind) -> Option<&OkmBlock> {
        self.secrets[kind as usize].as_ref()
    }

    /// The certificate, once the peer has shown that it has the key. Returned once.
    pub(super) fn take_certificate(&mut self) -> Option<PresentedCertificate> {
        self.certificate.take_if(|_| self.proven)
    }
}

thread_local! {
    /// Of the session that is called now.
    static CURRENT: Cell<Option<Box<Captured>>> = const { Cell::new(None) };
}

/// Calls rustls for a session: what comes out of it goes to `captured`.
pub(super) fn during<R>(captured: &mut Option<Box<Captured>>, call: impl FnOnce() -> R) -> R {
    /// Takes it back, also if a panic passes.
    struct TakeBack<'a>(&'a mut Option<Box<Captured>>, Option<Box<Captured>>);
    impl Drop for TakeBack<'_> {
        fn drop(&mut self) {
            *self.0 = CURRENT.replace(self.1.take());
        }
    }
    let outer = CURRENT.replace(Some(captured.take().unwrap_or_default()));
    let _take_back = TakeBack(captured, outer);
    call()
}

/// Calls rustls for a session that belongs to no connection: nobody is asked about it.
pub(super) fn outside<R>(call: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also if a panic passes.
    struct PutBack(Option<Box<Captured>>);
    impl Drop for PutBack {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let _put_back = PutBack(CURRENT.take());
    call()
}

/// Calls `look` with what belongs to the session that is called now; `None`: none is.
fn current<R>(look: impl FnOnce(&mut Captured) -> R) -> Option<R> {
    let mut captured = CURRENT.take()?;
    let result = look(&mut captured);
    CURRENT.set(Some(captured));
    Some(result)
}

/// Keeps a secret of the current session.
pub(super) fn on_secret(kind: SecretKind, secret: &[u8]) {
    if secret.len() <= OkmBlock::MAX_LEN {
        current(|captured| captured.secrets[kind as usize] = Some(OkmBlock::new(secret)));
    }
}

/// Keeps the certificate that the peer of the current session has presented. False: no session is called, so nobody would be asked.
pub(super) fn on_certificate(certificate: impl FnOnce() -> PresentedCertificate) -> bool {
    current(|captured| {
        captured.certificate = Some(certificate());
        captured.proven = false;
    })
    .is_some()
}

/// The peer of the current session has proven that it has the key of its certificate.
pub(super) fn on_proof() {
    current(|captured| captured.proven = true);
}
