//! Rules for where datagrams come from: on the command line, and `ringperf sources`, which changes those of a running server or client.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use ringway::ipnet::IpNet;
use ringway::{Registration, SourceAction, SourceRule};
use serde::{Deserialize, Serialize};

use crate::control::{Call, Reply, Request};
use crate::output;

/// Rules to begin with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Rules for where datagrams come from (AF_XDP; the longest prefix decides)")]
pub(crate) struct SourceArgs {
    /// Take datagrams from there all the same: an exception from the others
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub accept_source: Vec<IpNet>,
    /// Leave datagrams from there to the kernel, and to its firewall
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub pass_source: Vec<IpNet>,
    /// Drop datagrams from there
    #[arg(long, value_delimiter = ',', value_name = "PREFIX", value_parser = prefix)]
    pub drop_source: Vec<IpNet>,
}

impl SourceArgs {
    /// `None` if none is given.
    pub(crate) fn rules(&self) -> Option<Vec<SourceRule>> {
        let rules = rules([
            (&self.accept_source, SourceAction::Accept),
            (&self.pass_source, SourceAction::Pass),
            (&self.drop_source, SourceAction::Drop),
        ]);
        (!rules.is_empty()).then_some(rules)
    }
}

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

/// A rule, and what it was applied to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SourceRuleReport {
    pub prefix: IpNet,
    pub action: SourceAction,
    pub datagrams: u64,
}

impl SourceRuleReport {
    /// Those of a registration, now.
    pub(crate) fn all(registration: &Registration) -> Result<Vec<SourceRuleReport>> {
        let stats = registration.source_rules()?.into_iter();
        let reports = stats.map(|stats| SourceRuleReport {
            prefix: stats.rule.prefix,
            action: stats.rule.action,
            datagrams: stats.datagrams,
        });
        Ok(reports.collect())
    }
}

impl fmt::Display for SourceRuleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  source      {:>12} {} {}",
            self.datagrams,
            self.action.name(),
            self.prefix
        )
    }
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

fn rules(lists: [(&Vec<IpNet>, SourceAction); 3]) -> Vec<SourceRule> {
    let of_list = |(prefixes, action): (&Vec<IpNet>, SourceAction)| {
        let rule = move |prefix: &IpNet| SourceRule {
            prefix: *prefix,
            action,
        };
        prefixes.iter().map(rule).collect::<Vec<_>>()
    };
    lists.into_iter().flat_map(of_list).collect()
}

/// A prefix, or an address by itself.
fn prefix(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from).ok();
    let prefix = address.or_else(|| text.parse().ok());
    prefix.ok_or_else(|| "not an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32".to_owned())
}
