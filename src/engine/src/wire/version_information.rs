//! The transport parameter version_information: which version an endpoint has chosen, and which others it has (RFC 9368 section 3).

use super::Side;
use crate::base::coding::{Reader, Writer};

/// Identifier of the transport parameter.
pub(super) const ID: u64 = 0x11;

/// What an endpoint says about versions. They are numbers, because a peer may name some that we do not know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionInformation {
    /// The version that the sender has chosen for the connection.
    pub chosen: u32,
    /// Of a client: the versions in which its first flight can be read, most preferred first, `chosen` among them. Of a server: the versions
    /// that its whole deployment speaks, in any order.
    pub available: Vec<u32>,
}

impl VersionInformation {
    /// The value of the parameter.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut value = vec![0; 4 * (1 + self.available.len())];
        let mut writer = Writer::new(&mut value);
        writer.u32(self.chosen);
        self.available.iter().for_each(|&version| writer.u32(version));
        value
    }

    /// Reads the value of the parameter. An error, for people, where RFC 9368 section 4 speaks of a parsing failure.
    pub(super) fn decode(value: &[u8], sender: Side) -> Result<Self, &'static str> {
        let (numbers, rest) = value.as_chunks();
        let mut versions = numbers.iter().map(|number| u32::from_be_bytes(*number));
        let Some(chosen) = versions.next().filter(|_| rest.is_empty()) else {
            return Err("version_information not of one or more versions");
        };
        let available: Vec<u32> = versions.collect();
        if chosen == 0 || available.contains(&0) {
            return Err("version 0 in version_information");
        }
        if sender.is_client() && !available.contains(&chosen) {
            return Err("Chosen Version of a client that is not among its Available Versions");
        }
        Ok(VersionInformation { chosen, available })
    }

    /// Finds what a client says among its encoded transport parameters, before anything else of them is looked at; `None` if it says nothing
    /// that can be read. All of the parameters are checked when TLS has taken them.
    pub(crate) fn find(parameters: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(parameters);
        while !reader.is_empty() {
            let id = reader.varint().ok()?;
            let value = reader.varint_bytes().ok()?;
            if id == ID {
                return VersionInformation::decode(value, Side::Client).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_list_of_versions_is_refused() {
        for value in [
            &b""[..],
            &[0, 0, 1],
            &[0, 0, 0, 1, 0],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
        ] {
            for sender in [Side::Client, Side::Server] {
                assert!(VersionInformation::decode(value, sender).is_err(), "{value:x?}");
            }
        }
    }

    #[test]
    fn only_a_server_may_leave_its_chosen_version_out_of_the_list() {
        for value in [&[0, 0, 0, 1][..], &[0, 0, 0, 1, 0, 0, 0, 2]] {
            assert!(VersionInformation::decode(value, Side::Client).is_err());
            assert_eq!(VersionInformation::decode(value, Side::Server).unwrap().chosen, 1);
        }
    }

    #[test]
    fn it_is_found_among_other_parameters() {
        let value = [0, 0, 0, 1, 0x6b, 0x33, 0x43, 0xcf, 0, 0, 0, 1];
        let parameters = [&[0x01, 2, 0x40, 0x64, 0x11, 12][..], &value, &[0x04, 1, 5]].concat();
        let found = VersionInformation::find(&parameters).unwrap();
        assert_eq!(found.available, [0x6b33_43cf, 1]);
        assert_eq!(found.encode(), value);
        for len in 0..parameters.len() - 3 {
            assert_eq!(VersionInformation::find(&parameters[..len]), None);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = VersionInformation::find(&bytes);
            if let Ok(information) = VersionInformation::decode(&bytes, Side::Server) {
                prop_assert_eq!(information.encode(), bytes);
            }
        }
    }
}
