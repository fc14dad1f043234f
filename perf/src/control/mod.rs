//! The control socket of a running server or client: a UNIX socket to which other commands of ringperf send requests.
//!
//! A request is a line of JSON, and so is each reply. Whoever may write to the socket's file may ask: its owner.

mod call;
mod serve;

use ringway::SourceRule;
use ringway::ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub(crate) use self::call::Call;
pub(crate) use self::serve::ControlSocket;
use crate::sources::SourceRuleReport;

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Sets rules for sources, takes others back, and tells all that there are then.
    Sources {
        set: Vec<SourceRule>,
        remove: Vec<IpNet>,
    },
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Sources(Vec<SourceRuleReport>),
    /// It could not be done, for this reason.
    Error(String),
}
