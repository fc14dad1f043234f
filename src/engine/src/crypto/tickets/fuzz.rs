//! What is decoded of tickets that came from outside, for fuzzing: without keys and checksums, which a fuzzer would not get past.

use super::exported::{MAGIC, TicketOrigin, with_checksum};
use super::sealed::Contents;
use super::session_value::{self, SessionValue};

/// What a server has found in a ticket of its key.
pub fn sealed(text: &[u8]) {
    let Some(mut contents) = Contents::decode(text) else {
        return;
    };
    assert_eq!(Contents::decode(&contents.encode()).as_ref(), Some(&contents));
    let is_known = SessionValue::parse(&contents.session).is_some();
    let len = contents.session.len();
    session_value::set_creation(&mut contents.session, 1);
    session_value::refuse_early_data(&mut contents.session);
    assert!(
        contents.session.len() == len && (!is_known || session_value::age_add(&contents.session).is_some())
    );
}

/// What a client takes for a ticket of another process.
pub fn exported(content: &[u8]) {
    let bytes = with_checksum(&[&MAGIC, content].concat());
    let Some((origin, parameters)) = TicketOrigin::decode(&bytes) else {
        return;
    };
    let exported = origin
        .export(parameters)
        .expect("what is taken in is not too long");
    let (again, same_parameters) = TicketOrigin::decode(&exported).expect("what was exported is taken in");
    assert_eq!(parameters, same_parameters);
    assert_eq!(again.encode(parameters), exported);
}
