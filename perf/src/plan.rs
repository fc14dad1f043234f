//! `ringperf plan`: where partitions would be put on this machine.

use anyhow::{Context, Result};
use ringway_datapath::plan::Plan;
use ringway_datapath::topology::{Interface, Machine};
use serde::Serialize;

use crate::args::{Mode, PlanArgs};
use crate::report;

/// A plan with all that it was made from.
#[derive(Serialize)]
struct Document<'a> {
    plan: &'a Plan,
    machine: &'a Machine,
    interface: Option<&'a Interface>,
}

pub(crate) fn run(args: &PlanArgs) -> Result<()> {
    let machine = Machine::read().context("reading the topology of this machine")?;
    let interface = args.interface.as_deref().map(Interface::read).transpose()?;
    let split = args.mode == Mode::MaxThroughput;
    let plan = Plan::new(&machine, interface.as_ref(), args.cpus.as_deref(), split)?;
    if args.json {
        let document = Document {
            plan: &plan,
            machine: &machine,
            interface: interface.as_ref(),
        };
        report::say(&serde_json::to_string(&document)?);
    } else {
        report::say(plan.to_string().trim_end());
    }
    Ok(())
}
