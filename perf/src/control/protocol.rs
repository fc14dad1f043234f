//! Requests and replies.

use ringway::ipnet::IpNet;
use ringway::{CaptureOptions, SourceRule};
use serde::{Deserialize, Serialize};

use super::capture_report::CaptureReport;
use crate::source_rules::SourceRuleReport;

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Sets rules for sources, takes others back, and tells all that there are then.
    Sources {
        set: Vec<SourceRule>,
        remove: Vec<IpNet>,
    },
    /// Captures into the file that comes with the request, until the other end is closed or it has what it was to take.
    Capture(CaptureOptions),
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Sources(Vec<SourceRuleReport>),
    CaptureBegun,
    CaptureEnded(CaptureReport),
    /// It could not be done, for this reason.
    Error(String),
}
