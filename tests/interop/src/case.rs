//! The cases: who is the client of whom, what is put to the test, and how Ringway runs meanwhile.

use std::fmt;

use crate::covering::covering;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stack {
    Ringway,
    Quinn,
    S2n,
    Quiche,
    Tquic,
    Msquic,
    Aioquic,
}

impl Stack {
    pub const ALL: [Stack; 7] = [
        Stack::Ringway,
        Stack::Quinn,
        Stack::S2n,
        Stack::Quiche,
        Stack::Tquic,
        Stack::Msquic,
        Stack::Aioquic,
    ];
    /// Those that are built, or installed, within a minute.
    pub const LIGHT: [Stack; 3] = [Stack::Ringway, Stack::Quinn, Stack::Aioquic];

    /// Its program in `perf/peers`.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Stack::Ringway | Stack::Aioquic => None,
            Stack::Quinn => Some("quinn-peer"),
            Stack::S2n => Some("s2n-quic-peer"),
            Stack::Quiche => Some("quiche-peer"),
            Stack::Tquic => Some("tquic-peer"),
            Stack::Msquic => Some("msquic-peer"),
        }
    }
}

/// What is put to the test: a download and an upload, while this happens, unless something else is said.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Test {
    Transfer,
    Retry,
    KeyUpdate,
    Loss,
    /// The second half of a ClientHello that takes two datagrams.
    LostHello,
    Rebinding,
    /// The client starts with version 2.
    Version2,
    /// It starts with version 1 and would rather have version 2: the server goes over to it (RFC 9368 section 2.3).
    CompatibleVersion,
    /// It starts with version 2, of which the server knows nothing: it starts again with version 1 (section 2.1).
    VersionNegotiation,
    /// Instead of transfers: connections that resume the session of the one before.
    Resumption,
    /// The same, at a server each time that cannot open the ticket of the one before: a client that is to measure resumed handshakes says so, and
    /// fails.
    FullHandshakes,
    /// And requests in 0-RTT on them.
    ZeroRtt,
    /// These, at a server each time that has other ticket keys than the one before, as after a restart: they go out again in 1-RTT.
    ZeroRttRejected,
    /// These, while an attacker sends each first flight to the server again.
    ZeroRttReplayed,
    /// The server demands a certificate of the client.
    ClientCertificates,
    /// Keys are exchanged by X25519MLKEM768, whose ClientHello takes two datagrams.
    PostQuantum,
}

impl Test {
    /// Whether connections are made again and again, with the tickets of earlier ones.
    pub fn resumes(self) -> bool {
        matches!(self, Test::Resumption | Test::FullHandshakes) || self.is_early()
    }

    /// Whether there are two servers, each with ticket keys of its own.
    pub fn changes_keys(self) -> bool {
        matches!(self, Test::FullHandshakes | Test::ZeroRttRejected)
    }

    /// Bytes of each transfer: few, where it is the handshake that is put to the test.
    pub fn bytes(self) -> u64 {
        match self {
            Test::Transfer | Test::KeyUpdate | Test::Loss | Test::Rebinding => 10_000_000,
            _ => 1_000_000,
        }
    }

    /// Whether requests are made in 0-RTT.
    pub fn is_early(self) -> bool {
        matches!(
            self,
            Test::ZeroRtt | Test::ZeroRttRejected | Test::ZeroRttReplayed
        )
    }
}

const TESTS: [Test; 16] = [
    Test::Transfer,
    Test::Retry,
    Test::KeyUpdate,
    Test::Loss,
    Test::LostHello,
    Test::Rebinding,
    Test::Version2,
    Test::CompatibleVersion,
    Test::VersionNegotiation,
    Test::Resumption,
    Test::FullHandshakes,
    Test::ZeroRtt,
    Test::ZeroRttRejected,
    Test::ZeroRttReplayed,
    Test::ClientCertificates,
    Test::PostQuantum,
];

/// How Ringway runs: in the words of ringperf's options.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Execution {
    pub datapath: &'static str,
    pub mode: &'static str,
    /// `threads`: those of the library.
    pub event_loop: &'static str,
}

