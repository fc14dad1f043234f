//! The command line of `ringperf`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::capture::{self, CaptureArgs};
use crate::client::{self, ClientArgs};
use crate::compare::{self, CompareArgs};
use crate::floor::{self, FloorArgs, FloorEndpointArgs};
use crate::output;
#[cfg(feature = "af_xdp")]
use crate::plan::{self, PlanArgs};
use crate::server::{self, ServerArgs};
use crate::signals::Interrupted;
use crate::sources::{self, SourcesArgs};

/// Performance harness of Ringway.
#[derive(Parser, Debug)]
#[command(version, about, long_about = None, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 if all went well; 1 if it did not, with the cause on standard error; 2 for a command line that makes no sense.
The first SIGINT or SIGTERM ends a server in good order (0), and a client with the figures so far (130 or 143). A second one ends either at once
(130 or 143).";

/// What ringperf can do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Serve clients until interrupted.
    Server(ServerArgs),
    /// Run one scenario against a server, and print figures.
    Client(ClientArgs),
    /// Say which processors would serve which queues of an interface, and what keeps this machine from doing better.
    #[cfg(feature = "af_xdp")]
    Plan(PlanArgs),
    /// Write what a running server or client receives and sends to a file that Wireshark opens.
    Capture(CaptureArgs),
    /// Show and change the rules for where a running server or client takes datagrams from (AF_XDP).
    Sources(SourcesArgs),
    /// Measure what this machine can move at most, without any protocol, and what the devices reach of it.
    Floor(FloorArgs),
    /// Compare with other stacks on this machine: tables, figures as JSON, and a page with plots.
    Compare(CompareArgs),
    /// One endpoint of a measurement of `floor`, which starts it.
    #[command(hide = true)]
    FloorEndpoint(FloorEndpointArgs),
}

/// Does what the arguments of this process say.
pub fn run() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(text) => return print_clap(&text),
    };
    let result = match args.command {
        Command::Server(args) => server::run(&args),
        Command::Client(args) => client::run(&args),
        #[cfg(feature = "af_xdp")]
        Command::Plan(args) => plan::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Sources(args) => sources::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::FloorEndpoint(args) => floor::run_endpoint(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("{error:#}"));
            match error.downcast_ref::<Interrupted>() {
                Some(interrupted) => {
                    u8::try_from(interrupted.exit_code).map_or(ExitCode::FAILURE, ExitCode::from)
                }
                None => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints a help text or what is wrong with the command line.
fn print_clap(text: &clap::Error) -> ExitCode {
    match text.print() {
        Ok(()) => u8::try_from(text.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            output::print_error(&format!("writing to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_and_times_take_units() {
        let args = Args::parse_from(
            "ringperf client --target localhost:4433 --scenario upload --bytes 10MB --poll-idle 50us --cpus 0-2,5".split(' '),
        );
        let Command::Client(args) = args.command else {
            panic!()
        };
        assert_eq!(args.bytes.unwrap().as_u64(), 10_000_000);
        assert_eq!(args.endpoint.poll_idle, Some(Duration::from_micros(50)));
        assert_eq!(args.endpoint.cpus.unwrap().0, [0, 1, 2, 5]);
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_the_name_of_the_option() {
        let server = [
            ("--io-size", &["0", "100GiB", "99999999EiB"][..]),
            ("--posted", &["0", "100GiB"]),
            ("--max-datagram-size", &["0", "1199", "65528", "99999999999"]),
            ("--key-update-after", &["0", "1TiB"]),
            ("--keep-alive", &["2h", "9999999999years"]),
            ("--busy-poll", &["2s"]),
            ("--receive-buffers", &["65536", "-1"]),
            ("--poll-idle", &["50"]),
            ("--cpus", &["", "3-1", "0-99999999", "x"]),
            ("--queues", &["-1", "4294967296"]),
            ("--duration", &["0s", "9999999999years"]),
        ];
        let client = [
            ("--bytes", &["0", "1EiB", "16EiB"][..]),
            ("--time", &["0s", "9999999999years"]),
            ("--timeout", &["0s", "9999999999years"]),
            ("--connections", &["0", "99999999999999999999"]),
            ("--streams", &["0", "10001"]),
            ("--request", &["7B", "1GiB"]),
            ("--response", &["1EiB"]),
        ];
        let refused = |command: &str, option: &str, value: &str| {
            let words = command.split(' ').map(str::to_owned);
            let line = words.chain([format!("{option}={value}")]);
            let error = Args::try_parse_from(line).map(drop).unwrap_err().to_string();
            assert!(error.contains(option), "{command} {option} {value}: {error}");
        };
        for (option, values) in server {
            values
                .iter()
                .for_each(|value| refused("ringperf server", option, value));
        }
        for (option, values) in client {
            values
                .iter()
                .for_each(|value| refused("ringperf client --target localhost:1", option, value));
        }
        for (option, value) in [("--rounds", "0"), ("--rounds", "4294967296"), ("--cpus", "x")] {
            refused("ringperf floor", option, value);
            refused("ringperf compare", option, value);
        }
        refused("ringperf floor", "--time", "0s");
    }
}
