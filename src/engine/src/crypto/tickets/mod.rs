//! Session tickets (RFC 8446 section 4.6.1): what lets a client resume a session, and send data before the handshake is complete.
//!
//! A server keeps nothing: what it needs to know again is in the ticket, sealed with keys that a fleet may share ([`TicketKeys`]). rustls would
//! keep sessions itself, or seal tickets that neither hold data of the application nor allow 0-RTT. So it is told to keep sessions, in a store that
//! catches them (`store`); they leave in tickets of ours, and are put back when a ticket comes.
//!
//! | part | what it is |
//! |---|---|
//! | `keys` | what seals tickets |
//! | `sealed` | a ticket of ours, and what is in it |
//! | `session_value` | what rustls keeps of a session, and the message that brings a ticket |
//! | `store` | where rustls keeps sessions, or believes to |
//! | `policy` | which tickets a server gives out and takes |
//! | `replay` | each ticket brings data before the handshake once |
//! | `client` | tickets that a client has received |
//! | `exported` | the same as bytes, for another process |
//! | `fuzz` | what is decoded of tickets, for fuzzing |

mod client;
mod exported;
#[cfg(feature = "null-crypto")]
#[doc(hidden)]
pub mod fuzz;
mod keys;
mod policy;
mod replay;
mod sealed;
mod session_value;
mod store;
#[cfg(test)]
mod tests;

pub use self::client::{ClientTicket, ClientTickets};
pub(super) use self::client::{ReceivedSession, TicketSlot, with_slot};
pub use self::exported::TicketBytes;
pub(super) use self::exported::{IdentityDigest, TicketOrigin, identity_digest};
pub use self::keys::{TicketKey, TicketKeys};
pub use self::policy::{APPLICATION_DATA_MAX, IssueError, ResumptionLevel, ServerResumption};
pub(super) use self::policy::{CertificatePolicy, Policy, Prepared};
pub(crate) use self::policy::{Offer, TicketIssuer};
pub use self::replay::{ReplayProtection, StrikeRegister, TicketUse};
pub(super) use self::session_value::{NewSessionTicket, refuse_early_data};
pub(super) use self::store::{SessionSlot, SessionStore, with_session};
