//! The rules for sources that the program applies.

use std::collections::BTreeMap;
use std::io;
use std::sync::PoisonError;

use ipnet::IpNet;

use super::Program;
use crate::source_rules::{self, SourceAction, SourceFilter, SourceRule, SourceRuleStats};

const _: () = assert!(source_rules::SOURCE_RULES_MAX == ringway_bpf::SOURCE_RULES_MAX);

fn of_program(action: SourceAction) -> ringway_bpf::SourceAction {
    match action {
        SourceAction::Accept => ringway_bpf::SourceAction::Accept,
        SourceAction::Pass => ringway_bpf::SourceAction::Pass,
        SourceAction::Drop => ringway_bpf::SourceAction::Drop,
    }
}

impl Program {
    fn remove_other_rules(
        &self,
        rules: &mut BTreeMap<IpNet, SourceAction>,
        wanted: &BTreeMap<IpNet, SourceAction>,
    ) -> io::Result<()> {
        let gone: Vec<IpNet> = rules
            .keys()
            .filter(|prefix| !wanted.contains_key(prefix))
            .copied()
            .collect();
        for prefix in gone {
            self.xdp.remove_source(prefix)?;
            rules.remove(&prefix);
        }
        Ok(())
    }
}

impl SourceFilter for Program {
    fn set_source_rules(&self, rules: &[SourceRule]) -> io::Result<()> {
        source_rules::check(rules).map_err(|problem| io::Error::new(io::ErrorKind::InvalidInput, problem))?;
        let wanted: BTreeMap<IpNet, SourceAction> =
            rules.iter().map(|rule| (rule.prefix, rule.action)).collect();
        let mut known = self.source_rules.lock().unwrap_or_else(PoisonError::into_inner);
        // New ones first, so that nothing slips through between; unless there is no room for both.
        let both = known.keys().chain(wanted.keys());
        let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) = both.partition(|prefix| matches!(prefix, IpNet::V4(_)));
        if v4.len().max(v6.len()) > source_rules::SOURCE_RULES_MAX {
            self.remove_other_rules(&mut known, &wanted)?;
        }
        for (prefix, action) in &wanted {
            if known.get(prefix) != Some(action) {
                self.xdp.set_source(*prefix, of_program(*action))?;
                known.insert(*prefix, *action);
            }
        }
        self.remove_other_rules(&mut known, &wanted)
    }

    fn source_rules(&self) -> io::Result<Vec<SourceRuleStats>> {
        let known = self.source_rules.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = known.iter().map(|(prefix, action)| {
            Ok(SourceRuleStats {
                rule: SourceRule {
                    prefix: *prefix,
                    action: *action,
                },
                datagrams: self.xdp.source_count(*prefix)?.unwrap_or(0),
            })
        });
        stats.collect()
    }
}
