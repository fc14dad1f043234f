//! What the protocol engine costs, without sockets and clocks: two connections in memory exchange datagrams.
//!
//! `engine_costs count SCENARIO PART` runs a scenario once. Under `valgrind --tool=callgrind --toggle-collect=engine_costs::meter::counted`
//! the instructions of that part are counted, which are the same in every run; it prints over how many units. `engine_costs list` says
//! what there is to count. `scripts/engine-cost.sh` builds it, counts it all, and compares it with what is in `perf/engine-costs.txt`.
//!
//! `cargo bench -p ringway-engine --features null-crypto -- handshakes N` times N whole handshakes; with `aes-gcm` instead, it times each form of
//! AES-GCM that the processor has, beside aws-lc.

mod aes_gcm;
mod endpoint;
mod handshakes;
mod meter;
mod output;
mod packets;
mod requests;
mod streams;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use crate::meter::{Meter, Part};
use crate::output::{print_error, print_line};

/// Costs of the protocol engine, in memory.
#[derive(Parser)]
#[command(version, about, long_about = None)]
enum Command {
    /// List what can be counted: scenario, part, and the unit that it is counted for.
    List,
    /// Run a scenario, for callgrind to count one part of it; print the number of units.
    Count { scenario: Scenario, part: Part },
    /// Time handshakes.
    Handshakes {
        #[arg(default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// Time AES-GCM of packets, one form or all, beside aws-lc with the same instructions.
    AesGcm { form: Option<String> },
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Whole handshakes. TLS and packet protection are real here, in all others there is none.
    Handshake,
    /// Full packets of one stream, acknowledged by forties.
    #[value(name = "packets-40")]
    Packets40,
    /// Full packets of one stream, acknowledged by twos.
    #[value(name = "packets-2")]
    Packets2,
    /// Requests of 512 bytes and responses of 4000, each pair on a new stream.
    Requests,
    /// Streams that are all open at once, with little data each.
    Streams,
}

impl Scenario {
    fn parts(self) -> &'static [Part] {
        match self {
            Scenario::Packets40 | Scenario::Packets2 => {
                &[Part::Send, Part::Receive, Part::SendAck, Part::ReceiveAck]
            }
            Scenario::Handshake | Scenario::Requests | Scenario::Streams => &[Part::Client, Part::Server],
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Scenario::Handshake => "handshake",
            Scenario::Packets40 | Scenario::Packets2 => "packet",
            Scenario::Requests => "request",
            Scenario::Streams => "stream",
        }
    }

    /// Gives the number of units that were counted.
    fn run(self, meter: &mut Meter) -> u64 {
        match self {
            Scenario::Handshake => handshakes::run(meter),
            Scenario::Packets40 => packets::run(meter, 40),
            Scenario::Packets2 => packets::run(meter, 2),
            Scenario::Requests => requests::run(meter),
            Scenario::Streams => streams::run(meter),
        }
    }
}

fn main() -> ExitCode {
    // `cargo bench` adds an option of its own.
    match Command::parse_from(std::env::args().filter(|arg| arg != "--bench")) {
        Command::List => {
            for scenario in Scenario::value_variants() {
                for part in scenario.parts() {
                    print_line(&format!("{} {} {}", name(scenario), name(part), scenario.unit()));
                }
            }
        }
        Command::Count { scenario, part } => {
            if !scenario.parts().contains(&part) {
                print_error(&format!(
                    "{} has no part {}: see engine_costs list",
                    name(&scenario),
                    name(&part)
                ));
                return ExitCode::FAILURE;
            }
            let units = scenario.run(&mut Meter::new(Some(part)));
            print_line(&units.to_string());
        }
        Command::Handshakes { count } => handshakes::time(count),
        Command::AesGcm { form: None } => return aes_gcm::time_all(),
        Command::AesGcm { form: Some(form) } => return aes_gcm::time(&form),
    }
    ExitCode::SUCCESS
}

/// As the command line has it.
fn name(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map_or_else(String::new, |value| value.get_name().to_owned())
}
