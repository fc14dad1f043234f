//! Rules for where datagrams come from: on the command line, and in reports.

use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use clap::Args;
use ringway::ipnet::IpNet;
use ringway::{Registration, SourceAction, SourceRule};
use serde::{Deserialize, Serialize};

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

/// Of prefixes and what is done with datagrams from them.
pub(crate) fn rules(lists: [(&Vec<IpNet>, SourceAction); 3]) -> Vec<SourceRule> {
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
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from).ok();
    let prefix = address.or_else(|| text.parse().ok());
    prefix.ok_or_else(|| "not an address or a prefix such as 192.0.2.0/24 or 2001:db8::/32".to_owned())
}
