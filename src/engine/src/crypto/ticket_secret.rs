//! The secret of a ticket (RFC 8446 section 4.6.1), on its way out of rustls or into it.
//!
//! A client's rustls derives it as it reads the message that brings the ticket, within a call of ours: what belongs to that call lies in a
//! variable of the thread meanwhile.

use std::cell::RefCell;

use rustls::crypto::tls13::OkmBlock;

#[derive(Default)]
struct Secrets {
    /// What the next ticket has for its secret, whatever the handshake was.
    imposed: Option<Box<OkmBlock>>,
    /// Of the ticket that is being read.
    derived: Option<Box<OkmBlock>>,
}

thread_local! {
    static SECRETS: RefCell<Option<Secrets>> = const { RefCell::new(None) };
}

/// Runs `work`, in which rustls may read tickets. The first of them has the secret `imposed`, if there is one.
pub(super) fn catching<R>(imposed: Option<Box<OkmBlock>>, work: impl FnOnce() -> R) -> R {
    /// Puts back what was there, also if a panic passes.
    struct PutBack(Option<Secrets>);
    impl Drop for PutBack {
        fn drop(&mut self) {
            SECRETS.set(self.0.take());
        }
    }
    let secrets = Secrets {
        imposed,
        derived: None,
    };
    let _put_back = PutBack(SECRETS.replace(Some(secrets)));
    work()
}

/// The secret of the ticket that has just been read.
pub(super) fn take() -> Option<Box<OkmBlock>> {
    SECRETS.with_borrow_mut(|secrets| secrets.as_mut()?.derived.take())
}

/// rustls asks for the secret of a ticket.
pub(super) fn of_ticket(derive: impl FnOnce() -> OkmBlock) -> OkmBlock {
    let imposed = SECRETS.with_borrow_mut(|secrets| secrets.as_mut()?.imposed.take());
    // A copy: what is moved out of a box stays in its memory, which is wiped when the secret is dropped there.
    let secret = imposed.map_or_else(derive, |secret| OkmBlock::clone(&secret));
    SECRETS.with_borrow_mut(|secrets| {
        if let Some(secrets) = secrets {
            secrets.derived = Some(Box::new(secret.clone()));
        }
    });
    secret
}
