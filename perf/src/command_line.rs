//! The command line of `ringperf`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::client::{self, ClientArgs};
use crate::compare::{self, CompareArgs};
use crate::floor::{self, FloorArgs, FloorEndpointArgs};
use crate::output;
#[cfg(feature = "af_xdp")]
use crate::plan::{self, PlanArgs};
use crate::server::{self, ServerArgs};

/// Performance harness of Ringway.
#[derive(Parser, Debug)]
#[command(version, about, long_about = None)]
pub(crate) struct Args {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

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
    let result = match Args::parse().command {
        Command::Server(args) => server::run(&args),
        Command::Client(args) => client::run(&args),
        #[cfg(feature = "af_xdp")]
        Command::Plan(args) => plan::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::FloorEndpoint(args) => floor::run_endpoint(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("{error:#}"));
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
            "ringperf client --target localhost:4433 --scenario upload --bytes 10MB --poll-idle 50us --cpus 0,1".split(' '),
        );
        let Command::Client(args) = args.command else {
            panic!()
        };
        assert_eq!(args.bytes.unwrap().as_u64(), 10_000_000);
        assert_eq!(args.endpoint.poll_idle, Some(Duration::from_micros(50)));
        assert_eq!(args.endpoint.cpus, Some(vec![0, 1]));
    }
}
