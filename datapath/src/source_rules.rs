//! Rules for where datagrams come from, which the XDP program applies: what nftables does with packets that the kernel sees.

use std::collections::HashSet;
use std::io;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is done with datagrams to our ports that would come past the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SourceAction {
    /// They come as if there were no rule: an exception from a shorter prefix.
    Accept,
    /// They go to the kernel, with its nftables and captures, and come by the socket if it delivers them.
    Pass,
    /// They are dropped by the XDP program, before the kernel has done anything for them.
    Drop,
}

impl SourceAction {
    /// As configuration files write it.
    pub fn name(self) -> &'static str {
        match self {
            SourceAction::Accept => "accept",
            SourceAction::Pass => "pass",
            SourceAction::Drop => "drop",
        }
    }
}

/// A rule for datagrams from a prefix of addresses. Of all whose prefixes an address is in, the one with the longest prefix holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRule {
    /// Of IPv4 or IPv6, in the notation of RFC 4632 and 4291: `192.0.2.0/24`. No bits may be set beyond its length.
    pub prefix: IpNet,
    /// What is done with them.
    pub action: SourceAction,
}

/// A rule, and what it was applied to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SourceRuleStats {
    /// The rule.
    pub rule: SourceRule,
    /// Datagrams that it was applied to since there is a rule for this prefix, whatever its action was.
    pub datagrams: u64,
}

/// The most rules of an address family.
pub const SOURCE_RULES_MAX: usize = 4096;

/// What is wrong with a list of rules, if anything is.
///
/// # Errors
///
/// The first thing that is wrong, in words that name the rule and what to write instead.
pub fn check(rules: &[SourceRule]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for rule in rules {
        let prefix = rule.prefix;
        if prefix != prefix.trunc() {
            return Err(format!(
                "{prefix} has bits beyond its length: write {} or {}",
                prefix.trunc(),
                IpNet::from(prefix.addr())
            ));
        }
        if let IpNet::V6(v6) = prefix
            && v6.prefix_len() >= 96
            && v6.addr().to_ipv4_mapped().is_some()
        {
            return Err(format!("{prefix} is IPv4 written as IPv6: write it as IPv4"));
        }
        if !seen.insert(prefix) {
            return Err(format!("there are two rules for {prefix}"));
        }
    }
    for is_v4 in [true, false] {
        let count = rules
            .iter()
            .filter(|rule| matches!(rule.prefix, IpNet::V4(_)) == is_v4)
            .count();
        if count > SOURCE_RULES_MAX {
            let family = if is_v4 { "IPv4" } else { "IPv6" };
            return Err(format!(
                "{count} rules for {family} are more than {SOURCE_RULES_MAX}"
            ));
        }
    }
    Ok(())
}

/// What applies rules while devices run. Calls take a lock and make system calls.
pub trait SourceFilter: Send + Sync {
    /// Makes these the rules, from now on. Those that are in force already stay so meanwhile.
    ///
    /// # Errors
    ///
    /// The kernel refuses one of them, or says that there is no room: those before it are in force.
    fn set_source_rules(&self, rules: &[SourceRule]) -> io::Result<()>;

    /// The rules in force, in the order of their prefixes.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    fn source_rules(&self) -> io::Result<Vec<SourceRuleStats>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(prefix: &str) -> SourceRule {
        SourceRule {
            prefix: prefix.parse().unwrap(),
            action: SourceAction::Drop,
        }
    }

    #[test]
    fn rules_that_cannot_be_meant_are_told() {
        assert_eq!(
            check(&[drop("10.0.0.0/8"), drop("10.0.0.0/16"), drop("::/0")]),
            Ok(())
        );
        for (rules, said) in [
            (
                vec![drop("10.0.0.1/8")],
                "10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8 or 10.0.0.1/32",
            ),
            (
                vec![drop("2001:db8::1/32")],
                "2001:db8::1/32 has bits beyond its length: write 2001:db8::/32 or 2001:db8::1/128",
            ),
            (
                vec![drop("::ffff:10.0.0.0/104")],
                "::ffff:10.0.0.0/104 is IPv4 written as IPv6: write it as IPv4",
            ),
            (
                vec![drop("::/0"), drop("10.0.0.0/8"), drop("::/0")],
                "there are two rules for ::/0",
            ),
        ] {
            assert_eq!(check(&rules), Err(said.to_owned()));
        }
        let rule = |index: u32| drop(&format!("{}/32", std::net::Ipv4Addr::from(index)));
        let many: Vec<SourceRule> = (1..=SOURCE_RULES_MAX as u32).map(rule).collect();
        assert_eq!(check(&many), Ok(()));
        let more = [many, vec![rule(0)]].concat();
        assert_eq!(
            check(&more),
            Err("4097 rules for IPv4 are more than 4096".to_owned())
        );
    }
}
