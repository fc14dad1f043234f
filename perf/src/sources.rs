//! `ringperf sources`: shows and changes the rules of a running server or client.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use ringway::SourceAction;
use ringway::ipnet::IpNet;
use serde::Serialize;

use crate::control::{Call, Reply, Request};
use crate::output;
use crate::source_rules::{SourceRuleReport, prefix, rules};

/// Options of `sources`.
#[derive(Args, Clone, Debug)]
pub(crate) struct SourcesArgs {
    /// The control socket of the server or client (its option --control)
    #[arg(long, value_name = "PATH")]
    pub control: PathBuf,
    /// Take datagrams from there all the same
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub accept: Vec<IpNet>,
    /// Leave datagrams from there to the kernel
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub pass: Vec<IpNet>,
    /// Drop datagrams from there
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub drop: Vec<IpNet>,
    /// Take the rule for this prefix back
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub remove: Vec<IpNet>,
    /// Print the rules as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// What `sources` prints.
#[derive(Serialize)]
#[serde(transparent)]
struct SourcesReport(Vec<SourceRuleReport>);

impl fmt::Display for SourcesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no rules: datagrams are taken from everywhere");
        }
        self.0.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

pub(crate) fn run(args: &SourcesArgs) -> Result<()> {
    let set = rules([
        (&args.accept, SourceAction::Accept),
        (&args.pass, SourceAction::Pass),
        (&args.drop, SourceAction::Drop),
    ]);
    let request = Request::Sources {
        set,
        remove: args.remove.clone(),
    };
    match Call::send(&args.control, &request)?.reply()? {
        Reply::Sources(rules) => output::print_report(args.json, &SourcesReport(rules)),
        reply => bail!("another answer than to this request: {reply:?}"),
    }
}