const DATAPATHS: [&str; 3] = ["auto", "socket", "af_xdp"];
const MODES: [&str; 2] = ["low-latency", "max-throughput"];
const EVENT_LOOPS: [&str; 3] = ["threads", "epoll", "io-uring"];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Case {
    pub client: Stack,
    pub server: Stack,
    pub test: Test,
    pub execution: Execution,
}

/// Its name, by which it is chosen.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Execution {
            datapath,
            mode,
            event_loop,
        } = self.execution;
        write!(
            f,
            "{}, {datapath}, {mode}, {event_loop}",
            what(self.client, self.server, self.test)
        )
    }
}

/// A case without how Ringway runs.
pub fn what(client: Stack, server: Stack, test: Test) -> String {
    format!("{client:?} client, {server:?} server, {test:?}").to_lowercase()
}

/// Why stacks cannot pass a test, if that is known beforehand.
fn impossible(client: Stack, server: Stack, test: Test) -> Option<&'static str> {
    match (test, server) {
        (Test::Version2 | Test::CompatibleVersion, _)
            if !matches!(client, Stack::Ringway | Stack::Aioquic) =>
        {
            Some("the client is not asked to speak version 2")
        }
        (Test::Version2 | Test::CompatibleVersion, _) if !speaks_version_2(server) => {
            Some("the server does not speak version 2")
        }
        (Test::CompatibleVersion, Stack::Msquic) => {
            Some("the server is not asked to go over to another version")
        }
        (Test::VersionNegotiation, _) if client != Stack::Ringway => {
            Some("only our client is asked to start with what the server does not speak")
        }
        (Test::LostHello, _) if client != Stack::Ringway => {
            Some("the client's ClientHello is of one datagram")
        }
        // Of s2n-tls's secrets it leaves the early one aside (s2n-quic-tls, callback.rs).
        (test, _) if test.is_early() && [client, server].contains(&Stack::S2n) => {
            Some("s2n-quic knows no 0-RTT")
        }
        // s2n-tls forgets that the client can do with a ticket when it opens one (s2n_psk_parameters_wipe in s2n_resume.c), and gives none then on QUIC
        // (s2n_tls13_server_nst_send).
        (Test::Resumption, Stack::S2n) if client != Stack::Ringway => Some(
            "the server gives tickets on full handshakes alone, and the client waits for one on each connection",
        ),
        (Test::FullHandshakes, _) if server != Stack::Ringway => {
            Some("what clients measure is put to the test with our server")
        }
        (Test::ZeroRttReplayed, _) if server != Stack::Ringway => {
            Some("what other servers do about replays is not put to the test")
        }
        (Test::ClientCertificates, Stack::Aioquic) => {
            Some("the server asks for no certificate but in tests of its own")
        }
        (Test::PostQuantum, _) => post_quantum(client).or(post_quantum(server)),
        // In their code: they read the type of a packet before its version, and as in version 1.
        (Test::VersionNegotiation, Stack::S2n | Stack::Tquic) => {
            Some("the server takes an Initial of version 2 for a 0-RTT packet, and does not answer")
        }
        (Test::VersionNegotiation, _) if speaks_version_2(server) => Some("the server speaks version 2"),
        // Seen on the wire: they validate the new address and acknowledge, and send none of the data that is left.
        (Test::Rebinding, Stack::Quiche | Stack::Tquic) => {
            Some("the server sends no more data when its client's address changes")
        }
        _ => None,
    }
}

fn speaks_version_2(stack: Stack) -> bool {
    matches!(stack, Stack::Ringway | Stack::Msquic | Stack::Aioquic)
}

/// Why a stack cannot exchange keys by X25519MLKEM768.
fn post_quantum(stack: Stack) -> Option<&'static str> {
    match stack {
        Stack::Ringway | Stack::Quinn | Stack::S2n | Stack::Quiche => None,
        Stack::Tquic => Some("tquic has no setting for the groups of the key exchange"),
        Stack::Msquic => Some("the OpenSSL that MsQuic is built with does not know X25519MLKEM768"),
        Stack::Aioquic => Some("aioquic does not know X25519MLKEM768"),
    }
}

