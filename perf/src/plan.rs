//! `ringperf plan`: where partitions would be put on this machine.

use anyhow::{Context, Result};
use clap::Args;
use ringway_datapath::plan::Plan;
use ringway_datapath::topology::{Interface, Machine};
use serde::Serialize;

use crate::options::Mode;
use crate::output;
use crate::processors::ProcessorList;

/// Options of `plan`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PlanArgs {
    /// The interface whose queues are to be served
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Processors to use, such as 0-3,8 (default: all)
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<ProcessorList>,
    /// How many threads a partition has
    #[arg(long, value_enum, default_value = "low-latency")]
    pub mode: Mode,
    /// Print it, with all that it was made from, as JSON
    #[arg(long)]
    pub json: bool,
}

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
    let processors = args.cpus.as_ref().map(|list| &list.0[..]);
    let plan = Plan::new(&machine, interface.as_ref(), processors, split);
    // An error of the plan is about the processors that it was given, or that there are.
    let plan = match args.cpus {
        Some(_) => plan.context("--cpus")?,
        None => plan?,
    };
    if args.json {
        let document = Document {
            plan: &plan,
            machine: &machine,
            interface: interface.as_ref(),
        };
        output::print_line(&serde_json::to_string(&document)?)
    } else {
        output::print_line(plan.to_string().trim_end())
    }
}
