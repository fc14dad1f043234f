//! What was measured, as it is stored: every run, and where it ran.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringway_perf_protocol::Scenario;
use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::contenders::{Contender, Handshakes, NetworkKind, Stack};
use super::environment::Environment;
use super::interference::Interference;
use super::metrics::Metric;
use crate::options::Api;

/// Changes when a program of another format could not read it, or would take it for something else.
const FORMAT: u32 = 4;

/// All of a comparison.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub format: u32,
    pub rounds: u32,
    pub seconds: f64,
    /// Processors of servers and of clients.
    pub cpus: [usize; 2],
    pub environment: Environment,
    /// Before the first run, and after the last.
    pub calibrations: Vec<Calibration>,
    /// Over all of it.
    pub interference: Option<Interference>,
    pub networks: Vec<NetworkNote>,
    pub scenarios: Vec<ScenarioRuns>,
}

/// A network that was asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct NetworkNote {
    pub network: NetworkKind,
    #[serde(flatten)]
    pub note: Note,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    /// What it was.
    Setup(String),
    /// Why it was not there.
    Skipped(String),
}

/// A scenario on a network: contenders that took turns.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ScenarioRuns {
    pub network: NetworkKind,
    pub scenario: Scenario,
    #[serde(flatten)]
    pub handshakes: Handshakes,
    /// Stacks that were asked for, and cannot do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    pub contenders: Vec<ContenderRuns>,
}

/// A stack without a turn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    pub stack: Stack,
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is left out: {}", self.stack.name(), self.reason)
    }
}

/// The runs of a contender, a run for each round.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct ContenderRuns {
    #[serde(flatten)]
    pub contender: Contender,
    pub runs: Vec<Outcome>,
}

/// What became of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Figures(Figures),
    /// The reason why there are none.
    Failure(String),
}

pub(crate) type Figures = BTreeMap<Metric, f64>;

impl Comparison {
    /// Nothing so far.
    pub(super) fn new(rounds: u32, seconds: f64, cpus: [usize; 2], environment: Environment) -> Self {
        Comparison {
            format: FORMAT,
            rounds,
            seconds,
            cpus,
            environment,
            calibrations: Vec::new(),
            interference: None,
            networks: Vec::new(),
            scenarios: Vec::new(),
        }
    }

    pub(super) fn read(file: &Path) -> Result<Self> {
        let name = file.display();
        let text = fs::read_to_string(file).with_context(|| format!("reading {name}"))?;
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let other = || format!("{name} is not the compare.json of `ringperf compare`");
        let Head { format } = serde_json::from_str(&text).with_context(other)?;
        ensure!(
            format == FORMAT,
            "{name} has format {format}, this program reads {FORMAT}: measure again"
        );
        serde_json::from_str(&text).with_context(other)
    }

    /// Ends of Ringway are written with futures somewhere.
    pub(super) fn has_tasks(&self) -> bool {
        let mut contenders = self.scenarios.iter().flat_map(|runs| &runs.contenders);
        contenders.any(|entry| entry.contender.api != Api::Callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{example, summary};

    #[test]
    fn what_was_written_is_read_again() {
        let comparison = example::comparison();
        let json = summary::to_json(&comparison, &summary::summarize(&comparison)).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &json).unwrap();
        assert_eq!(Comparison::read(file.path()).unwrap(), comparison);
    }

    #[test]
    fn other_files_are_refused_with_a_reason() {
        let refused = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), text).unwrap();
            format!("{:#}", Comparison::read(file.path()).unwrap_err())
        };
        assert!(refused("{}").contains("is not the compare.json"));
        let mut newer = example::comparison();
        newer.format += 1;
        assert!(refused(&summary::to_json(&newer, &[]).unwrap()).contains("measure again"));
        let missing = Comparison::read(Path::new("/no/such/file")).unwrap_err();
        assert!(missing.to_string().contains("/no/such/file"));
    }
}