/// The cases of some stacks.
#[derive(Default)]
pub struct Cases {
    pub possible: Vec<Case>,
    /// What no execution of ours can make possible, and why.
    pub impossible: Vec<(String, &'static str)>,
    /// The values of each of `possible`.
    rows: Vec<[usize; 5]>,
}

impl Cases {
    /// All there are: Ringway with each stack, in both roles.
    pub fn product(stacks: &[Stack]) -> Cases {
        let mut cases = Cases::default();
        let roles = stacks
            .iter()
            .flat_map(|&stack| [(stack, Stack::Ringway), (Stack::Ringway, stack)])
            .enumerate()
            // Ringway with itself is one pair.
            .filter(|&(index, roles)| roles != (Stack::Ringway, Stack::Ringway) || index % 2 == 0);
        for (pair, (client, server)) in roles {
            for (which, &test) in TESTS.iter().enumerate() {
                match impossible(client, server, test) {
                    Some(reason) => cases.impossible.push((what(client, server, test), reason)),
                    None => cases.add((client, server, test), [pair, which]),
                }
            }
        }
        cases
    }

    fn add(&mut self, (client, server, test): (Stack, Stack, Test), [pair, which]: [usize; 2]) {
        for (d, datapath) in DATAPATHS.into_iter().enumerate() {
            for (m, mode) in MODES.into_iter().enumerate() {
                for (e, event_loop) in EVENT_LOOPS.into_iter().enumerate() {
                    let execution = Execution {
                        datapath,
                        mode,
                        event_loop,
                    };
                    self.possible.push(Case {
                        client,
                        server,
                        test,
                        execution,
                    });
                    self.rows.push([pair, which, d, m, e]);
                }
            }
        }
    }

    /// Few of them, in which every two values meet that can: each test with each stack in each role, and both with each datapath, mode and
    /// event loop, and these with each other.
    pub fn covering(&self) -> Vec<Case> {
        covering(&self.rows)
            .into_iter()
            .map(|index| self.possible[index])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The values of a case, each with the factor that it is of.
    fn values(case: &Case) -> [String; 5] {
        let Execution {
            datapath,
            mode,
            event_loop,
        } = case.execution;
        [
            format!("{:?} to {:?}", case.client, case.server),
            format!("{:?}", case.test),
            format!("datapath {datapath}"),
            format!("mode {mode}"),
            format!("loop {event_loop}"),
        ]
    }

    fn meetings(cases: &[Case]) -> HashSet<(String, String)> {
        cases
            .iter()
            .map(values)
            .flat_map(|values| {
                (0..values.len())
                    .flat_map(|b| (0..b).map(move |a| (a, b)))
                    .map(|(a, b)| (values[a].clone(), values[b].clone()))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn every_two_values_that_can_meet_do_in_the_covering_set() {
        for (stacks, most) in [(&Stack::LIGHT[..], 65), (&Stack::ALL[..], 148)] {
            let cases = Cases::product(stacks);
            let chosen = cases.covering();
            assert_eq!(meetings(&chosen), meetings(&cases.possible));
            assert!(
                chosen.len() <= most,
                "{} of {}",
                chosen.len(),
                cases.possible.len()
            );
        }
    }

    #[test]
    fn every_test_that_any_stack_can_take_is_taken_with_a_light_one() {
        let tests = |stacks| -> HashSet<(Test, bool)> {
            let cases = Cases::product(stacks);
            let against = cases.possible.iter().filter(|case| case.client != case.server);
            against
                .map(|case| (case.test, case.server == Stack::Ringway))
                .collect()
        };
        assert_eq!(tests(&Stack::LIGHT), tests(&Stack::ALL));
    }

    #[test]
    fn no_two_cases_have_one_name() {
        let cases = Cases::product(&Stack::ALL).possible;
        let names: HashSet<String> = cases.iter().map(Case::to_string).collect();
        assert_eq!(names.len(), cases.len());
    }
}
