//! `drtool doctor`: what is wrong or about to go wrong, in one look at nodes, store, clocks, disks and settings.
//!
//! - `settings` judges this machine's environment, `facts` asks nodes and store, `judge`, `clocks` and `disks` say what follows
//!   (pure), `report` is the document and its text.
//!
//! Promises: it reads only, by type; it ends within seconds whoever is gone; one part that fails hides no other; whose view
//! a line is stands in the line; what could not be looked at is called unknown, never good; whatever is not good has a
//! code and a hint.
//!
//! Does not: write to the store to try whether that works (`drtool store probe`), read snapshots to their end (`drtool
//! snapshot verify`), rehearse a restore (`drtool drill`), or look into directories (`drtool verify`).

mod clocks;
mod codes;
mod disks;
mod facts;
mod judge;
mod report;
mod settings;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;
use confman_cli::connect::TargetArgs;
use confman_cli::failure::Failure;

pub use codes::CODES;

use crate::context::Global;
use crate::live;
use crate::store::StoreArgs;

/// Look at settings, key, nodes, network, clocks, disks, versions, store, snapshots and drills, and say what is wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Reads only: nothing is written to the nodes or to the store. Each line says whose view it is; what could not be looked at is \
unknown, not good. The exit code is 0 when nothing is wrong, 1 when there is a warning or a problem, 6 when no node answered.")]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    to: TargetArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(crate) async fn run(args: &DoctorArgs, global: &Global) -> Result<ExitCode, Failure> {
    let doing = "nodes, neighbours and the store are looked at";
    let report = global.during(doing, examine(args, global)).await;
    if global.json {
        confman_cli::output::json(&report)?;
    } else {
        live::status::print(&report.text(global.colored()))?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

async fn examine(args: &DoctorArgs, global: &Global) -> report::Report {
    let judged = settings::judge(std::env::vars_os().collect());
    let env = judged.usable;
    let client = args.to.client_in(env.clone(), global.verbose, None);
    let ((mut facts, client), (mut store, reader)) = futures::join!(
        facts::cluster(client),
        facts::store(&args.store, env.clone(), global)
    );
    let now_us = facts::now_us();
    let cluster = live::judge::report(facts.asked(), None, now_us);
    futures::join!(
        async {
            if let Some(client) = &client {
                facts::neighbours(client, &mut facts).await;
            }
        },
        async {
            if let Some(reader) = &reader {
                facts::recorded(reader, &cluster, &mut store).await;
            }
        }
    );
    judge::report(judge::Facts {
        settings: judged.checks,
        snapshots: judged.snapshots,
        key_given: args.to.has_key(env),
        tool_version: confman_cli::VERSION,
        facts: &facts,
        cluster: &cluster,
        store: &store,
        now_us,
    })
}
