//! Rules for where datagrams come from, changed while a registration runs.

use ringway_datapath::source_rules::{SourceRule, SourceRuleStats, check};

use super::error::SetupError;
use super::execution::SOURCE_RULES;
use super::registration::Registration;

impl Registration {
    /// Makes these the rules for where datagrams come from ([`AfXdpConfig::source_rules`](crate::AfXdpConfig::source_rules)), at once and in the
    /// place of all that there were. Rules that stay go on counting.
    ///
    /// They are the XDP program's: what comes by the kernel anyway (fragments, datagrams with IP options, other interfaces and queues, all of
    /// another datapath) is the business of the host's own firewall, as before. May be called on any thread; takes a lock and makes system calls,
    /// some microseconds for each rule that is another than before.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidValue`]: a prefix has bits beyond its length or is given twice, there are more than [`SOURCE_RULES_MAX`] of a family, or
    /// there is no AF_XDP here: the rules are as before. [`SetupError::Io`]: the kernel refused one of them, as it says; those before it are in
    /// force.
    ///
    /// [`SOURCE_RULES_MAX`]: crate::SOURCE_RULES_MAX
    pub fn set_source_rules(&self, rules: &[SourceRule]) -> Result<(), SetupError> {
        let invalid = |problem| SetupError::InvalidValue {
            key: SOURCE_RULES,
            problem,
        };
        check(rules).map_err(invalid)?;
        let filter = self.source_filter().ok_or_else(|| {
            invalid(
                "AF_XDP is not in use here: the host's own firewall (nftables) sees all packets".to_owned(),
            )
        })?;
        filter
            .set_source_rules(rules)
            .map_err(SetupError::io("telling the XDP program of source rules"))
    }

    /// The rules in force, in the order of their prefixes, with what each was applied to: read from the XDP program by system calls. Empty without
    /// AF_XDP.
    ///
    /// # Errors
    ///
    /// [`SetupError::Io`]: the kernel does not say.
    pub fn source_rules(&self) -> Result<Vec<SourceRuleStats>, SetupError> {
        match self.source_filter() {
            Some(filter) => filter
                .source_rules()
                .map_err(SetupError::io("reading the source rules of the XDP program")),
            None => Ok(Vec::new()),
        }
    }
}
