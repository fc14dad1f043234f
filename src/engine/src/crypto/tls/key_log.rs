//! Secrets of sessions: for packet keys where rustls does not hand them out, for exporters, and for whoever decrypts what was recorded.

use std::fmt;
use std::sync::Arc;

use rustls::KeyLog;

use super::capture::{self, SecretKind};

/// Takes the secrets that we need, and passes on what the application's key log wants.
#[derive(Debug)]
pub(super) struct SecretTap {
    pub(super) application: Arc<dyn KeyLog>,
    /// Traffic secrets are needed, not the exporter's alone.
    pub(super) traffic: bool,
}

impl SecretTap {
    fn wanted(&self, label: &str) -> Option<SecretKind> {
        SecretKind::of_label(label).filter(|kind| self.traffic || *kind == SecretKind::Exporter)
    }
}

impl KeyLog for SecretTap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Some(kind) = self.wanted(label) {
            capture::on_secret(kind, secret);
        }
        if self.application.will_log(label) {
            self.application.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.wanted(label).is_some() || self.application.will_log(label)
    }
}

/// A key log that calls a function with the label, the client random and the secret, as a line of `SSLKEYLOGFILE` has them. It is called on
/// worker threads, within the handshake.
pub fn key_log_callback(log: impl Fn(&str, &[u8], &[u8]) + Send + Sync + 'static) -> Arc<dyn KeyLog> {
    Arc::new(Callback(log))
}

struct Callback<F>(F);

impl<F> fmt::Debug for Callback<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl<F: Fn(&str, &[u8], &[u8]) + Send + Sync> KeyLog for Callback<F> {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        (self.0)(label, client_random, secret);
    }
}
